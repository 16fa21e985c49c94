"""Pictures that are keys beside the prompt: rows of cross attention equal eager attention, and maps read them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vlmattn as va
from tests.capture.asked import QUESTIONS, Halved
from tests.tiny import TINY
from vlmattn.capture import CaptureSpec, Session
from vlmattn.core.errors import CaptureError, LayoutError, PromptError, SpecError
from vlmattn.core.layout import TokenKind

FULL = CaptureSpec(rows=("prompt", "answer"), dtype="float32", columns="all")


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def pictures() -> list[list[Image.Image]]:
    return [[picture(120, 200)], [picture(90, 60, 1), picture(300, 40, 2)]]


@pytest.fixture(scope="module")
def vlm() -> va.Vlm:
    return va.load(*TINY["mllama"]())


@torch.no_grad()
def eager_attentions(vlm: va.Vlm, inputs: dict[str, Any]) -> Any:
    config = vlm.model.get_decoder().config
    before = config._attn_implementation
    config._attn_implementation = "eager"
    try:
        return vlm.model(**inputs, output_attentions=True, use_cache=False).attentions
    finally:
        config._attn_implementation = before


def largest_error(vlm: va.Vlm, encoded: Any, kept: Any, reference: Any, item: int) -> float:
    """Over all layers and rows: cross attention on the keys beside the prompt, self attention on its tokens."""
    layout, pad = encoded.layouts[item], encoded.pad_left[item]
    memory, worst = layout.memory, 0.0
    rows = kept.positions[kept.positions < layout.answer_start] - memory + pad
    for slot, layer in enumerate(kept.layers):
        full = reference[layer][item][:, rows]
        got = kept.attn_lhqk[slot][:, : len(rows)]
        cross = layer not in kept.blind
        mine = got[..., :memory] if cross else got[..., memory:]
        want = full if cross else full[..., pad:]
        other = got[..., memory:] if cross else got[..., :memory]
        worst = max(worst, float((mine - want).abs().max()), float(other.abs().max()))
    return worst


@torch.no_grad()
def test_rows_of_a_ragged_batch_equal_eager_attention(vlm: va.Vlm) -> None:
    encoded = vlm.adapter.encode(pictures(), QUESTIONS)
    assert len({layout.memory for layout in encoded.layouts}) == 1  # two pictures make padding for the one
    assert max(encoded.pad_left) > 0
    plain = vlm.model(**encoded.inputs).logits
    with Session(vlm.model, encoded.layouts, FULL, pad_left=encoded.pad_left) as session:
        seen = vlm.model(**encoded.inputs).logits
    assert torch.equal(plain, seen)
    reference = eager_attentions(vlm, encoded.inputs)
    for item, kept in enumerate(session.finish()):
        assert kept.layers == (0, 1, 2, 3)
        assert kept.blind == (0, 2)
        assert largest_error(vlm, encoded, kept, reference, item) < 1e-6
        assert kept.attn_lhqk[1].max() > 0.5  # sharp enough to tell rows apart
        assert torch.allclose(kept.mass_lhqs.sum(-1), torch.ones(()), atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"cache_implementation": "static"}])
def test_generated_rows_equal_those_of_the_given_answer(vlm: va.Vlm, options: dict[str, Any]) -> None:
    spec = replace(FULL, columns="image", rows=("question", "answer"))
    items = list(zip(pictures(), QUESTIONS, strict=True))
    written = vlm.ask_many(items, max_new_tokens=4, capture=spec, **options)
    ids = [run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist() for run in written]
    given = vlm.ask_many(items, answers=ids, capture=spec)
    for one, other in zip(written, given, strict=True):
        assert np.allclose(one.trace.attn_lhqk, other.trace.attn_lhqk, atol=1e-5)
        assert np.array_equal(one.trace.visible_lqk, other.trace.visible_lqk)
    alone = vlm.ask(*items[0], max_new_tokens=4, capture=spec).trace
    steps = vlm.ask(*items[0], answer=alone.layout.input_ids[-4:-2].tolist(), capture=spec).trace
    assert np.allclose(steps.attn_lhqk[:, :, -2:], alone.attn_lhqk[:, :, -4:-2], atol=1e-5)


def test_keys_without_a_place_are_class_tokens_and_unused_tiles(vlm: va.Vlm) -> None:
    layout = vlm.adapter.encode([[picture(50, 110)]], [QUESTIONS[0]]).layouts[0]
    tiles, cells = len(layout.images[0].tiles), layout.images[0].cells
    assert layout.memory == 4 * 17
    assert cells == tiles * 16 < 4 * 16
    assert (layout.kinds[: layout.memory] == TokenKind.IMAGE).sum() == cells
    assert (layout.kinds[: layout.memory : 17] == TokenKind.SEPARATOR).all()
    assert (layout.kinds[layout.memory :] != TokenKind.IMAGE).all()


def test_each_text_sees_its_own_picture_only(vlm: va.Vlm) -> None:
    text = "<s><|image|>first words<|image|>second words"
    encoded = vlm.adapter.encode([[picture(90, 60, 1), picture(300, 40, 2)]], [text], raw=True, question="second words")
    spec = replace(FULL, columns="image", rows="prompt")
    with torch.no_grad(), Session(vlm.model, encoded.layouts, spec) as session:
        vlm.model(**encoded.inputs)
    kept = session.finish()[0]
    layout = encoded.layouts[0]
    placeholders = np.flatnonzero(layout.input_ids == vlm.adapter.image_token_id)
    first = (kept.positions >= placeholders[0]) & (kept.positions < placeholders[1])
    second = kept.positions >= placeholders[1]
    image = layout.image[kept.columns]
    visible = kept.visible_lqk[1].numpy()
    assert visible[first][:, image == 0].all()
    assert not visible[first][:, image == 1].any()
    assert visible[second][:, image == 1].all()
    assert not visible[second][:, image == 0].any()
    assert not kept.visible_lqk[[0, 2]].any()
    assert float(kept.attn_lhqk[1][:, first][..., image == 1].max()) == 0


def test_maps_leave_out_layers_that_look_at_no_picture(vlm: va.Vlm) -> None:
    run = vlm.ask(picture(120, 200), QUESTIONS[0], max_new_tokens=2, capture=FULL)
    look = run.map("spoon")
    assert look.patch_map.provenance.layers == "layers 1, 3 of 4 (2 others look at no picture)"
    by_hand = run.map("spoon", layers=[1, 3]).patch_map.values
    assert all(np.array_equal(a, b) for a, b in zip(look.patch_map.values, by_hand, strict=True))
    assert run.map("spoon", layers="last_half").patch_map.provenance.layers.startswith("last_half: layers 3 of 4")
    with pytest.raises(SpecError, match=r"layers 2 look at no picture.*choose among layers 1, 3"):
        run.map("spoon", layers=[2, 3])
    weighted = run.map("spoon", method="value").patch_map
    assert weighted.provenance.layers == look.patch_map.provenance.layers
    assert weighted.total > 0
    only_text = vlm.ask(picture(120, 200), QUESTIONS[0], max_new_tokens=2, capture=replace(FULL, layers=[0, 2]))
    with pytest.raises(SpecError, match="capture its cross attention layers too"):
        only_text.map("spoon")


def test_value_norms_are_those_of_the_cross_attention_keys(vlm: va.Vlm) -> None:
    encoded = vlm.adapter.encode([[picture(120, 200)]], [QUESTIONS[0]])
    spec = CaptureSpec(rows="last", value_norms="value", hidden=True)
    states: list[Any] = []
    module = vlm.model.get_decoder().layers[1].cross_attn
    handle = module.v_proj.register_forward_hook(lambda _m, _a, out: states.append(out))
    try:
        with torch.no_grad(), Session(vlm.model, encoded.layouts, spec) as session:
            vlm.model(**encoded.inputs)
    finally:
        handle.remove()
    kept, layout = session.finish()[0], encoded.layouts[0]
    values = states[0].reshape(1, -1, 2, 16)[0][layout.image_positions].norm(dim=-1)
    assert torch.allclose(kept.value_norm_lhk[1], values.repeat_interleave(2, dim=1).T, atol=1e-5)
    assert float(kept.value_norm_lhk[0].abs().max()) == 0
    rms = kept.hidden.rms_ln
    assert rms.shape[1] == layout.answer_start
    assert rms[:, : layout.memory].isnan().all()
    assert rms[:, layout.memory :].isfinite().all()


def test_a_key_beside_the_prompt_has_no_row(vlm: va.Vlm) -> None:
    encoded = vlm.adapter.encode([[picture(120, 200)]], [QUESTIONS[0]])
    with pytest.raises(SpecError, match="position 3 is a key beside the decoder's tokens and has no row: rows are 68"):
        CaptureSpec(rows=(3,)).prompt_positions(encoded.layouts[0])


def test_wrong_layouts_and_missing_pictures_are_refused(vlm: va.Vlm) -> None:
    encoded = vlm.adapter.encode(pictures(), QUESTIONS)
    with (
        torch.no_grad(),
        Session(vlm.model, encoded.layouts, FULL) as session,
        pytest.raises(CaptureError, match=r"pass pad_left=encoded\.pad_left"),
    ):
        vlm.model(**encoded.inputs)
    assert session.recordings == []
    with pytest.raises(PromptError, match="no picture was given: mllama takes no prompt without one"):
        vlm.adapter.encode([], "What?", text_only=True)
    with pytest.raises(LayoutError, match="memory must be 0 to answer_start"):
        replace(encoded.layouts[0], memory=10_000)


def test_steering_reaches_cross_attention(vlm: va.Vlm) -> None:
    spec = replace(FULL, rows=("question", "answer"), columns="image")
    plain = vlm.ask(picture(120, 200), QUESTIONS[0], answer="no", capture=spec).trace
    steered = vlm.ask(picture(120, 200), QUESTIONS[0], answer="no", capture=spec, steering=[Halved(1)]).trace
    assert np.allclose(steered.attn_lhqk[1], plain.attn_lhqk[1] * 0.5, atol=1e-6)
    assert not np.allclose(steered.attn_lhqk[3], plain.attn_lhqk[3], atol=1e-4)
