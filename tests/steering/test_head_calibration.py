"""Heads for ACT and DAGCD from a model's own answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import vlmattn as va
from tests.steering.plain_contrast import picture, vlm_of
from vlmattn.api import CalibratedHeads, calibrate_act, calibrate_dagcd
from vlmattn.core.errors import SpecError
from vlmattn.core.layout import TokenKind
from vlmattn.steering import ACT


@pytest.fixture(scope="module")
def llava() -> va.Vlm:
    return vlm_of("llava")


def test_gains_are_those_of_one_head_at_a_time(llava: va.Vlm) -> None:
    examples = [
        (picture(n), question, "a red cup") for n, question in enumerate(("Who?", "What is on the stove here?"))
    ]
    found = calibrate_act(llava, examples, alpha=1.2, beta=0.1, layers=(1,))
    assert (found.layers, found.gain_lh.shape, found.examples) == ((1,), (1, 4), 2)
    by_hand = []
    for image, question, answer in examples:
        one = ACT(alpha=1.2, beta=0.1, heads=((1, 2),))
        both = [llava.ask(image, question, answer=answer, steering=some).trace.scores for some in ([], [one])]
        by_hand.append(float(both[1].chosen_logp_t.sum() - both[0].chosen_logp_t.sum()))  # type: ignore[union-attr]
    assert found.gain_lh[0, 2] == pytest.approx(np.mean(by_hand), abs=1e-5)
    assert np.abs(found.gain_lh).max() > 1e-5
    with pytest.raises(SpecError, match="two examples"):
        calibrate_act(llava, examples[:1])


def test_only_sure_gains_are_steered() -> None:
    gain = np.array([[0.5, -1.0, 0.2], [0.3, np.nan, 0.0]])
    found = CalibratedHeads((2, 4), gain, np.array([[0.1, 0.1, 0.3], [0.1, np.nan, 0.0]]), 8, 5.0, 0.4)
    assert found.steering().heads == ((2, 0), (4, 0))
    assert found.steering(1).heads == ((2, 0),)
    assert found.steering(errors=0.5).heads == ((2, 0), (4, 0), (2, 2))
    with pytest.raises(SpecError, match="leave this model's sinks alone"):
        replace(found, gain_lh=-np.abs(gain)).steering()


def test_words_that_are_written_are_told_from_those_that_are_not(llava: va.Vlm) -> None:
    from vlmattn.api import head_calibration

    run = llava.ask(picture(), "What is on the stove here?", answer="stove is on")
    ratios, used = head_calibration._used_words(run)
    layout = run.trace.layout
    asked = layout.input_ids[layout.kinds == TokenKind.QUESTION]
    words, written = np.unique(asked), layout.input_ids[layout.answer_start :]
    assert ratios.shape == (len(words) * len(written), 3, 4)
    assert used.tolist() == [bool(word == token) for token in written for word in words]
    assert used.any()
    spec = va.CaptureSpec(rows="answer", columns="all", dtype="float32")
    trace = llava.ask(picture(), "What is on the stove here?", answer="stove is on", capture=spec).trace
    row = trace.rows_of(trace.answer_tokens[1:2], "predicting")[0]
    seen: Any = trace.attn_lhqk[2, 3, row].astype(float)
    at = np.flatnonzero(layout.kinds == TokenKind.QUESTION)
    shares = seen[at] / seen[at].sum()
    wanted = [shares[asked == word].mean() for word in words]
    np.testing.assert_allclose(ratios[len(words) : 2 * len(words), 2, 3], wanted, rtol=1e-5)
    method = calibrate_dagcd([run], heads=3)
    assert len(method.heads) == 3
    assert method.describe() == "DAGCD: 3 heads, alpha=2.0, top_rank=10"
    unused = llava.ask(picture(), "Who?", answer="red cup")
    with pytest.raises(SpecError, match="words that were not"):
        calibrate_dagcd([unused])
    with pytest.raises(SpecError, match="of one model"):
        calibrate_dagcd([])
