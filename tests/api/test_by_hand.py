"""What a run says, against eager attention of the whole sequence and sums worked out by hand, family by family."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data

import vlmattn as va
from tests.tiny_models import FAMILIES, build

PICTURE = data.coffee()[:300, :500]
QUESTION = "Is the red cup left of the red spoon?"
ANSWER = (65, 66, 77)
LAYERS, HEADS = (0, 2), (1, 3)


@lru_cache(maxsize=4)
def made(family: str) -> va.Run:
    vlm = va.load(*build(family))
    spec = va.CaptureSpec(rows=("question", "answer"), dtype="float32")
    return vlm.ask(PICTURE, QUESTION, answer=ANSWER, capture=spec)


def eager(vlm: va.Vlm, question: str, answer: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """Attention (L, H, N, N), value vectors (L, N, heads, dim) copied to every query head, and the layout."""
    encoded = vlm.encode([vlm._pictures(PICTURE)], [question])
    ids = torch.cat([encoded.inputs["input_ids"], torch.tensor([answer], dtype=torch.long)], dim=1)
    inputs = encoded.inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    layers = vlm.model.model.language_model.layers
    values: list[torch.Tensor] = []
    hooks = [one.self_attn.v_proj.register_forward_hook(lambda _m, _i, out: values.append(out[0])) for one in layers]
    vlm.model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            out = vlm.model(**inputs, output_attentions=True, use_cache=False)
    finally:
        vlm.model.set_attn_implementation("sdpa")
        for hook in hooks:
            hook.remove()
    attention = torch.stack(out.attentions)[:, 0]
    pairs, heads, size = 2, attention.shape[1], values[0].shape[-1] // 2
    wide = torch.stack(values).view(len(values), -1, pairs, size).repeat_interleave(heads // pairs, dim=2)
    return attention, wide, encoded.layouts[0]


@lru_cache(maxsize=4)
def by_hand(family: str) -> tuple[Any, Any, Any]:
    return eager(made(family).vlm, QUESTION, ANSWER)


def same(got: va.PatchMap, vector: Any, layout: Any) -> bool:
    wanted = va.PatchMap.from_vector(np.asarray(vector), layout)
    return all(np.allclose(a, b, rtol=1e-3, atol=1e-7) for a, b in zip(got.values, wanted.values, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("what", [0, 2, None, "cup"])
def test_raw(family: str, what: Any) -> None:
    attention, _, layout = by_hand(family)
    first, cup = layout.answer_start, made(family).trace.find("cup", part="question").tokens
    rows = {0: [first - 1], 2: [first + 1], None: [first - 1, first, first + 1], "cup": list(cup)}[what]
    expected = attention[:, :, rows][..., layout.image_positions].mean(dim=(0, 1, 2))
    assert same(made(family).map(what, part="question" if what == "cup" else None).patch_map, expected, layout)


@pytest.mark.parametrize("family", FAMILIES)
def test_value(family: str) -> None:
    attention, values, layout = by_hand(family)
    norms = []
    for layer, module in enumerate(made(family).vlm.model.model.language_model.layers):
        heads = values.shape[2]
        weight = module.self_attn.o_proj.weight.detach().view(-1, heads, values.shape[3])
        norms.append(torch.einsum("nhd,ohd->hno", values[layer], weight).norm(dim=-1))
    weighted = attention[:, :, layout.answer_start - 1] * torch.stack(norms)
    expected = weighted[list(LAYERS)][:, list(HEADS)][..., layout.image_positions].mean(dim=(0, 1))
    assert same(made(family).map(0, method="value", layers=LAYERS, heads=HEADS).patch_map, expected, layout)
    assert not same(made(family).map(0, method="value").patch_map, expected, layout)


@pytest.mark.parametrize("family", FAMILIES)
def test_relative(family: str) -> None:
    attention, _, layout = by_hand(family)
    plain, _, alone = eager(made(family).vlm, va.maps.GENERIC_PROMPT, ())

    def chosen(rows: Any, where: Any) -> Any:
        return rows[list(LAYERS)][:, list(HEADS)][..., where.image_positions].mean(dim=(0, 1)).numpy()

    generic = chosen(plain[:, :, alone.answer_start - 1], alone)
    expected = chosen(attention[:, :, layout.answer_start - 1], layout) / np.maximum(generic, 0.1 * generic.mean())
    got = made(family).map(0, method="relative", layers=LAYERS, heads=HEADS).patch_map
    assert same(got, expected, layout)


def test_token_maps_are_one_map_per_token_with_text_in_order() -> None:
    run = made("llava")
    maps = run.token_maps(layers=[1])
    assert len(maps) == len(ANSWER)
    for number, look in enumerate(maps):
        assert np.array_equal(look.patch_map.values[0], run.map(number, layers=[1]).patch_map.values[0])
    ended = run.vlm.ask(PICTURE, QUESTION, answer=(65, run.vlm.adapter.tokenizer.eos_token_id))
    assert [look.label for look in ended.token_maps()] == [ended.trace.find(0).text]


def test_grounding_against_sums_by_hand() -> None:
    run = made("llava").vlm.ask(PICTURE, QUESTION, answer="red cup")
    trace, scores = run.trace, run.trace.scores
    assert scores is not None
    for told, word in zip(run.grounding(), run.words(), strict=True):
        steps = np.array(word.tokens) - trace.layout.answer_start
        assert len(steps) == 3
        assert told.log_probability == pytest.approx(float(scores.chosen_logp_t[steps].sum()))
        rows = np.searchsorted(trace.positions, np.array(word.tokens) - 1)
        assert told.image_share == pytest.approx(float(trace.mass("image:0")[:, :, rows].mean()), rel=1e-4)
        assert told.peak_xy == run.map(word).peak_xy
        box = run.map(word).patch_map.peak().box_xyxy
        assert told.peak_xy is not None
        assert box[0] <= told.peak_xy[0] <= box[2]
        assert box[1] <= told.peak_xy[1] <= box[3]


def test_log_probabilities_are_those_of_the_models_logits() -> None:
    run = made("llava")
    vlm = run.vlm
    encoded = vlm.encode([vlm._pictures(PICTURE)], [QUESTION])
    ids = torch.cat([encoded.inputs["input_ids"], torch.tensor([ANSWER])], dim=1)
    with torch.no_grad():
        inputs = encoded.inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        logits = vlm.model(**inputs, use_cache=False).logits[0, -4:-1]
    expected = torch.log_softmax(logits.float(), dim=-1)[range(3), list(ANSWER)].numpy()
    assert run.trace.scores is not None
    assert np.allclose(run.trace.scores.chosen_logp_t, expected, atol=1e-4)


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision"])
def test_a_look_averages_the_tiles_that_cover_a_pixel(family: str) -> None:
    look = made(family).map(0)
    base, tiles = (look.to_pixels(merge=merge, kind="density") for merge in ("base", "tiles"))
    both = base.seen & tiles.seen
    assert both.any()
    assert np.allclose(look.pixels.values[both], (base.values[both] + tiles.values[both]) / 2, rtol=1e-5)
    assert not np.allclose(base.values[both], tiles.values[both], rtol=0.1)
    only = base.seen & ~tiles.seen
    assert np.allclose(look.pixels.values[only], base.values[only])
