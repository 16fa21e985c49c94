"""What a row can see at all: causality, windows and masks, told apart from low weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.capture.decoders import decoder, eager_twin, layouts_of, padded_batch
from vlmattn.capture import CaptureSpec, KeptRows, Session
from vlmattn.core.provenance import Provenance
from vlmattn.trace import Trace, trace_from_kept

WINDOW = 9


@torch.no_grad()
def prompt_rows(name: str, lengths: tuple[int, ...] = (23, 17), **changes: Any) -> tuple[Session, tuple[KeptRows, ...]]:
    model = decoder(name)
    inputs, pads = padded_batch(lengths)
    with Session(model, layouts_of(inputs, pads), CaptureSpec(rows="prompt"), pad_left=pads) as session:
        model(**inputs | changes)
    return session, session.finish()


def traced(kept: KeptRows) -> Trace:
    return trace_from_kept(kept, kept.layout, Provenance())


@pytest.mark.parametrize("name", ["llama_gqa", "mistral_window", "gemma3_window", "gpt_oss_sinks"])
def test_later_columns_and_columns_out_of_window_are_told_apart(name: str) -> None:
    session, kept = prompt_rows(name)
    for one in kept:
        trace = traced(one)
        row, column = one.positions[:, None], one.columns[None, :]
        for slot, site in enumerate(session.sites.attention):
            passed = (column <= row - WINDOW) if site.windowed else np.zeros_like(column > row)
            assert trace.visible_lqk is not None
            assert np.array_equal(trace.visible_lqk[slot], (column <= row) & ~passed)
            assert np.array_equal(trace.out_of_window_lqk[slot], passed)


def test_rows_before_the_picture_see_none_of_it() -> None:
    _, kept = prompt_rows("llama_gqa", (15,))
    assert kept[0].visible_lqk is not None
    assert kept[0].visible_lqk.any(-1)[0].tolist() == [False] * 2 + [True] * 13


def test_nothing_is_said_where_every_row_sees_every_column() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((15,))
    with Session(model, layouts_of(inputs, pads), CaptureSpec(rows="after_image")) as session, torch.no_grad():
        model(**inputs)
    assert session.finish()[0].visible_lqk is None
    assert not traced(session.finish()[0]).out_of_window_lqk.any()


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"cache_implementation": "static"}])
def test_columns_hidden_by_a_mask_of_the_users_are_not_visible(settings: dict[str, Any]) -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((15,))
    inputs["attention_mask"][0, 4:6] = 0
    spec = CaptureSpec(rows="answer", dtype="float32")
    with Session(model, layouts_of(inputs, pads), spec, max_new_tokens=4) as session:
        output = model.generate(**inputs, max_new_tokens=4, do_sample=False, **settings)
    kept = session.finish(sequences=output)[0]
    assert kept.visible_lqk is not None
    assert kept.visible_lqk.all(dim=(0, 1)).tolist() == [column not in (4, 5) for column in range(2, 10)]
    mask = torch.cat([inputs["attention_mask"], torch.ones(1, 4, dtype=torch.long)], dim=1)
    places = (mask.cumsum(-1) - 1).clamp_min(0)
    reference = eager_twin(model)(input_ids=output, attention_mask=mask, position_ids=places, output_attentions=True)
    full = reference.attentions
    want = torch.stack([a[0] for a in full])[:, :, kept.positions][..., kept.columns]
    assert torch.allclose(kept.attn_lhqk, want, atol=2e-6)
