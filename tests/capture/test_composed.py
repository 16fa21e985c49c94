"""Pictures seen through a resampler: rows on patches are the eager rows on queries times those of the queries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import vlmattn as va
from tests.capture.asked import QUESTIONS, Halved, loaded, picture
from tests.tiny import TINY
from vlmattn.capture import CaptureSpec, Session, model_sites
from vlmattn.core.errors import CaptureError, LayoutError, SpecError

FULL = CaptureSpec(rows=("prompt", "answer"), dtype="float32", columns="all")
KEPT = replace(FULL, columns="image")
KINDS = ("blip-2", "instructblip", "idefics2 split", "kosmos-2", "kosmos-2.5")
QUERIES = {"blip-2": 6, "instructblip": 6, "idefics2": 25, "kosmos-2": 5, "kosmos-2.5": 5}
READS = ("crossattention.attention", "perceiver_resampler", "x_attn")


@pytest.fixture(params=KINDS)
def vlm(request: pytest.FixtureRequest) -> va.Vlm:
    return loaded(request.param)


def _reads(name: str) -> bool:
    return any(part in name for part in READS)


@torch.no_grad()
def eager(vlm: va.Vlm, inputs: dict[str, Any]) -> tuple[Any, torch.Tensor]:
    """Rows of the language model, per layer (B, H, N, N), and of the queries, (layers, views, heads, queries, keys)."""
    names = ("text_config", "qformer_config", "perceiver_config")
    configs = [getattr(vlm.model.config, name) for name in names if hasattr(vlm.model.config, name)]
    before = [config._attn_implementation for config in configs]
    hops: list[torch.Tensor] = []
    crossing = [m for n, m in vlm.model.named_modules() if "Attention" in type(m).__name__ and _reads(n)]
    handles = [m.register_forward_hook(lambda _m, _a, out: hops.append(out[1])) for m in crossing]
    for config in configs:
        config._attn_implementation = "eager"
    try:
        out = vlm.model(**inputs, output_attentions=True, use_cache=False)
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation = name
        for handle in handles:
            handle.remove()
    return getattr(out, "language_model_outputs", out).attentions, torch.stack(hops)


@torch.no_grad()
def test_rows_are_those_of_two_eager_hops(vlm: va.Vlm) -> None:
    encoded = vlm.adapter.encode([[picture(0)], [picture(1, 60)]], QUESTIONS)
    assert max(encoded.pad_left) > 0
    plain = vlm.model(**encoded.inputs).logits
    with Session(vlm.model, encoded.layouts, FULL, pad_left=encoded.pad_left) as session:
        assert torch.equal(plain, vlm.model(**encoded.inputs).logits)
    attentions, hops = eager(vlm, encoded.inputs)
    hop = hops.mean((0, 2))
    assert float((hop[:, 0] - hop[:, 1]).abs().max()) > 0.05  # queries differ, so a wrong one would be noticed
    for item, kept in enumerate(session.finish()):
        layout, pad = encoded.layouts[item], encoded.pad_left[item]
        rows = kept.positions - layout.memory + pad
        queries = layout.latent_positions - layout.memory + pad
        assert len(queries) == QUERIES[vlm.family]
        views = layout.images[0].views
        mine = hop[item * views : (item + 1) * views]
        assert kept.blind == ()
        for slot, full in enumerate(attentions):
            want = full[item][:, rows]
            got = kept.attn_lhqk[slot]
            assert torch.allclose(got[..., layout.memory :], want[..., pad:], atol=1e-6)
            by_view = zip(want[..., queries].split(len(queries) // views, dim=-1), mine, strict=True)
            assert torch.allclose(got[..., : layout.memory], torch.cat([a @ b for a, b in by_view], -1), atol=1e-6)
            mass = kept.mass_lhqs[slot][..., kept.segments.index("image:0")]
            assert torch.allclose(mass, want[..., queries].sum(-1), atol=1e-6)


@torch.no_grad()
def test_patches_are_kept_and_heads_may_be_averaged(vlm: va.Vlm) -> None:
    encoded = vlm.adapter.encode([[picture()]], QUESTIONS[:1])
    found = []
    for spec in (FULL, KEPT, replace(KEPT, reduce="mean")):
        with Session(vlm.model, encoded.layouts, spec) as session:
            vlm.model(**encoded.inputs)
        found.append(session.finish()[0])
    full, some, mean = found
    cells = encoded.layouts[0].image_positions
    assert np.array_equal(some.columns, cells)
    assert len(cells) == encoded.layouts[0].images[0].cells
    assert torch.allclose(some.attn_lhqk, full.attn_lhqk[..., torch.as_tensor(cells)], atol=1e-7)
    assert torch.allclose(mean.attn_lhqk[:, 0], some.attn_lhqk.mean(1), atol=1e-7)
    assert not some.visible_lqk[:, some.positions < encoded.layouts[0].latent_positions[0]].any()
    assert some.visible_lqk[:, some.positions >= encoded.layouts[0].latent_positions[-1]].all()


def test_generated_rows_equal_those_of_the_given_answer(vlm: va.Vlm) -> None:
    # Where transformers counts positions of written tokens with the padding, a padded batch is no reference.
    other = QUESTIONS[0] if "kosmos" in vlm.family else QUESTIONS[1]
    items = [(picture(0), QUESTIONS[0]), (picture(1), other)]
    for options in ({}, {"num_beams": 2}):
        written = vlm.ask_many(items, max_new_tokens=4, capture=KEPT, **options)
        ids = [run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist() for run in written]
        given = vlm.ask_many(items, answers=ids, capture=KEPT)
        for one, other in zip(written, given, strict=True):
            assert np.allclose(one.trace.attn_lhqk, other.trace.attn_lhqk, atol=1e-5)
            assert len(one.trace.scores.entropy_t) == len(one.trace.answer_tokens)
            if not options:
                assert np.allclose(one.trace.scores.entropy_t, other.trace.scores.entropy_t, atol=1e-4)
                assert np.allclose(one.trace.scores.chosen_logp_t, other.trace.scores.chosen_logp_t, atol=1e-4)


def test_maps_say_that_they_are_composed(vlm: va.Vlm) -> None:
    run = vlm.ask(picture(), QUESTIONS[0], answer="no", capture=KEPT)
    look = run.map("spoon")
    told = [step for step in look.patch_map.provenance.steps if step.startswith("composed of two hops")]
    count = QUERIES[vlm.family] // run.trace.layout.images[0].views
    assert told == [
        f"composed of two hops: attention to {count} queries per view, times the queries' own attention to its patches "
        f"(mean over {1 if 'kosmos' in vlm.family else 2} layers and all heads of the resampler)"
    ]
    rows = run.trace.rows_of(run.trace.find("spoon").tokens)
    by_hand = run.trace.attn_lhqk[:, :, rows].mean((0, 1, 2))
    assert np.allclose(np.concatenate([v.ravel() for v in look.patch_map.values]), by_hand, atol=1e-6)
    share = run.trace.mass("image:0")[:, :, rows].mean()
    assert look.patch_map.total < share  # what the class token holds has no place
    with pytest.raises(SpecError, match="value norms belong to the resampler's queries"):
        run.map("spoon", method="value")


def test_what_two_hops_cannot_give_is_refused(vlm: va.Vlm) -> None:
    encoded = vlm.adapter.encode([[picture()]], QUESTIONS[:1])
    with pytest.raises(SpecError, match="reduce='max' takes the largest head before the second hop"):
        Session(vlm.model, encoded.layouts, replace(KEPT, reduce="max"))
    lone = replace(encoded.layouts[0], images=(replace(encoded.layouts[0].images[0], views=7),))
    with pytest.raises(CaptureError, match="keys are not spread over 7 views evenly"):
        Session(vlm.model, [lone], KEPT)
    with torch.no_grad(), Session(vlm.model, encoded.layouts, KEPT) as session:
        words = vlm.model.get_input_embeddings()(encoded.inputs["input_ids"])
        stack = model_sites(vlm.model).decoder
        stack(inputs_embeds=words, attention_mask=encoded.inputs["attention_mask"])
    with pytest.raises(CaptureError, match="the resampler did not run inside the capture"):
        session.finish()


def test_a_picture_after_words_is_refused() -> None:
    vlm = va.load(*TINY["blip-2"]())
    with pytest.raises(LayoutError, match="sees its picture before the prompt"):
        vlm.adapter.encode([[picture()]], ["What is <image> this?"], raw=True)


def test_steering_of_image_columns_reaches_the_queries(vlm: va.Vlm) -> None:
    spec = replace(KEPT, rows=("question", "answer"))
    plain = vlm.ask(picture(), QUESTIONS[0], answer="no", capture=spec).trace
    steered = vlm.ask(picture(), QUESTIONS[0], answer="no", capture=spec, steering=[Halved(0)]).trace
    assert np.allclose(steered.attn_lhqk[0], plain.attn_lhqk[0] * 0.5, atol=1e-6)
    assert not np.allclose(steered.attn_lhqk[1], plain.attn_lhqk[1], atol=1e-5)


@torch.no_grad()
def test_queries_are_read_in_parts_that_fit(vlm: va.Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = vlm.adapter.encode([[picture()]], QUESTIONS[:1])
    kept = []
    for size in (1000, 2):
        monkeypatch.setattr("vlmattn.capture.compose.rows_per_chunk", lambda _call, size=size: size)
        with Session(vlm.model, encoded.layouts, KEPT) as session:
            vlm.model(**encoded.inputs)
        kept.append(session.finish()[0].attn_lhqk)
    assert torch.allclose(kept[0], kept[1], atol=1e-7)
