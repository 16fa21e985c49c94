"""An encoder reads a resampler's queries: rows of the decoder on them are composed with what the queries looked at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import vlmattn as va
from tests.capture.asked import QUESTIONS, loaded, picture
from tests.tiny import TINY, encoder_reads_queries
from vlmattn.adapters import Encoded
from vlmattn.api.follow import with_answers
from vlmattn.capture import CaptureSpec, Session, model_sites
from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.layout import TokenKind

FULL = CaptureSpec(rows=("question", "answer"), dtype="float32", columns="all")
KEPT = replace(FULL, columns="image")
QUERIES, KEYS, CELLS = 6, 17, 16
KINDS = sorted(encoder_reads_queries.MODELS)


@pytest.fixture(params=KINDS)
def vlm(request: pytest.FixtureRequest) -> va.Vlm:
    return loaded(request.param)


def ended(vlm: va.Vlm) -> dict[str, Any]:
    """Generation that does not end before its last token."""
    return {"suppress_tokens": [vlm.model.config.text_config.eos_token_id]}


@torch.no_grad()
def eager(vlm: va.Vlm, inputs: dict[str, Any]) -> tuple[Any, torch.Tensor]:
    """Cross attention of the decoder by layer, and (views, queries, keys) of the Q-Former, mean over layers, heads."""
    text = [vlm.model.language_model.encoder.config, vlm.model.language_model.decoder.config]
    configs: list[Any] = [*text, vlm.model.qformer.config, vlm.model.config.qformer_config]
    before = [config._attn_implementation for config in configs]
    taken: list[torch.Tensor] = []
    crossing = [m for n, m in vlm.model.qformer.named_modules() if n.endswith("crossattention.attention")]
    handles = [m.register_forward_hook(lambda _m, _a, out: taken.append(out[1])) for m in crossing]
    try:
        for config in configs:
            config._attn_implementation = "eager"
        out = vlm.model(**inputs, output_attentions=True, use_cache=False)
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation = name
        for handle in handles:
            handle.remove()
    assert len(taken) == 2
    return out.language_model_outputs.cross_attentions, torch.stack(taken).mean((0, 2))


def batch(vlm: va.Vlm) -> Encoded:
    encoded = vlm.adapter.encode([[picture(0)], [picture(1)]], QUESTIONS)
    return with_answers(vlm.adapter, encoded, ["left of it stands a cup", "no"])[0]


@torch.no_grad()
def test_rows_of_a_ragged_batch_equal_eager_attention_times_that_of_the_queries(vlm: va.Vlm) -> None:
    encoded = batch(vlm)
    plain = vlm.model(**encoded.inputs).logits
    with Session(vlm.model, encoded.layouts, FULL) as session:
        assert torch.equal(plain, vlm.model(**encoded.inputs).logits)
    reference, hop = eager(vlm, encoded.inputs)
    assert hop.shape == (2, QUERIES, KEYS)
    for item, kept in enumerate(session.finish()):
        layout = encoded.layouts[item]
        read = layout.memory - KEYS
        rows = kept.positions - layout.memory
        assert len(rows) == len(layout) - layout.answer_start
        assert kept.blind == ()
        assert kept.composed.startswith("composed of two hops: attention to 6 queries per view")
        for slot, full in enumerate(reference):
            want, got = full[item][:, rows], kept.attn_lhqk[slot]
            assert torch.allclose(got[..., KEYS : layout.memory], want[..., :read], atol=1e-6)
            assert torch.allclose(got[..., :KEYS], want[..., :QUERIES] @ hop[item], atol=1e-6)
            assert not got[..., layout.memory :].any()
            assert want.max() > 2 / read
        assert torch.allclose(kept.mass_lhqs.sum(-1), torch.ones(()), atol=1e-5)
        share = torch.stack([full[item][:, rows][..., :QUERIES].sum(-1) for full in reference])
        picture_share = kept.mass_lhqs[..., kept.segments.index("image:0")]
        assert torch.allclose(picture_share, share, atol=1e-5)


def test_what_the_encoder_reads_is_told_apart(vlm: va.Vlm) -> None:
    first, second = (layout for layout in vlm.adapter.encode([[picture()], [picture()]], QUESTIONS).layouts)
    for layout, question in zip((first, second), QUESTIONS, strict=True):
        assert (layout.resampled, layout.answer_start) == (KEYS, layout.memory + 1)
        assert layout.latent_positions.tolist() == list(range(KEYS, KEYS + QUERIES))
        words = [layout.text[a:b] for a, b in layout.char_span[layout.kinds == TokenKind.QUESTION]]
        assert "".join(words) == question
        assert len(layout.image_positions) == CELLS
    assert first.memory > second.memory


def test_generated_rows_equal_those_of_the_given_answer(vlm: va.Vlm) -> None:
    items = [(picture(0), QUESTIONS[0]), (picture(1), QUESTIONS[1])]
    for options in ({}, {"num_beams": 2}):
        written = vlm.ask_many(items, max_new_tokens=5, capture=KEPT, **options, **ended(vlm))
        ids = [run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist() for run in written]
        assert [len(one) for one in ids] == [5, 5]
        given = vlm.ask_many(items, answers=ids, capture=KEPT)
        for one, other in zip(written, given, strict=True):
            assert one.trace.attn_lhqk.shape[2:] == (5, CELLS)
            assert np.allclose(one.trace.attn_lhqk, other.trace.attn_lhqk, atol=1e-5)


def test_maps_are_of_answer_words_and_say_that_they_are_composed(vlm: va.Vlm) -> None:
    run = vlm.ask(picture(), QUESTIONS[0], answer="a red cup", capture=FULL)
    look = run.map("cup").patch_map
    rows = run.trace.rows_of(run.trace.find("cup").tokens)
    by_hand = run.trace.attn_lhqk[:, :, rows][..., run.trace.image_columns()].mean((0, 1, 2))
    assert np.allclose(np.concatenate([v.ravel() for v in look.values]), by_hand, atol=1e-6)
    assert any(step.startswith("composed of two hops") for step in look.provenance.steps)
    assert run.map("cup", method="relative").patch_map.total > 0
    with pytest.raises(MapError, match="the question is read by the model's encoder"):
        run.map("spoon")
    with pytest.raises(SpecError, match="value norms belong to the resampler's queries"):
        run.map("cup", method="value")


def test_the_text_encoder_is_no_vision_tower(vlm: va.Vlm) -> None:
    sites = model_sites(vlm.model)
    assert [site.kind for site in sites.attention] == ["cross"] * 3
    assert not [site.name for site in sites.vision if "language_model" in site.name]


def test_the_language_model_decides_which_family_serves(vlm: va.Vlm) -> None:
    assert vlm.family.endswith("-t5")
    assert va.load(*TINY[vlm.family.removesuffix("-t5")]()).family == vlm.family.removesuffix("-t5")
