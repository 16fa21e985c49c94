"""Kept rows equal eager attention, for every kind of decoder, mask, cache and row choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.capture.decoders import CONFIGS, EAGER_ONLY, decoder, eager_twin, layouts_of, padded_batch
from vlmattn.capture import CaptureSpec, KeptRows, Session, rows
from vlmattn.core.layout import extend_layout

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*falling back to its reference.*"),
    pytest.mark.filterwarnings("ignore:The explicitly set RoPE scaling factor.*"),
]
NEW = 7
EVERYTHING = {"columns": "all", "dtype": "float32"}
WINDOWED = ("mistral_window", "gemma2_softcap", "gemma3_window", "gpt_oss_sinks", "cohere2_window", "llama4_chunked")


def by_layer(attentions: Any, kept: KeptRows, depth: int) -> list[torch.Tensor]:
    present = [a for a in attentions if a is not None]
    return present if len(present) == len(kept.layers) else [attentions[i] for i in kept.layers]


@torch.no_grad()
def prefill_error(model: Any, eager: Any, spec: CaptureSpec, shift: int = 0) -> float:
    inputs, pads = padded_batch()
    plain = model(**inputs).logits
    with Session(model, layouts_of(inputs, pads), spec, pad_left=pads) as session:
        seen = model(**inputs).logits
    assert torch.equal(plain, seen)
    reference = eager(**inputs, output_attentions=True).attentions
    worst = 0.0
    for item, kept in enumerate(session.finish()):
        for slot, full in enumerate(by_layer(reference, kept, model.config.num_hidden_layers)):
            want = full[item, :, pads[item] :, pads[item] :][:, kept.positions][..., kept.columns]
            got = kept.attn_lhqk[slot].roll(shift, dims=1)
            worst = max(worst, float((want.float() - got.float()).abs().max()))
    return worst


@pytest.mark.parametrize("name", CONFIGS)
def test_prompt_rows_equal_eager(name: str) -> None:
    model = decoder(name)
    assert prefill_error(model, eager_twin(model), CaptureSpec(rows="prompt", **EVERYTHING)) < 1e-6


def test_the_check_notices_a_shifted_row() -> None:
    model = decoder("llama_gqa")
    assert prefill_error(model, eager_twin(model), CaptureSpec(rows="prompt", **EVERYTHING), shift=1) > 0.05


@torch.no_grad()
def generation_error(name: str, **settings: Any) -> tuple[float, tuple[KeptRows, ...]]:
    model = decoder(name)
    inputs, pads = padded_batch()
    common = {"max_new_tokens": NEW, "do_sample": False, "return_dict_in_generate": True} | settings
    plain = model.generate(**inputs, **common, output_logits=True)
    spec = CaptureSpec(rows="answer", **EVERYTHING)
    with Session(model, layouts_of(inputs, pads), spec, pad_left=pads, max_new_tokens=NEW) as session:
        seen = model.generate(**inputs, **common, output_logits=True)
    assert torch.equal(plain.sequences, seen.sequences)
    assert all(torch.equal(a, b) for a, b in zip(plain.logits, seen.logits, strict=True))
    kept = session.finish(sequences=seen.sequences)
    # The reference runs once over the finished sequence, without any cache, so cache bookkeeping can't hide an error.
    ids = seen.sequences[:, :-1]
    mask = torch.cat([inputs["attention_mask"], torch.ones(len(pads), NEW - 1, dtype=torch.long)], dim=1)
    reference = eager_twin(model)(input_ids=ids, attention_mask=mask, output_attentions=True).attentions
    worst = 0.0
    for item, one in enumerate(kept):
        assert len(one.positions) == NEW
        for slot, full in enumerate(by_layer(reference, one, model.config.num_hidden_layers)):
            want = full[item, :, pads[item] :, pads[item] :][:, one.positions][..., one.columns]
            worst = max(worst, float((want - one.attn_lhqk[slot]).abs().max()))
    return worst, kept


@pytest.mark.parametrize("name", CONFIGS)
def test_answer_rows_equal_eager(name: str) -> None:
    worst, kept = generation_error(name)
    assert worst < 2e-6
    totals = kept[0].mass_lhqs.sum(-1)
    if name.endswith("sinks"):
        assert (totals < 1).all()
        assert (totals > 0.5).all()
    else:
        assert torch.allclose(totals, torch.ones_like(totals), atol=1e-5)


@pytest.mark.parametrize("name", [n for n in CONFIGS if "hybrid" not in n and "llama4" not in n])
def test_answer_rows_equal_eager_with_a_static_cache(name: str) -> None:
    assert generation_error(name, cache_implementation="static")[0] < 2e-6


def test_answer_rows_equal_eager_with_chunked_prefill() -> None:
    assert generation_error("llama_gqa", prefill_chunk_size=9)[0] < 2e-6


@pytest.mark.parametrize("name", WINDOWED)
def test_out_of_window_is_told_from_low_weight(name: str) -> None:
    _, kept = generation_error(name)
    for one in kept:
        assert one.visible_lqk is not None
        hidden = ~one.visible_lqk
        assert hidden.any()
        assert not hidden.all()
        weights = one.attn_lhqk.amax(dim=1)
        assert float(weights[hidden].abs().max()) == 0.0
        assert float(weights[one.visible_lqk].min()) > 0.0


def test_every_column_of_a_full_layer_is_visible() -> None:
    _, kept = generation_error("llama_gqa")
    assert kept[0].visible_lqk is None


@torch.no_grad()
def capture(name: str, spec: CaptureSpec, lengths: tuple[int, ...] = (23, 17)) -> tuple[KeptRows, ...]:
    model = decoder(name)
    inputs, pads = padded_batch(lengths)
    with Session(model, layouts_of(inputs, pads), spec, pad_left=pads) as session:
        model(**inputs)
    return session.finish()


FULL = CaptureSpec(rows="prompt", **EVERYTHING)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("last", {23: [22], 17: [16]}),
        ("question", {23: [1, *range(10, 23)], 17: [1, *range(10, 17)]}),
        ("after_image", {23: list(range(10, 23)), 17: list(range(10, 17))}),
        ("prompt", {23: list(range(23)), 17: list(range(17))}),
        ((3, -2), {23: [3, 21], 17: [3, 15]}),
        (("last", 0, "last"), {23: [0, 22], 17: [0, 16]}),
    ],
)
def test_row_rules_in_a_ragged_batch(rule: Any, expected: dict[int, list[int]]) -> None:
    everything = capture("llama_gqa", FULL)
    for full, kept in zip(everything, capture("llama_gqa", CaptureSpec(rows=rule, **EVERYTHING)), strict=True):
        want = expected[kept.layout.answer_start]
        assert kept.positions.tolist() == want
        assert torch.allclose(kept.attn_lhqk, full.attn_lhqk[:, :, want], atol=1e-6)
        assert torch.allclose(kept.mass_lhqs, full.mass_lhqs[:, :, want], atol=1e-6)


def test_predicting_rows_of_prompt_words_lie_one_earlier() -> None:
    predicting = capture("llama_gqa", CaptureSpec(rows="after_image", convention="predicting", **EVERYTHING))[0]
    query = capture("llama_gqa", CaptureSpec(rows="after_image", convention="query", **EVERYTHING))[0]
    assert (predicting.positions + 1 == query.positions).all()
    assert not torch.allclose(predicting.attn_lhqk, query.attn_lhqk, atol=1e-2)


@pytest.mark.parametrize("choice", [[1, 3], {0: [0, 2], 2: [3]}])
def test_layers_and_heads_can_be_chosen(choice: Any) -> None:
    full = capture("llama_gqa", FULL)[0]
    layers = None if isinstance(choice, dict) else [0, -1]
    kept = capture("llama_gqa", CaptureSpec(rows="prompt", layers=layers, heads=choice, **EVERYTHING))[0]
    assert kept.layers == ((0, 2) if isinstance(choice, dict) else (0, 3))
    for slot, layer in enumerate(kept.layers):
        for line, head in enumerate(kept.heads[slot]):
            assert torch.allclose(kept.attn_lhqk[slot, line], full.attn_lhqk[layer, int(head)], atol=1e-6)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_heads_are_reduced_inside_the_layer(how: str) -> None:
    full = capture("llama_gqa", FULL)[0]
    kept = capture("llama_gqa", CaptureSpec(rows="prompt", reduce=how, **EVERYTHING))[0]
    want = full.attn_lhqk.mean(1) if how == "mean" else full.attn_lhqk.amax(1)
    assert kept.attn_lhqk.shape[1] == 1
    assert torch.allclose(kept.attn_lhqk[:, 0], want, atol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 5e-4), ("bfloat16", 4e-3)])
@pytest.mark.parametrize("offload", [False, True])
def test_storage_types_round_and_no_more(dtype: str, tolerance: float, offload: bool) -> None:
    full = capture("llama_gqa", FULL)[0]
    kept = capture("llama_gqa", CaptureSpec(rows="prompt", columns="all", dtype=dtype, offload=offload))[0]  # type: ignore[arg-type]
    assert kept.attn_lhqk.dtype == getattr(torch, dtype)
    assert float((kept.attn_lhqk.float() - full.attn_lhqk).abs().max()) < tolerance
    assert torch.equal(kept.mass_lhqs, full.mass_lhqs)


def test_image_columns_and_segment_masses_agree_with_full_rows() -> None:
    full = capture("llama_gqa", FULL)[0]
    kept = capture("llama_gqa", CaptureSpec(rows="prompt", dtype="float32"))[0]
    assert kept.columns.tolist() == list(range(2, 10))
    assert torch.allclose(kept.attn_lhqk, full.attn_lhqk[..., 2:10], atol=1e-6)
    for index, name in enumerate(kept.segments):
        ids = kept.layout.segment_ids() == kept.layout.segments().index(name)
        want = full.attn_lhqk[..., torch.as_tensor(ids)].sum(-1)
        assert torch.allclose(kept.mass_lhqs[..., index], want, atol=1e-5), name


@torch.no_grad()
def test_a_given_answer_has_the_rows_it_had_while_it_was_written() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((23,))
    layouts = layouts_of(inputs, pads)
    spec = CaptureSpec(rows=("question", "answer"), dtype="float32")
    with Session(model, layouts, spec, max_new_tokens=NEW) as session:
        output = model.generate(**inputs, max_new_tokens=NEW, do_sample=False)
    written = session.finish(sequences=output)[0]
    ids = output[0, 23:].numpy()
    longer = extend_layout(layouts[0], ids, "", np.full((NEW, 2), -1, dtype=np.int32))
    with Session(model, [longer], spec) as session:
        model(input_ids=output)
    given = session.finish()[0]
    assert given.positions.tolist() == written.positions.tolist()
    assert torch.allclose(given.attn_lhqk, written.attn_lhqk, atol=2e-6)
    assert torch.allclose(given.mass_lhqs, written.mass_lhqs, atol=2e-6)
    assert given.candidates is not None
    assert written.candidates is not None
    assert np.allclose(given.candidates.chosen_logp_t, written.candidates.chosen_logp_t, atol=1e-4)


@torch.no_grad()
def test_bfloat16_rows_are_within_its_rounding() -> None:
    model = decoder("llama_gqa", attention="eager").to(torch.bfloat16)
    inputs, pads = padded_batch()
    with Session(model, layouts_of(inputs, pads), FULL, pad_left=pads) as session:
        reference = model(**inputs, output_attentions=True).attentions
    for item, kept in enumerate(session.finish()):
        for slot, full in enumerate(reference):
            want = full[item, :, pads[item] :, pads[item] :].float()
            assert float((want - kept.attn_lhqk[slot]).abs().max()) < 2**-8


@pytest.mark.parametrize("name", sorted(set(CONFIGS) - EAGER_ONLY))
def test_scores_do_not_depend_on_the_kernel(name: str) -> None:
    fast = prefill_rows(decoder(name))
    plain = prefill_rows(decoder(name, attention="eager"))
    assert float((fast - plain).abs().max()) < 2e-6


@torch.no_grad()
def prefill_rows(model: Any) -> torch.Tensor:
    inputs, pads = padded_batch((19,))
    with Session(model, layouts_of(inputs, pads), FULL) as session:
        model(**inputs)
    return session.finish()[0].attn_lhqk


def test_ignoring_the_window_offset_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "_first_columns", lambda self, cache, count: {})
    assert generation_error("gemma3_window")[0] > 0.01


def test_rows_of_a_call_are_computed_in_parts_without_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = capture("gemma3_window", FULL)
    monkeypatch.setattr("vlmattn.capture.session.rows_per_chunk", lambda call: 5)
    parts = capture("gemma3_window", FULL)
    for a, b in zip(whole, parts, strict=True):
        assert torch.allclose(a.attn_lhqk, b.attn_lhqk, atol=1e-6)
        assert torch.equal(a.visible_lqk, b.visible_lqk)  # type: ignore[arg-type]


def test_take_rows_of_a_ragged_batch() -> None:
    values = torch.arange(2 * 3 * 5 * 4.0).view(2, 3, 5, 4)
    index = torch.tensor([[0, 4], [2, 2]])
    taken = rows.take_rows(values, index)
    assert torch.equal(taken[0, :, 1], values[0, :, 4])
    assert torch.equal(taken[1, :, 0], values[1, :, 2])
