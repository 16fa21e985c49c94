"""Synthetic observers and search displays: they do what the stated rule says, and say that they are no people."""

from __future__ import annotations

import doctest
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmattn.core.errors import SpecError
from vlmattn.gaze import Fixations, read_fixations, write_fixations
from vlmattn.gaze.observers import Observer, likeness, synthetic_fixations
from vlmattn.gaze.scanpaths import first_hit
from vlmattn.gaze.search_displays import search_display
from vlmattn.scene import SceneObject, split_item

SCENES = [split_item("validation", 1, index)[0] for index in range(12)]


@pytest.mark.parametrize("name", ["observers", "search_displays"])
def test_examples(name: str) -> None:
    result = doctest.testmod(sys.modules[f"vlmattn.gaze.{name}"])
    assert result.attempted
    assert not result.failed


def searched(observer: Observer, seed: int = 0) -> list[int | None]:
    """Which fixation hits the last object, scene by scene and subject by subject."""
    found = []
    for number, scene in enumerate(SCENES):
        thing = scene.objects[-1]
        paths = synthetic_fixations(scene, image=str(number), target=thing.name, seed=seed, observer=observer)
        found += [first_hit(path, thing.box_xyxy) for path in paths]
    return found


def mean_steps(observer: Observer) -> float:
    return float(np.mean([observer.longest if hit is None else hit for hit in searched(observer)]))


def test_guidance_finds_the_target_sooner() -> None:
    blind, guided = Observer(guidance=0.0, variation=0.0), Observer(guidance=4.0, variation=0.0)
    assert mean_steps(guided) < 0.6 * mean_steps(blind)


def test_search_ends_on_the_target_or_at_its_longest() -> None:
    observer = Observer(longest=5)
    for number, scene in enumerate(SCENES):
        thing = scene.objects[0]
        for path in synthetic_fixations(scene, image=str(number), target=thing.name, observer=observer):
            hit = first_hit(path, thing.box_xyxy)
            assert len(path) == (5 if hit is None else hit + 1)
            assert path.trial["target_box"] == list(thing.box_xyxy)


def test_free_viewing_goes_to_objects_by_salience_and_no_place_twice() -> None:
    def on_things(observer: Observer) -> float:
        hits = []
        for number, scene in enumerate(SCENES):
            for path in synthetic_fixations(scene, image=str(number), observer=observer):
                boxes = np.array([o.box_xyxy for o in scene.objects])
                x, y = path.x[1:, None], path.y[1:, None]
                on = (x >= boxes[:, 0]) & (x < boxes[:, 2]) & (y >= boxes[:, 1]) & (y < boxes[:, 3])
                hits += on.any(axis=1).tolist()
        return float(np.mean(hits))

    def returns(observer: Observer) -> float:
        steps = [
            np.hypot(*np.diff(path.xy, axis=0).T)
            for path in synthetic_fixations(SCENES[0], image="a", subjects=30, observer=observer)
        ]
        return float(np.mean(np.concatenate(steps) < 15))

    assert on_things(Observer(salience=6.0)) > on_things(Observer(salience=0.0)) + 0.2
    assert returns(Observer(inhibition=8.0)) < 0.5 * returns(Observer(inhibition=0.0))


def test_the_same_seed_gives_the_same_and_others_give_others() -> None:
    def drawn(**change: Any) -> list[dict[str, Any]]:
        given: dict[str, Any] = {"image": "a", "subjects": 3, "seed": 4} | change
        return [path.to_dict() for path in synthetic_fixations(SCENES[0], **given)]

    assert drawn() == drawn()
    assert drawn()[:2] == drawn(subjects=2)
    for change in ({"seed": 5}, {"image": "b"}, {"task": "look"}):
        assert [p["x"] for p in drawn()] != [p["x"] for p in drawn(**change)]
    xs = [tuple(p["x"]) for p in drawn()]
    assert len(set(xs)) == 3


def test_every_scanpath_and_every_file_says_that_it_is_synthetic(tmp_path: Path) -> None:
    paths = synthetic_fixations(SCENES[0], image="a", subjects=2)
    assert all(path.trial["synthetic"] is True and str(path.subject).startswith("synthetic-") for path in paths)
    back = read_fixations(write_fixations(tmp_path / "a.json", paths))
    assert all(path.trial["synthetic"] is True for path in back)
    assert "synthetic-1" in write_fixations(tmp_path / "a.csv", paths).read_text()
    assert isinstance(back, Fixations)
    assert json.loads((tmp_path / "a.json").read_text())


def test_all_fixations_are_on_the_picture_and_begin_in_its_middle() -> None:
    for number, scene in enumerate(SCENES):
        for path in synthetic_fixations(scene, image=str(number), subjects=4):
            assert path.on_image().all()
            assert np.hypot(*(path.xy[0] - np.array(scene.image_wh) / 2)) < 12


def test_likeness() -> None:
    thing = SceneObject("red", "ring", "small", (0, 0, 30, 30))
    alike = [likeness(thing, target) for target in ("red ring", "red star", "blue ring", "blue star")]
    assert alike == [1.0, 0.5, 0.25, 0.0]


@pytest.mark.parametrize("wrong", [{"noise": 0.0}, {"guidance": -1.0}, {"reach": float("nan")}])
def test_wrong_strengths_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SpecError):
        Observer(**wrong)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="subjects"):
        synthetic_fixations(SCENES[0], image="a", subjects=0)


def test_matching_displays_differ_in_nothing_but_what_is_exchanged() -> None:
    one, other = search_display("red ring", "red circle", seed=3), search_display("red circle", "red ring", seed=3)
    assert [o.box_xyxy for o in one.objects] == [o.box_xyxy for o in other.objects]
    assert [o.name for o in one.objects] == ["red ring"] + ["red circle"] * 11
    assert [o.name for o in other.objects] == ["red circle"] + ["red ring"] * 11
    x, y = one.objects[0].center_xy
    assert max(abs(x - 112), abs(y - 112)) > 22
    for wrong in (("red ring", "red ring"), ("pink ring", "red ring"), ("red", "blue ring")):
        with pytest.raises(SpecError):
            search_display(*wrong)
    with pytest.raises(SpecError, match="2 to 25"):
        search_display("red ring", "blue ring", items=26)
