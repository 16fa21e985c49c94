"""Every family keeps the contract, and its rows are those of eager attention."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from tests.tiny import TINY
from vlmattn.adapters import check_adapter
from vlmattn.api.vlm import Vlm

COUNTS_PADDING = ("kosmos-2", "kosmos-2.5")
"""Where transformers counts positions of written tokens with the padding, so that a padded batch writes otherwise."""


@pytest.mark.parametrize("kind", sorted(TINY))
def test_every_family_keeps_the_contract(kind: str) -> None:
    model, processor = TINY[kind]()
    report = check_adapter(model, processor, raises=False)
    assert report.ok, str(report)
    assert report.checks[-1].cases >= 15
    verified = Vlm(model, processor, name=kind).verify()
    assert verified.row_error is not None, "eager attention was not run"


@pytest.mark.parametrize("kind", sorted(TINY))
def test_a_given_answer_is_looked_at_as_it_was_written(kind: str) -> None:
    vlm = Vlm(*TINY[kind](), name=kind)
    first = "Is it red, or is it all blue??" if kind in COUNTS_PADDING else "Is it red?"
    items = [(data.coffee()[:120, :200], first), (data.coffee()[100:300, :90], "What is left of the red spoon?")]
    written = vlm.ask_many(items, max_new_tokens=3)
    ids = [run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist() for run in written]
    given = vlm.ask_many(items, answers=ids)
    for one, other in zip(written, given, strict=True):
        assert np.allclose(one.trace.attn_lhqk, other.trace.attn_lhqk, atol=2e-3)  # kept in half precision
