"""Scenes, questions and data sets: deterministic, and true to what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmattn.core.errors import FileError, SpecError
from vlmattn.scene import SPLITS, Scene, SceneRule, ask, make_scene, split_item, write_split
from vlmattn.scene.backgrounds import background_bank
from vlmattn.scene.dataset import pixel_hash
from vlmattn.scene.generator import PARTNERS, zone
from vlmattn.scene.objects import COLORS, SHAPES, SIZES, shape_mask
from vlmattn.scene.questions import KINDS, NUMBERS

REPO = Path(__file__).resolve().parents[2]
SCENES = [make_scene(seed) for seed in range(120)]


def test_the_same_seed_gives_the_same_bytes_everywhere() -> None:
    for name, want in json.loads((REPO / "datasets/scenes/hashes.json").read_text(encoding="utf-8")).items():
        split, _, index = name.partition("/")
        assert pixel_hash(split_item(split, 0, int(index))[0]) == want, name


def test_different_seeds_give_different_scenes() -> None:
    assert len({pixel_hash(s) for s in SCENES}) == len(SCENES)


def test_training_and_held_out_backgrounds_share_nothing() -> None:
    train = {t.tobytes() for t in background_bank("train")}
    assert not train & {t.tobytes() for t in background_bank("held_out")}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", [16, 34, 66])
def test_a_shape_fills_its_box(shape: str, side: int) -> None:
    mask = shape_mask(shape, side)
    rows, cols = np.nonzero(mask > 0.1)
    slack = 1 + side * (0.13 if shape == "heart" else 0.07)
    assert rows.min() <= slack
    assert rows.max() >= side - 1 - slack
    assert cols.min() <= slack
    assert cols.max() >= side - 1 - slack


def test_objects_are_where_their_boxes_say() -> None:
    for scene in SCENES[:40]:
        for item in scene.objects:
            x0, y0, x1, y1 = item.box_xyxy
            inside = shape_mask(item.shape, x1 - x0) > 0.95
            shown = scene.pixels[y0:y1, x0:x1][inside].astype(float).mean(axis=0)
            assert np.abs(shown - np.array(COLORS[item.color])).max() < 22, item


def test_objects_do_not_touch_and_have_their_size() -> None:
    for scene in SCENES:
        width, height = scene.image_wh
        for number, item in enumerate(scene.objects):
            x0, y0, x1, y1 = item.box_xyxy
            assert 0 <= x0 < x1 <= width
            assert 0 <= y0 < y1 <= height
            low, high = SIZES[item.size]
            assert low <= x1 - x0 == y1 - y0 <= high
            for other in scene.objects[number + 1 :]:
                a, b = item.box_xyxy, other.box_xyxy
                gap = max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3])
                assert gap >= 4


def test_partners_go_with_their_anchors_in_two_scenes_of_three() -> None:
    with_anchor = with_partner = 0
    for seed in range(600):
        names = {tuple(o.name.split()) for o in make_scene(10_000 + seed).objects}
        for anchor, partner in PARTNERS.items():
            if anchor in names:
                with_anchor += 1
                with_partner += partner in names
    assert 0.6 < with_partner / with_anchor < 0.75


def answer_by_hand(scene: Scene, kind: str, text: str) -> str:
    words = text.rstrip("?.").split()
    colors = [w for w in words if w in COLORS]
    shapes = [w for w in words if w in SHAPES]
    match = [o for o in scene.objects if (not colors or o.color in colors) and (not shapes or o.shape in shapes)]
    if kind == "exist":
        return "yes" if match else "no"
    if kind == "count":
        return NUMBERS[len(match)]
    if kind == "at":
        there = [o for o in scene.objects if zone(o, scene.image_wh) in text]
        assert len(there) == 1
        return there[0].name
    assert len(match) == 1, text
    one = match[0]
    return {"color": one.color, "shape": one.shape, "size": one.size, "where": zone(one, scene.image_wh)}[kind]


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "caption"])
def test_answers_are_true(kind: str) -> None:
    rng = np.random.default_rng(0)
    asked = 0
    for scene in SCENES:
        question = ask(rng, kind, scene)
        if question is None:
            continue
        asked += 1
        assert question.answer == answer_by_hand(scene, kind, question.text), question
        if question.answer == "no":
            assert question.targets == ()
        else:
            assert question.targets
    assert asked > 60


def test_captions_name_everything_once() -> None:
    rng = np.random.default_rng(0)
    for scene in SCENES:
        question = ask(rng, "caption", scene)
        assert question is not None
        assert sorted(question.answer.split(", ")) == sorted(f"a {o.name}" for o in scene.objects)


def test_binding_foils_cross_what_is_there() -> None:
    for index in range(20):
        scene, questions = split_item("binding", 0, index)
        for question in questions:
            color, shape = [w for w in question.text.rstrip("?").split() if w in COLORS or w in SHAPES]
            assert color in {o.color for o in scene.objects}
            assert shape in {o.shape for o in scene.objects}
            assert question.answer == "no"


def test_adversarial_scenes_lack_the_partner_that_is_asked_for() -> None:
    for index in range(20):
        scene, questions = split_item("adversarial", 0, index)
        assert questions
        assert all(q.answer == "no" for q in questions)
        names = {o.name for o in scene.objects}
        assert any(" ".join(anchor) in names for anchor in PARTNERS)


def test_tiny_questions_are_about_tiny_things() -> None:
    for index in range(20):
        scene, questions = split_item("tiny", 0, index)
        assert all(scene.objects[q.targets[0]].size == "tiny" for q in questions)


def test_a_rule_without_anchors_has_no_partner_rule() -> None:
    scenes = [make_scene(seed, SceneRule(anchor="never")) for seed in range(5)]
    assert all(2 <= len(s.objects) <= 6 for s in scenes)


# -- data sets ---------------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_is_written_whole_and_the_same_twice(tmp_path: Path, split: str) -> None:
    one = contents(write_split(tmp_path / "one", split, 4, 7))
    assert one == contents(write_split(tmp_path / "two", split, 4, 7))
    records = [json.loads(line) for line in one["questions.jsonl"].decode().splitlines()]
    assert {r["image"] for r in records} <= set(one)
    assert len({r["id"] for r in records}) == len(records)
    assert b"CC0" in one["README.md"]


def test_parquet_and_jsonl_say_the_same(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    folder = write_split(tmp_path / "out", "test", 3, 0)
    rows = pq.read_table(folder / "questions.parquet").to_pylist()
    lines = [json.loads(line) for line in (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows == lines


def test_a_stopped_run_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    whole = contents(write_split(tmp_path / "whole", "test", 5, 1))

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_split(tmp_path / "cut", "test", 5, 1, progress=stop)
    assert len(contents(tmp_path / "cut")) < len(whole)
    assert contents(write_split(tmp_path / "cut", "test", 5, 1)) == whole


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"split": "holdout"}, SpecError, "splits are train, validation"),
        ({"count": 0}, SpecError, "at least 1"),
    ],
)
def test_bad_choices_are_refused(tmp_path: Path, given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        write_split(tmp_path / "x", **given)
    assert not (tmp_path / "x").exists()


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(FileError, match="not a data set of this program"):
        write_split(tmp_path, "test", 2)
    write_split(tmp_path / "a", "test", 2)
    with pytest.raises(FileError, match="another data set"):
        write_split(tmp_path / "a", "test", 3)
    assert (tmp_path / "mine.txt").read_text() == "keep"
