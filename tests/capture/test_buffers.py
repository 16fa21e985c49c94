"""What buffers hold where nothing was written, and layers that keep different numbers of heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.capture.decoders import decoder, layouts_of, padded_batch
from vlmattn.capture import CaptureSpec, KeptRows, Session

LONG = 80


class DirtyMemory:
    """torch, where memory that nobody has written holds what someone left there."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def empty(*shape: Any, **options: Any) -> torch.Tensor:
        made = torch.empty(*shape, **options)
        return made.zero_() if made.dtype == torch.bool else made.fill_(7)


@torch.no_grad()
def kept_of_a_long_answer(name: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Session, KeptRows]:
    monkeypatch.setattr("vlmattn.capture.kept.torch", DirtyMemory())
    model = decoder(name)
    inputs, pads = padded_batch((12,))
    spec = CaptureSpec(rows="answer", dtype="float32", top_k=0, **options)
    with Session(model, layouts_of(inputs, pads), spec) as session:
        model.generate(**inputs, max_new_tokens=LONG, do_sample=False)
    kept = session.finish()[0]
    assert len(kept.positions) == LONG
    return session, kept


@pytest.mark.parametrize("name", ["gemma3_window", "mistral_window"])
def test_grown_buffers_of_a_windowed_model_say_what_is_visible(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session, kept = kept_of_a_long_answer(name, monkeypatch)
    assert kept.visible_lqk is not None
    columns, positions = torch.as_tensor(kept.columns), torch.as_tensor(kept.positions)
    inside = columns[None] > positions[:, None] - 9
    for slot, site in enumerate(session.sites.attention):
        assert torch.equal(kept.visible_lqk[slot], inside if site.windowed else torch.ones_like(inside)), slot


def test_lines_without_a_head_are_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    _, kept = kept_of_a_long_answer("llama_gqa", monkeypatch, heads={0: [2], 1: [0, 1, 3]})
    _, full = kept_of_a_long_answer("llama_gqa", monkeypatch)
    assert kept.heads == ((2,), (0, 1, 3))
    for got, want in ((kept.attn_lhqk, full.attn_lhqk), (kept.mass_lhqs, full.mass_lhqs)):
        assert torch.equal(got[0, 0], want[0, 2])
        assert torch.equal(got[1], want[1, [0, 1, 3]])
        assert got[0, 1:].isnan().all()


@torch.no_grad()
@pytest.mark.parametrize("how", ["mean", "max"])
@pytest.mark.parametrize("heads", [[0, -1], {0: [1], 1: [0, 2], 2: [0, 1, 2, 3], 3: [3, 1]}])
def test_chosen_heads_are_reduced_together(how: Any, heads: Any) -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((23, 17))
    full, reduced = (
        CaptureSpec(rows="prompt", dtype="float32", **options)
        for options in ({}, {"heads": heads, "reduce": how})  # type: ignore[arg-type]
    )
    sessions = [Session(model, layouts_of(inputs, pads), spec, pad_left=pads) for spec in (full, reduced)]
    with sessions[0], sessions[1]:
        model(**inputs)
    for every, some in zip(sessions[0].finish(), sessions[1].finish(), strict=True):
        assert some.heads == ((how,),) * 4
        for layer in range(4):
            chosen = every.attn_lhqk[layer, heads[layer] if isinstance(heads, dict) else heads]
            want = chosen.mean(0) if how == "mean" else chosen.amax(0)
            assert np.allclose(some.attn_lhqk[layer, 0], want, atol=1e-6)
