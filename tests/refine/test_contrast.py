"""CARVE's contrast against a plain computation: eager attention, float32, full matrices, no cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from skimage import data

import vlmattn as va
from tests.tiny_models import build, tiny
from tests.traces import trace
from vlmattn.core.errors import MapError, SpecError
from vlmattn.grid import to_pixels
from vlmattn.maps import GENERIC_PROMPT
from vlmattn.refine import RECIPES, SUFFIX, contrast

SPEC = va.CaptureSpec(rows=("question", "answer"), dtype="float32")
QUESTION = f"Is the cup red? {SUFFIX}"
LAYERS = (1, 2)


def plain_steps(model: Any, encoded: Any, steps: int, banned: int) -> np.ndarray:
    """(T, L, K) attention of the last row of every step on the image tokens, heads averaged; no cache."""
    inputs = dict(encoded.inputs)
    at = encoded.layouts[0].image_positions
    found = []
    for _ in range(steps):
        with torch.no_grad():
            out = model(**inputs, output_attentions=True, use_cache=False)
        found.append([out.attentions[layer][0, :, -1, at].mean(0).double().numpy() for layer in LAYERS])
        logits = out.logits[0, -1].clone()
        logits[banned] = -torch.inf
        inputs["input_ids"] = torch.cat([inputs["input_ids"], logits.argmax().view(1, 1)], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return np.array(found)


@pytest.mark.parametrize("family", ["llava", "llava_next"])
@pytest.mark.parametrize("steps", ["first", "last", "every"])
def test_the_contrast_is_the_papers(family: str, steps: str) -> None:
    model, processor = build(family)
    vlm = va.load(model, processor)
    banned = vlm.adapter.image_token_id
    run = vlm.ask(data.coffee(), QUESTION, capture=SPEC, max_new_tokens=3, suppress_tokens=[banned])
    changes: dict[str, Any] = {"layers": LAYERS, "steps": steps, "pictures": "crop"}
    changes |= {} if steps == "every" else {"weights": "even"}
    found = run.refine("carve-code", **changes).refined.patch_map
    eager, _ = build(family)
    eager.set_attn_implementation("eager")
    task, general = (
        plain_steps(eager, vlm.encode([run.pictures], [prompt]), 3, banned)
        for prompt in (QUESTION, f"{GENERIC_PROMPT} {SUFFIX}")
    )
    ratio = task / (general + 1e-8)
    weights = {"first": [1, 0, 0], "last": [0, 0, 1], "every": [1, 2, 3]}[steps]
    expected = np.einsum("tlk,t->k", ratio, np.array(weights, dtype=float))
    layout = run.trace.layout
    at = layout.image_positions
    got = np.array([found.values[layout.tile[p]][layout.row[p], layout.col[p]] for p in at])
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_enlarging_before_and_after_adding_is_the_same() -> None:
    one = trace()
    layers = [contrast(one, one, layers=[n], floor=0.3) for n in (0, 1)]
    both = contrast(one, one, layers=[0, 1], floor=0.3)
    apart = sum(to_pixels(m, merge="mean", kind="density", smooth="bilinear").values for m in layers)
    np.testing.assert_allclose(
        to_pixels(both, merge="mean", kind="density", smooth="bilinear").values, apart, rtol=1e-5
    )


def test_a_pass_contrasted_with_itself_is_flat_and_a_large_floor_leaves_the_task() -> None:
    one = trace()
    assert contrast(one, one, floor=0.0, clip=None).is_flat
    large = contrast(one, one, floor=1e9, floor_of="absolute", clip=None, steps="first", layers=[0])
    task = va.maps.raw_attention(one, 0, layers=[0])
    got, want = (np.concatenate([v.ravel() for v in m.values]) for m in (large, task))
    np.testing.assert_allclose(got / got.sum(), want / want.sum(), rtol=1e-6)


@pytest.mark.parametrize("clip", [None, 0.8])
def test_the_floor_is_of_each_general_map_and_the_clip_of_each_ratio(clip: float | None) -> None:
    rng = np.random.default_rng(3)
    shape = trace().attn_lhqk.shape
    task, general = (trace(attn_lhqk=rng.random(shape, dtype=np.float32) ** 2) for _ in range(2))
    found = contrast(task, general, floor=0.3, floor_of="mean", clip=clip, steps="every", weights="number")
    expected = np.zeros(shape[-1])
    for number, token in enumerate(task.answer_tokens):
        row = int(task.rows_of([token], "predicting")[0])
        for layer in range(shape[0]):
            top, below = (one.attn_lhqk[layer, :, row].astype(np.float64).mean(0) for one in (task, general))
            ratio = top / (below + 0.3 * below.mean())
            if clip is not None:
                ratio = np.minimum(ratio, np.quantile(ratio, clip))
            expected += (number + 1) * ratio
    layout = task.layout
    got = [found.values[layout.tile[p]][layout.row[p], layout.col[p]] for p in layout.image_positions]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_clipping_cuts_the_exploding_patch_and_nothing_else() -> None:
    one = trace()
    values = one.attn_lhqk.copy()
    values[..., 0] = 0.0
    general = trace(attn_lhqk=values)
    wild = contrast(one, general, floor=1e-8, floor_of="absolute", clip=None)
    tame = contrast(one, general, floor=1e-8, floor_of="absolute", clip=0.5)
    assert wild.values[0][0, 0] > 1e4 * wild.values[1].max()
    assert tame.values[0].max() < 2 * tame.values[1].max()
    with pytest.raises(MapError, match="floor above 0"):
        contrast(one, general, floor=0.0, clip=None)


def test_a_layer_that_cannot_see_a_patch_says_nothing_of_it() -> None:
    one = trace()
    values, seen = one.attn_lhqk.copy(), np.ones((2, 12, 6), dtype=bool)
    values[1, ..., :2], seen[1, :, :2] = 0.0, False
    half = trace(attn_lhqk=values, visible_lqk=seen)
    other = trace(attn_lhqk=one.attn_lhqk[:, ::-1, ::-1].copy())
    plain: dict[str, Any] = {"floor": 0.02, "floor_of": "absolute", "clip": None}
    found = contrast(half, other, **plain)
    first, second = (contrast(one, other, **plain, layers=[n]) for n in (0, 1))
    np.testing.assert_allclose(found.values[0][:, 0], 2 * first.values[0][:, 0], rtol=1e-6)
    np.testing.assert_allclose(found.values[0][:, 1], (first.values[0] + second.values[0])[:, 1], rtol=1e-6)
    np.testing.assert_allclose(found.values[1], first.values[1] + second.values[1], rtol=1e-6)
    assert found.visible is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": "second"},
        {"weights": "odd"},
        {"floor_of": "median"},
        {"floor": -1.0},
        {"floor": "low"},
        {"layers": [9]},
        {"clip": 5},
        {"image": 3},
    ],
)
def test_options_that_do_not_exist(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        contrast(trace(), trace(), **wrong)


def test_another_picture_is_refused() -> None:
    vlm = va.load(*tiny("llava"))
    options: dict[str, Any] = {"max_new_tokens": 2, "suppress_tokens": [vlm.adapter.image_token_id]}
    one, other = vlm.ask(data.coffee(), "What?", **options), vlm.ask(data.chelsea(), "What?", **options)
    with pytest.raises(MapError, match="different pictures"):
        contrast(one.trace, other.trace)


def test_every_recipe_says_where_it_comes_from() -> None:
    assert all(one.source for one in RECIPES.values())
    assert RECIPES["carve-code"].floor == 1e-8
