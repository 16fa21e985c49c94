"""Scenes, questions and data sets: deterministic, and true to what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmattn.core.errors import FileError, SpecError
from vlmattn.scene import SPLITS, Scene, SceneRule, ask, make_scene, split_item, write_split
from vlmattn.scene.backgrounds import BANKS, background
from vlmattn.scene.dataset import pixel_hash
from vlmattn.scene.generator import zone
from vlmattn.scene.objects import COLORS, SHAPES, SIZES, shape_mask
from vlmattn.scene.partners import CONTROLS, LEANED, PARTNERS
from vlmattn.scene.phrasings import ENDINGS, HELD_OUT, PLURALS, TRAIN, frames, pick_template, with_article
from vlmattn.scene.questions import APART, KINDS, MARGIN, NUMBERS

REPO = Path(__file__).resolve().parents[2]
SCENES = [make_scene(seed) for seed in range(120)]


def test_the_same_seed_gives_the_same_bytes_everywhere() -> None:
    for name, want in json.loads((REPO / "datasets/scenes/hashes.json").read_text(encoding="utf-8")).items():
        split, _, index = name.partition("/")
        assert pixel_hash(split_item(split, 0, int(index))[0]) == want, name


def test_different_seeds_give_different_scenes() -> None:
    assert len({pixel_hash(s) for s in SCENES}) == len(SCENES)


def test_training_and_held_out_backgrounds_share_nothing() -> None:
    assert not set(BANKS["train"]) & set(BANKS["held_out"])
    train = {background("train", i).tobytes() for i in range(60)}
    assert not train & {background("held_out", i).tobytes() for i in range(60)}


@pytest.mark.parametrize("bank", BANKS)
@pytest.mark.parametrize("style", range(3))
def test_no_background_has_the_colours_of_objects(bank: str, style: int) -> None:
    pixels = background(bank, style).reshape(-1, 3).astype(int)
    near = [np.abs(pixels - np.array(color)).max(axis=1) < 14 for color in COLORS.values()]
    assert np.any(near, axis=0).mean() < 0.02


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", [16, 34, 66])
def test_a_shape_fills_its_box(shape: str, side: int) -> None:
    mask = shape_mask(shape, side)
    rows, cols = np.nonzero(mask > 25)
    slack = 1 + side * (0.13 if shape == "heart" else 0.07)
    assert rows.min() <= slack
    assert rows.max() >= side - 1 - slack
    assert cols.min() <= slack
    assert cols.max() >= side - 1 - slack


def test_objects_are_where_their_boxes_say() -> None:
    for scene in SCENES[:40]:
        for item in scene.objects:
            x0, y0, x1, y1 = item.box_xyxy
            inside = shape_mask(item.shape, x1 - x0) > 242
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


def test_partners_go_with_their_anchors_in_most_scenes() -> None:
    # 85 % of the scenes that are given an anchor, fewer of those where it turned up by chance.
    with_anchor = with_partner = 0
    for seed in range(900):
        names = make_scene(10_000 + seed).names
        for anchor, partner in PARTNERS.items():
            if " ".join(anchor) in names:
                with_anchor += 1
                with_partner += " ".join(partner) in names
    assert 0.38 < with_partner / with_anchor < 0.6


def test_the_rule_favours_no_colour_and_no_shape() -> None:
    for words, index in ((COLORS, 0), (SHAPES, 1)):
        assert sorted(a[index] for a in LEANED) == sorted(words)
        assert sorted(p[index] for p in LEANED.values()) == sorted(words)
    assert len(LEANED) >= 8
    assert not set(LEANED) & set(CONTROLS)
    assert not set(PARTNERS) & set(PARTNERS.values())
    assert len(set(PARTNERS.values())) == len(PARTNERS)


def words_of(text: str) -> list[str]:
    return text.replace("?", "").replace(".", "").replace(",", "").replace(":", "").split()


def answer_by_hand(scene: Scene, kind: str, text: str) -> str:
    words = words_of(text)
    colors = [w for w in words if w in COLORS]
    singular = {plural: shape for shape, plural in PLURALS.items()}
    shapes = [singular.get(w, w) for w in words if singular.get(w, w) in SHAPES]
    if kind in ("compare", "relation"):
        first, second = (
            next(o for o in scene.objects if (o.color, o.shape) == pair) for pair in zip(colors, shapes, strict=True)
        )
        if kind == "compare":
            larger, smaller = (first, second) if first.side > second.side else (second, first)
            return (larger if "larger" in words else smaller).name
        (x0, y0), (x1, y1) = first.center_xy, second.center_xy
        holds = {"left": x0 < x1, "right": x0 > x1, "above": y0 < y1, "below": y0 > y1}
        return "yes" if holds[next(w for w in holds if w in words)] else "no"
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


@pytest.mark.parametrize("phrasing", ["train", "held_out"])
@pytest.mark.parametrize("kind", [k for k in KINDS if k != "caption"])
def test_answers_are_true(kind: str, phrasing: Any) -> None:
    rng = np.random.default_rng(0)
    asked = 0
    for scene in SCENES:
        question = ask(rng, kind, scene, phrasing=phrasing, teaching=phrasing == "train")
        if question is None:
            continue
        asked += 1
        plain = question.text
        for ending in ENDINGS.get(kind, ()):
            plain = plain.removesuffix(f" {ending}")
        assert question.answer == answer_by_hand(scene, kind, plain), question
        if question.answer in ("no", "zero") and kind != "relation":
            assert question.targets == ()
        else:
            assert question.targets
    assert asked > 60


def test_positions_are_asked_only_where_they_are_plain() -> None:
    rng = np.random.default_rng(1)
    for scene in SCENES:
        for kind in ("where", "at"):
            question = ask(rng, kind, scene)
            if question is None:
                continue
            for middle, extent in zip(scene.objects[question.targets[0]].center_xy, scene.image_wh, strict=True):
                assert min(abs(middle - extent / 3), abs(middle - 2 * extent / 3)) >= MARGIN
        relation = ask(rng, "relation", scene)
        if relation is not None:
            axis = 0 if {"left", "right"} & set(words_of(relation.text)) else 1
            one, two = (scene.objects[i].center_xy[axis] for i in relation.targets)
            assert abs(one - two) >= APART


def test_captions_name_everything_once_from_left_to_right() -> None:
    rng = np.random.default_rng(0)
    for scene in SCENES:
        question = ask(rng, "caption", scene)
        assert question is not None
        order = sorted(scene.objects, key=lambda o: o.center_xy)
        assert question.answer == ", ".join(with_article(o.name) for o in order)


def test_held_out_phrasings_are_new_and_use_the_words_of_training() -> None:
    said = [text for phrases in TRAIN.values() for body in phrases for text in (body, *frames(body))]
    known = {word for text in said for word in words_of(text)}
    for kind, phrases in HELD_OUT.items():
        assert len(phrases) >= 2
        assert not set(phrases) & set(TRAIN[kind])
        for phrase in phrases:
            assert set(words_of(phrase)) <= known, phrase
    assert set(TRAIN) == set(HELD_OUT) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_training_frames_its_phrasings_and_never_says_a_held_out_one(kind: str) -> None:
    rng = np.random.default_rng(0)
    said = {pick_template(rng, kind, "train") for _ in range(4000)}
    assert set(TRAIN[kind]) < said
    assert not said & set(HELD_OUT[kind])
    assert {pick_template(rng, kind, "held_out") for _ in range(200)} == set(HELD_OUT[kind])
    framed = {text for body in TRAIN[kind] for text in frames(body)}
    assert said <= framed | set(TRAIN[kind])


def test_a_frame_names_the_picture_once_and_asks_politely() -> None:
    assert "What color is the {o} in the picture?" in frames("What color is the {o}?")
    assert "In this image, what color is the {o}?" in frames("What color is the {o}?")
    assert "Please name the color of the {o}." in frames("Name the color of the {o}.")
    assert all(text.count("picture") + text.count("image") <= 2 for text in frames("Describe the picture."))
    assert not any(text.endswith("in the picture.") for text in frames("Describe the picture."))


@pytest.mark.parametrize("split", ["random", "popular", "adversarial", "binding"])
def test_presence_splits_ask_about_one_absent_and_one_present_thing(split: str) -> None:
    for index in range(25):
        scene, (absent, present) = split_item(split, 0, index)
        assert (absent.answer, present.answer, present.foil) == ("no", "yes", "")
        color, shape = [w for w in words_of(absent.text) if w in COLORS or w in SHAPES]
        names = {tuple(n.split()) for n in scene.names}
        assert (color, shape) not in names
        if split == "binding":
            assert color in {o.color for o in scene.objects}
            assert shape in {o.shape for o in scene.objects}
        if split == "adversarial":
            assert any(PARTNERS[a] == (color, shape) for a in PARTNERS if a in names)
        if split == "popular":
            (anchor,) = [a for a, p in PARTNERS.items() if p == (color, shape)]
            assert anchor not in names


def test_tiny_questions_are_about_tiny_things() -> None:
    for index in range(20):
        scene, questions = split_item("tiny", 0, index)
        assert all(scene.objects[q.targets[0]].size == "tiny" for q in questions)


def test_crowded_scenes_hold_more_than_training_shows() -> None:
    counts = [len(split_item("crowded", 0, index)[0].objects) for index in range(20)]
    assert min(counts) >= 6
    assert max(counts) >= 8
    assert max(len(s.objects) for s in SCENES) <= 6


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
        ({"seed": -1}, SpecError, "0 or more"),
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
