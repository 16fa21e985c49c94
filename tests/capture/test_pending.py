"""Rows of decoding passes that are computed some dozens at a time are those that are computed one by one."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from tests.capture.asked import Halved
from tests.capture.decoders import decoder, eager_twin, layouts_of, padded_batch
from vlmattn.capture import CaptureSpec, Session
from vlmattn.capture.pending import MOST, PendingRows

NEW = 2 * MOST + 9
SPEC = CaptureSpec(rows="answer", dtype="float32", top_k=0)
DECODERS = [
    "llama_gqa",
    "mistral_window",
    "gemma2_softcap",
    "gemma3_window",
    "cohere2_window",
    "gpt_oss_sinks",
    "gemma4_shared",
]


@torch.no_grad()
def written(name: str, prompts: tuple[int, ...], spec: CaptureSpec = SPEC, new: int = NEW, **settings: Any) -> Any:
    model = decoder(name)
    inputs, pads = padded_batch(prompts)
    common = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "logits_to_keep": torch.tensor([-1])}
    with Session(model, layouts_of(inputs, pads), spec, pad_left=pads, max_new_tokens=new) as session:
        output = model.generate(**inputs, **common | settings)
    return model, output, pads, session.finish(sequences=output)


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows were computed at once, each time."""
    counts: list[int] = []
    compute = PendingRows._compute

    def counted(self: PendingRows, held: Any) -> None:
        counts.append(len(held.lengths))
        compute(self, held)

    monkeypatch.setattr(PendingRows, "_compute", counted)
    return counts


@pytest.mark.parametrize("prompts", [(12,), (15, 12)])
@pytest.mark.parametrize("name", DECODERS)
def test_rows_that_waited_are_those_of_eager_attention(name: str, prompts: tuple[int, ...], waited: list[int]) -> None:
    model, output, pads, kept = written(name, prompts)
    assert max(waited) == MOST
    mask = torch.ones_like(output)
    for line, pad in enumerate(pads):
        mask[line, :pad] = 0
    with torch.no_grad():
        full = eager_twin(model)(input_ids=output, attention_mask=mask, output_attentions=True).attentions
    for line, (one, pad) in enumerate(zip(kept, pads, strict=True)):
        rows = torch.stack([a[line][:, pad:, pad:] for a in full])[:, :, one.positions]
        assert len(one.positions) == NEW
        assert torch.allclose(one.attn_lhqk, rows[..., one.columns], atol=1e-5)
        answer = one.mass_lhqs[..., one.segments.index("answer")]
        assert torch.allclose(answer, rows[..., one.layout.answer_start :].sum(-1), atol=1e-5)


@pytest.mark.parametrize(
    "spec",
    [
        CaptureSpec(rows="answer", dtype="float32", top_k=0, reduce="mean"),
        CaptureSpec(rows=("question", "answer"), dtype="float16", heads=[1, 0], columns="all"),
        CaptureSpec(rows="answer", dtype="float32", layers=[1], offload=True, reduce="max"),
        CaptureSpec(rows="answer", dtype="float32", heads={0: [1], 1: [0, 1]}),
    ],
    ids=["mean", "heads", "offload", "heads by layer"],
)
@pytest.mark.parametrize("name", ["llama_gqa", "gemma3_window"])
def test_waiting_changes_nothing_that_is_kept(
    name: str, spec: CaptureSpec, waited: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, late = written(name, (15, 12), spec)
    assert waited
    monkeypatch.setattr(PendingRows, "take", lambda *_: False)
    *_, once = written(name, (15, 12), spec)
    for a, b in zip(late, once, strict=True):
        assert torch.equal(a.attn_lhqk.isnan(), b.attn_lhqk.isnan())
        assert torch.allclose(a.attn_lhqk, b.attn_lhqk, atol=1e-3 if spec.dtype == "float16" else 1e-6, equal_nan=True)
        assert torch.allclose(a.mass_lhqs, b.mass_lhqs, atol=1e-5, equal_nan=True)
        assert (a.visible_lqk is None) == (b.visible_lqk is None)
        if a.visible_lqk is not None and b.visible_lqk is not None:
            assert torch.equal(a.visible_lqk, b.visible_lqk)


class Odd(DynamicLayer):
    """A cache layer of a kind that nothing is known of."""


@torch.no_grad()
@pytest.mark.parametrize("kind", ["static", "odd", "beams"])
def test_what_may_not_wait_does_not(kind: str, waited: list[int]) -> None:
    model, (inputs, pads) = decoder("llama_gqa"), padded_batch((12,))
    odd = DynamicCache()
    odd.layer_class_to_replicate = Odd
    settings = {"static": {"cache_implementation": "static"}, "odd": {"cache": odd}, "beams": {"num_beams": 2}}[kind]
    with Session(model, layouts_of(inputs, pads), SPEC, pad_left=pads, max_new_tokens=8):
        model.generate(**inputs, max_new_tokens=8, do_sample=False, **settings)
    assert kind != "odd" or type(odd.layers[0]) is Odd
    assert not waited


def test_layers_that_are_steered_do_not_wait_and_the_others_do(waited: list[int]) -> None:
    model, (inputs, pads) = decoder("llama_gqa"), padded_batch((12,))
    with torch.no_grad(), Session(model, layouts_of(inputs, pads), SPEC, [Halved(0)], max_new_tokens=40) as session:
        output = model.generate(**inputs, max_new_tokens=40, min_new_tokens=40, do_sample=False)
    (kept,) = session.finish(sequences=output)
    with torch.no_grad(), Session(model, layouts_of(inputs, pads), SPEC, max_new_tokens=40) as session:
        model.generate(**inputs, max_new_tokens=40, min_new_tokens=40, do_sample=False)
    assert waited
    assert torch.isfinite(kept.attn_lhqk).all()
    ratio = kept.attn_lhqk[0].sum() / session.finish()[0].attn_lhqk[0].sum()
    assert 0.3 < float(ratio) < 0.7


@torch.no_grad()
def test_nothing_is_held_when_the_session_is_over() -> None:
    model, (inputs, pads) = decoder("llama_gqa"), padded_batch((12,))
    cache = DynamicCache()
    with Session(model, layouts_of(inputs, pads), SPEC, max_new_tokens=8) as session:
        model.generate(**inputs, max_new_tokens=8, do_sample=False, cache=cache)
    gone = weakref.ref(cache.layers[0].keys), weakref.ref(cache)
    del cache
    gc.collect()
    assert gone[0]() is None
    assert gone[1]() is None
    assert len(session.finish()[0].positions) == 8


@torch.no_grad()
def test_a_run_that_fails_computes_nothing(waited: list[int]) -> None:
    model, (inputs, pads) = decoder("llama_gqa"), padded_batch((12,))

    def stop(*_: Any) -> bool:
        raise RuntimeError("stopped")

    with (
        pytest.raises(RuntimeError, match="stopped"),
        Session(model, layouts_of(inputs, pads), SPEC, max_new_tokens=8),
    ):
        model.generate(**inputs, max_new_tokens=8, do_sample=False, stopping_criteria=[stop])
    assert not waited
