"""Scanpaths of an answer: each order against the maps it is made of; NevaClip with the model in the box."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest

import vlmattn as va
from tests.capture.asked import loaded
from vlmattn.core.errors import MapError, SpecError
from vlmattn.gaze.models import Durations, Neva, neva_clip, winner_take_all
from vlmattn.scene import split_item


@pytest.fixture(scope="module")
def run() -> Any:
    scene, questions = split_item("test", 0, 2)
    asked = next(q for q in questions if q.kind == "caption")
    return va.load("scene", device="cpu").ask(scene.image, asked.text)


def merged(looks: list[Any]) -> tuple[list[tuple[float, float]], list[int]]:
    """Peaks of maps in order, equal ones in a row once, and how many each stands for."""
    places: list[tuple[float, float]] = []
    counts: list[int] = []
    for look in looks:
        if places and np.hypot(*np.subtract(look.pixels.peak_xy, places[-1])) <= 0.5:
            counts[-1] += 1
        else:
            places.append(look.pixels.peak_xy)
            counts.append(1)
    return places, counts


def test_tokens_words_and_layers_are_the_peaks_of_their_maps(run: Any) -> None:
    words = [w for w in run.words() if any(c.isalnum() for c in w.text)]
    looks = {
        "tokens": run.token_maps(),
        "words": [run.map(w) for w in words],
        "layers": [run.map(layers=[n]) for n in run.trace.layers],
    }
    for order, some in looks.items():
        path = run.scanpath(order, durations=Durations("weight", seconds=0.2, shortest=0.001))
        places, counts = merged(some)
        np.testing.assert_allclose(path.xy, places)
        np.testing.assert_allclose(path.duration, 0.2 * np.array(counts) / np.mean(counts))
        assert (path.task, path.subject, path.trial["order"]) == (run.question, "scene", order)
    assert len(run.scanpath("tokens")) > 2


@pytest.mark.parametrize("family", ["qwen2_vl", "gemma3", "florence2", "internvl", "mllama"])
def test_it_is_in_the_pictures_pixels_whatever_the_family(family: str) -> None:
    picture = np.random.default_rng(3).integers(0, 255, (90, 150, 3), dtype=np.uint8)
    run = loaded(family).ask(picture, "What is left of the red spoon?", answer="red spoon it is")
    alone = {}
    for layer in run.trace.layers:
        with suppress(SpecError, MapError):  # blind, or hidden by a sliding window
            alone[layer] = run.map(layers=[layer])
    assert alone
    for order, looks in (("tokens", run.token_maps()), ("layers", list(alone.values()))):
        path = run.scanpath(order)
        places, _ = merged([look for look in looks if not look.patch_map.is_flat])
        assert path.image_wh == (150, 90)
        np.testing.assert_allclose(path.xy, places, atol=1e-4)
        assert path.trial["flat_maps"] == sum(look.patch_map.is_flat for look in looks)


def test_a_map_gives_winner_take_all(run: Any) -> None:
    look = run.map("a", method="value", part="answer") if "a" in run.answer.split() else run.map(method="value")
    what = "a" if "a" in run.answer.split() else None
    options = {"part": "answer"} if what else {}
    path = run.scanpath("map", what, count=4, method="value", **options)
    np.testing.assert_allclose(path.xy, winner_take_all(look.patch_map, count=4).xy)
    one, same, other = (run.scanpath("sampled", count=5, seed=seed).xy.tolist() for seed in (1, 1, 2))
    assert one == same != other


def test_centroids_lie_nearer_the_middle_than_peaks(run: Any) -> None:
    middle = np.array(run.pictures[0].wh) / 2
    peaks, means = (run.scanpath("tokens", at=at, merge_px=0.0) for at in ("peak", "centroid"))
    assert np.hypot(*(means.xy - middle).T).mean() < np.hypot(*(peaks.xy - middle).T).mean()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("eyes",), "order"),
        (("tokens", "red"), "whole answer"),
    ],
)
def test_what_cannot_be_is_refused(run: Any, given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        run.scanpath(*given)
    with pytest.raises(SpecError):
        run.scanpath("tokens", count=3)  # of maps only


def test_nevaclip_looks_at_what_is_named_in_the_pictures_own_pixels() -> None:
    encoder = va.load_clip("scene-clip", device="cpu").encoder
    scenes = [split_item("test", 0, n)[0] for n in (3, 9, 11)]
    assert any(scene.image_wh[0] != scene.image_wh[1] for scene in scenes)
    things = [max(scene.objects, key=lambda o: o.side) for scene in scenes]
    settings = Neva(2, candidates=10, steps=3)
    paths = neva_clip(encoder, [s.image for s in scenes], [f"a {t.name}" for t in things], settings=settings)
    for path, scene, thing in zip(paths, scenes, things, strict=True):
        assert path.image_wh == scene.image_wh
        assert path.on_image().all()
        x0, y0, x1, y1 = thing.box_xyxy
        assert ((path.x > x0 - 8) & (path.x < x1 + 8) & (path.y > y0 - 8) & (path.y < y1 + 8)).any()
    alone = neva_clip(encoder, [scenes[1].image], [f"a {things[1].name}"], settings=settings, seeds=[1])[0]
    np.testing.assert_allclose(alone.xy, paths[1].xy, atol=0.5)
    with pytest.raises(SpecError, match="as many texts"):
        neva_clip(encoder, [scenes[0].image], ["a", "b"])
