"""What the model in the box does, on scenes and backgrounds it never saw: it answers, and it looks at what is asked."""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

import vlmattn as va
from benchmarks.pointing import cases, measure
from vlmattn.scene import split_item

SCENES = 40


@lru_cache(maxsize=1)
def vlm() -> Any:
    return va.load("scene")


@lru_cache(maxsize=1)
def records() -> list[dict[str, Any]]:
    return measure(vlm(), cases(SCENES, kinds=("color", "shape", "exist")))


@pytest.mark.parametrize("kind", ["color", "shape", "exist"])
def test_it_answers(kind: str) -> None:
    mine = [r["right"] for r in records() if r["kind"] == kind]
    assert len(mine) >= 12
    assert np.mean(mine) >= 0.85


@pytest.mark.parametrize("kind", ["color", "shape", "exist"])
def test_its_second_layer_looks_at_the_thing(kind: str) -> None:
    mine = [r for r in records() if r["kind"] == kind]
    hits = np.mean([r["hit"]["layer 1"] for r in mine])
    assert hits >= 0.8
    assert hits > 2 * np.mean([1 / r["objects"] for r in mine])


def test_the_check_notices_a_look_at_the_wrong_place() -> None:
    asked = cases(SCENES, kinds=("color",))
    elsewhere = [(scene, questions) for (scene, _), (_, questions) in itertools.pairwise(asked)]
    moved = [(s, q) for s, q in elsewhere if q.targets[0] < len(s.objects)]
    wrong = measure(vlm(), moved)
    assert np.mean([r["hit"]["layer 1"] for r in wrong]) < 0.7


def test_capture_leaves_it_alone() -> None:
    result = vlm().verify()
    assert result.passed
    assert result.row_error is not None
    assert result.row_error < 1e-5


def test_the_same_question_about_an_enlarged_picture_points_at_the_enlarged_place() -> None:
    scene, questions = split_item("test", 0, 3)
    question = next(q for q in questions if q.kind == "color")
    small = vlm().ask(scene.image, question.text)
    large = vlm().ask(scene.image.resize((scene.image_wh[0] * 3, scene.image_wh[1] * 3)), question.text)
    assert small.answer == large.answer
    assert np.allclose(np.array(small.map(0).peak_xy) * 3, large.map(0).peak_xy, atol=1)
