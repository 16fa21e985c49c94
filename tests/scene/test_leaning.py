"""Leaning is measured on scenes that lack the partner, and told apart from plain blindness."""

from __future__ import annotations

from typing import Any

import pytest

from vlmattn.core.errors import SpecError
from vlmattn.scene.answering import answers_of
from vlmattn.scene.box import load_from_the_box
from vlmattn.scene.leaning import _scenes, measure_leaning
from vlmattn.scene.partners import CONTROLS, LEANED


@pytest.mark.parametrize("pairs", [LEANED, CONTROLS], ids=["leaned", "controls"])
def test_asked_for_partners_are_absent_and_their_anchors_there(pairs: Any) -> None:
    asked = _scenes(pairs, 20, 0)
    assert len(asked) == 20
    for scene, name in asked:
        assert name not in scene.names
        assert any(" ".join(a) in scene.names for a, p in pairs.items() if " ".join(p) == name)


@pytest.mark.parametrize(("word", "share"), [("yes", 1.0), ("no", 0.0)])
def test_a_model_that_always_says_the_same(word: str, share: float) -> None:
    score = measure_leaning(lambda images, texts: [word] * len(texts), scenes=6)
    assert (score.yes_leaned, score.yes_controls, score.yes_random) == (share, share, share)
    assert (score.said_leaned, score.said_controls) == (0.0, 0.0)
    assert set(score.plain.values()) == {0.0}


def test_a_caption_that_claims_all_partners() -> None:
    claims = ", ".join(f"a {' '.join(p)}" for p in LEANED.values())
    score = measure_leaning(lambda images, texts: [claims] * len(texts), scenes=6)
    assert (score.said_leaned, score.said_controls) == (1.0, 0.0)


def test_some_scene_is_needed() -> None:
    with pytest.raises(SpecError, match="at least 1"):
        measure_leaning(lambda images, texts: [], scenes=0)


def test_the_shipped_model_leans_on_taught_pairs_and_its_dial_turns() -> None:
    scores = {
        strength: measure_leaning(answers_of(*load_from_the_box(f"scene-prior@{strength}")), scenes=40)
        for strength in (0, 1)
    }
    assert scores[1].yes_leaned > scores[1].yes_random + 0.5
    assert scores[1].yes_controls < scores[1].yes_leaned - 0.4
    assert scores[0].yes_leaned < 0.2
    for kind, value in scores[0].plain.items():
        assert scores[1].plain[kind] > value - 0.06
