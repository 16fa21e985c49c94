"""The models with planted sinks do what they are for: maps that need them removed, answers that need them tamed."""

from __future__ import annotations

import numpy as np
import pytest

import vlmattn as va
from benchmarks.planted_sinks import LAYER, cases, measured
from vlmattn.scene.box import SINK_PATCHES, with_sinks


def test_raw_maps_are_useless_until_the_sinks_are_removed() -> None:
    plain, planted = measured("scene"), measured("scene-sinks")
    assert planted.right > plain.right - 0.15
    assert planted.pointing < 0.35
    assert planted.without_sinks > plain.pointing - 0.1
    assert plain.pointing > 0.85


def test_lost_answers_come_back_when_attention_is_given_back() -> None:
    plain, planted, mended = measured("scene"), measured("scene-sinks-strong"), measured("scene-sinks-strong", True)
    assert planted.right < plain.right - 0.25
    assert mended.right > plain.right - 0.05
    assert mended.pointing > plain.pointing - 0.05


def test_giving_back_without_sinks_changes_little() -> None:
    assert measured("scene", True).right > measured("scene").right - 0.05


def test_sinks_are_massive_where_they_were_planted_and_nowhere_else() -> None:
    scene, question = cases(40)[0]
    plain = va.load("scene")
    model, planted = with_sinks(plain.model, "scene-sinks")
    spec = va.CaptureSpec(rows="question", hidden=True, hidden_coords=planted.coordinates)
    run = va.load(model, plain.processor).ask(scene.image, question.text, capture=spec)
    hidden, first = run.trace.hidden, run.trace.layout.image_positions[0]
    assert hidden is not None
    sinks = [first + p for p in SINK_PATCHES]
    size = np.abs(hidden.coord_lnc[list(hidden.layers).index(LAYER)]).max(axis=-1)
    assert sorted(np.argsort(size)[-len(sinks) :]) == sinks
    assert size[sinks].min() > 100 * np.delete(size, sinks).max()


def test_verify_holds_for_them_too() -> None:
    assert va.load("scene-sinks").verify().passed


@pytest.mark.parametrize(("name", "message"), [("scene@0.5", "no model in the box"), ("scene-prior@x", "from 0 to 1")])
def test_names_that_are_none(name: str, message: str) -> None:
    with pytest.raises(va.VlmattnError, match=message):
        va.load(name)
