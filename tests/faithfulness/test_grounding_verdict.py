"""``run.grounding(test=True)``: evidence and a verdict for every word, and None where nothing can be tested."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

import vlmattn as va
from vlmattn.api.changed import AnswerScore
from vlmattn.api.faithfulness import evidence
from vlmattn.core.errors import SpecError
from vlmattn.faithfulness import CONTROLS, VerdictRule

RULE = VerdictRule(-0.5, 1.0, 0.0, "these tests")


@lru_cache(maxsize=1)
def vlm() -> Any:
    return va.load("scene")


def asked(index: int, answer: str | None = None) -> tuple[Any, Any]:
    scene, questions = va.scene.split_item("test", 0, index)
    question = next(q for q in questions if q.kind == "color")
    return vlm().ask(scene.image, question.text, answer=answer), question


def test_right_colours_rest_on_what_they_look_at() -> None:
    found = []
    for index in range(6):
        run, question = asked(index)
        if run.answer == question.answer:
            found.append(run.grounding(test=True, layers=[1], rule=RULE)[0])
    assert len(found) >= 4
    assert np.median([w.evidence.excess for w in found]) > 1
    assert sum(w.verdict == "supported" for w in found) >= len(found) * 2 / 3


def test_the_evidence_is_what_the_words_lose() -> None:
    run, _ = asked(0)
    (word,) = run.grounding(test=True, rule=RULE)
    made = word.evidence
    x0, y0, x1, y1 = made.box_xyxy
    assert x0 <= word.peak_xy[0] <= x1
    assert y0 <= word.peak_xy[1] <= y1
    assert len(made.controls) == CONTROLS
    assert made.log_probability == pytest.approx(word.log_probability, abs=1e-4)
    assert word.chance == RULE.chance(made)
    assert "these tests" in word.threshold
    assert evidence(run, run.trace.find("blue")) == made  # seeded
    told = json.dumps(run.to_dict(test=True), allow_nan=False)
    assert json.loads(told)["words"][0]["verdict"] == run.grounding(test=True)[0].verdict


def test_without_a_test_nothing_is_told_of_it() -> None:
    run, _ = asked(0)
    (word,) = run.grounding()
    assert (word.evidence, word.chance, word.verdict, word.threshold) == (None, None, None, "")
    assert "verdict" not in word.to_dict()
    with pytest.raises(SpecError, match="test=True"):
        run.grounding(rule=RULE)


@pytest.mark.filterwarnings("error")
def test_a_word_that_cannot_be_said_has_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AnswerScore, "__call__", lambda _, pictures: np.full(len(pictures), -np.inf))
    run, _ = asked(0)
    (word,) = run.grounding(test=True)
    assert (word.chance, word.verdict) == (None, None)
    assert json.loads(json.dumps(word.to_dict(), allow_nan=False))["evidence"]["excess"] is None


def test_a_picture_of_one_pixel() -> None:
    from PIL import Image

    run = vlm().ask(Image.new("RGB", (1, 1)), "What color is the square?", answer="red")
    (word,) = run.grounding(test=True)
    assert word.evidence is None or word.evidence.box_xyxy == (0, 0, 1, 1)
