"""Encoder-decoder models: rows of the decoder on what the encoder read equal eager cross attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import vlmattn as va
from tests.capture.asked import QUESTIONS, loaded, picture
from tests.tiny import encoder_decoder
from vlmattn.capture import CaptureSpec, Session, model_sites
from vlmattn.core.errors import CaptureError, MapError, UnsupportedAttention
from vlmattn.core.layout import TokenKind

FULL = CaptureSpec(rows=("question", "answer"), dtype="float32", columns="all")
KINDS = sorted(encoder_decoder.MODELS)


@pytest.fixture(params=KINDS)
def vlm(request: pytest.FixtureRequest) -> va.Vlm:
    return loaded(request.param)


def ended(vlm: va.Vlm) -> dict[str, Any]:
    """Generation that does not end before its last token."""
    ends = np.atleast_1d(vlm.model.generation_config.eos_token_id or [])
    return {"suppress_tokens": ends.tolist()} if len(ends) else {}


@torch.no_grad()
def eager_rows(vlm: va.Vlm, inputs: dict[str, Any]) -> Any:
    config: Any = model_sites(vlm.model).attention[0].module.config
    before = config._attn_implementation
    config._attn_implementation = "eager"
    try:
        out = vlm.model(**inputs, output_attentions=True, use_cache=False)
        return out.cross_attentions, out.decoder_attentions
    finally:
        config._attn_implementation = before


@torch.no_grad()
def test_rows_of_a_ragged_batch_equal_eager_cross_attention(vlm: va.Vlm) -> None:
    answers = ["left of it stands a cup", "no"]
    from vlmattn.api.follow import with_answers

    encoded = vlm.adapter.encode([[picture(0)], [picture(1)]], QUESTIONS)
    longer, _ = with_answers(vlm.adapter, encoded, answers)
    plain = vlm.model(**longer.inputs).logits
    with Session(vlm.model, longer.layouts, FULL) as session:
        assert torch.equal(plain, vlm.model(**longer.inputs).logits)
    reference, own = eager_rows(vlm, longer.inputs)
    for item, kept in enumerate(session.finish()):
        layout = longer.layouts[item]
        rows = kept.positions - layout.memory
        assert len(rows) == len(layout) - layout.answer_start
        assert kept.blind == ()
        sharp = 0.0
        for slot, full in enumerate(reference):
            want = full[item][:, rows][..., : layout.memory]
            got = kept.attn_lhqk[slot]
            assert torch.allclose(got[..., : layout.memory], want, atol=1e-6)
            rest = (
                own[slot][item][:, rows, :1]
                if model_sites(vlm.model).attention[slot].kind == "merged"
                else 0 * got[:, :, :1]
            )
            assert torch.allclose(got[..., layout.memory :], rest, atol=1e-6)
            sharp = max(sharp, float(want.max()))
        assert sharp > 5 / layout.memory
        assert torch.allclose(kept.mass_lhqs.sum(-1), torch.ones(()), atol=1e-5)


def test_generated_rows_equal_those_of_the_given_answer(vlm: va.Vlm) -> None:
    spec = replace(FULL, columns="image")
    items = [(picture(0), QUESTIONS[0]), (picture(1), QUESTIONS[1])]
    for options in ({}, {"num_beams": 2}):
        written = vlm.ask_many(items, max_new_tokens=7, capture=spec, **options, **ended(vlm))
        ids = [run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist() for run in written]
        assert [len(one) for one in ids] == [7, 7]
        given = vlm.ask_many(items, answers=ids, capture=spec)
        for one, other in zip(written, given, strict=True):
            assert one.trace.attn_lhqk.shape[2] == 7
            assert np.allclose(one.trace.attn_lhqk, other.trace.attn_lhqk, atol=1e-5)
            if not options:
                assert np.allclose(one.trace.scores.chosen_logp_t, other.trace.scores.chosen_logp_t, atol=1e-4)


def test_maps_are_of_answer_words(vlm: va.Vlm) -> None:
    run = vlm.ask(picture(), QUESTIONS[0], answer="a red cup", capture=FULL)
    look = run.map("cup")
    rows = run.trace.rows_of(run.trace.find("cup").tokens)
    cells = run.trace.image_columns()
    by_hand = run.trace.attn_lhqk[:, :, rows][..., cells].mean((0, 1, 2))
    assert np.allclose(np.concatenate([v.ravel() for v in look.patch_map.values]), by_hand, atol=1e-6)
    assert run.map("cup", method="value").patch_map.total > 0
    assert run.map("cup", method="relative").patch_map.total > 0
    with pytest.raises(MapError, match="the question is read by the model's encoder"):
        run.map("spoon")
    layout = run.trace.layout
    assert layout.answer_start == layout.memory + 1
    assert layout.kinds[layout.memory] == TokenKind.SYSTEM


def test_beams_that_change_places_are_noticed(vlm: va.Vlm) -> None:
    encoded = vlm.adapter.encode([[picture()]], QUESTIONS[:1])
    settings = {"num_beams": 3, "max_new_tokens": 6, "do_sample": False, **ended(vlm)}
    with torch.no_grad(), Session(vlm.model, encoded.layouts, FULL, max_new_tokens=6, beams=3) as session:
        output = vlm.model.generate(**encoded.inputs, **settings, return_dict_in_generate=True)
    with pytest.raises(CaptureError, match="which row belongs to which sequence is not known"):
        session.finish(sequences=output.sequences)
    assert session.finish(output.beam_indices)[0].attn_lhqk.shape[2] > 0


def test_a_decoder_without_cross_attention_that_can_be_seen_is_refused() -> None:
    import transformers as tf

    config = tf.T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    model = tf.T5ForConditionalGeneration(config).eval()
    for module in model.decoder.modules():
        if type(module).__name__ == "T5Attention":
            module.__class__ = type("PlainAttention", (type(module),), {"forward": lambda self, x, **_: (x, None)})
    with pytest.raises(UnsupportedAttention, match="uses transformers' attention dispatch"):
        model_sites(model)
