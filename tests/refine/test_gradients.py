"""Gradient maps against autograd through full eager matrices, and against a small push of the row itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from skimage import data

import vlmattn as va
from tests.tiny import SEVERAL, TINY
from tests.tiny_models import FAMILIES, build
from vlmattn.adapters import Encoded
from vlmattn.api.vlm import Vlm
from vlmattn.capture import door
from vlmattn.core.errors import MapError, SpecError
from vlmattn.maps import gradient_attention, pixel_gradient, pixel_gradient_ratio

QUESTION = "Is the cup red?"


def encoded_by(vlm: Vlm, picture: Any = None, question: str = QUESTION) -> Encoded:
    shown = va.load_image(data.coffee()[:120, :200] if picture is None else picture)
    return vlm.encode([[shown]], [question])


def score_of(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    logits = model(**inputs, use_cache=False).logits[0, -1].float()
    return torch.log_softmax(logits, dim=-1)[logits.argmax()]


def vector_of(found: va.PatchMap, layout: Any) -> np.ndarray:
    at = layout.image_positions
    return np.array([found.values[layout.tile[p]][layout.row[p], layout.col[p]] for p in at])


EXACT = [k for k in ("llava", "llava_next", "qwen2_5_vl", "gemma3", "mllama", "paligemma", "idefics3") if k in TINY]


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("layers", [(-1,), (0, 1)])
def test_gradient_attention_is_that_of_full_eager_matrices(kind: str, layers: tuple[int, ...]) -> None:
    model, processor = TINY[kind]()
    vlm = Vlm(model, processor, name=kind)
    sites = va.capture.model_sites(model)
    encoded = encoded_by(vlm)
    layout = encoded.layouts[0]
    seeing = [s.layer_idx for s in sites.attention if s.sees_memory or not layout.memory]
    chosen = [seeing[n] for n in layers if n < len(seeing)]
    found = gradient_attention(model, encoded, layers=chosen)
    model.set_attn_implementation("eager")
    out = model(**encoded.inputs, use_cache=False, output_attentions=True)
    logits = out.logits[0, -1].float()
    score = torch.log_softmax(logits, dim=-1)[logits.argmax()]
    if layout.memory:
        pytest.skip("what eager attention returns of cross attention differs by model; the push below covers it")
    expected = []
    for layer in chosen:
        rows = out.attentions[sites.layers.index(layer)]
        (slope,) = torch.autograd.grad(score, rows, retain_graph=True)
        expected.append((rows * slope.clamp(min=0))[0, :, -1].mean(0).detach().numpy()[layout.image_positions])
    want = np.mean(expected, axis=0)
    np.testing.assert_allclose(vector_of(found, layout), want, rtol=1e-3, atol=1e-5 * max(want.max(), 1e-9))


class Push(va.Steering):
    """Adds a little to the last row of a layer."""

    rows = "last"

    def __init__(self, layer: int, size: float, seed: int = 0) -> None:
        self.layers, self.size, self.seed = (layer,), size, seed
        self.given: tuple[torch.Tensor, torch.Tensor] | None = None

    def edit_rows(self, probs_bhrk: torch.Tensor, where: Any) -> torch.Tensor:
        rng = torch.Generator().manual_seed(self.seed)
        way = torch.rand(probs_bhrk.shape, generator=rng) * probs_bhrk
        self.given = probs_bhrk, way
        return probs_bhrk + self.size * way


@pytest.mark.slow
@pytest.mark.parametrize("kind", SEVERAL)
def test_the_slope_is_what_a_small_push_of_the_row_does_in_every_family(kind: str) -> None:
    from vlmattn.capture.whole import WholePass

    model, processor = TINY[kind]()
    vlm = Vlm(model, processor, name=kind)
    encoded = encoded_by(vlm)
    layout = encoded.layouts[0]
    if len(layout.latent_positions):
        with pytest.raises(MapError, match="resampler"):
            gradient_attention(model, encoded, layers=[-1])
        return
    sites = va.capture.model_sites(model)
    layer = [s.layer_idx for s in sites.attention if s.sees_memory or not layout.memory][-1]
    last = len(layout) - layout.memory - 1
    passed = WholePass(model, [layer]).run(encoded.inputs, [last], None, "log_probability").differentiate()
    slope = passed.layers[layer].attention_slope(slice(last, last + 1))[None]

    def pushed(size: float) -> float:
        push = Push(layer, size)
        with va.capture.Session(model, encoded.layouts, None, [push], pad_left=encoded.pad_left), torch.no_grad():
            logits = model(**encoded.inputs, use_cache=False).logits[0, -1].double()
        token = logits_token
        assert push.given is not None
        ways.append(push.given[1])
        return float(torch.log_softmax(logits, dim=-1)[token])

    ways: list[torch.Tensor] = []
    with torch.no_grad():
        logits_token = int(model(**encoded.inputs, use_cache=False).logits[0, -1].argmax())
    step = 0.02
    measured = (pushed(step) - pushed(-step)) / (2 * step)
    told = float((slope * ways[0]).sum())
    assert told == pytest.approx(measured, rel=0.05, abs=2e-4)
    assert gradient_attention(model, encoded, layers=[layer]).values


def test_nothing_is_left_behind() -> None:
    model, processor = build("llava")
    vlm = Vlm(model, processor, name="tiny")
    encoded = encoded_by(vlm)
    with torch.no_grad():
        before = model(**encoded.inputs).logits
    gradient_attention(model, encoded, layers=[1])
    pixel_gradient(model, encoded)
    with pytest.raises(SpecError, match="layer"):
        gradient_attention(model, encoded, layers=[7])
    assert not model.training
    assert not door.is_open()
    assert torch.is_grad_enabled()
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
    assert not encoded.inputs["pixel_values"].requires_grad
    with torch.no_grad():
        assert torch.equal(before, model(**encoded.inputs).logits)


def test_the_door_closes_after_an_error() -> None:
    model, processor = build("llava")
    encoded = encoded_by(Vlm(model, processor, name="tiny"))
    broken = model.model.language_model.layers[2].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        gradient_attention(model, encoded, layers=[1])
    broken.remove()
    assert not door.is_open()
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("family", FAMILIES)
def test_pixel_gradients_are_those_of_autograd_on_busy_pixels(family: str) -> None:
    model, processor = build(family)
    encoded = encoded_by(Vlm(model, processor, name=family))
    layout = encoded.layouts[0]
    if family in ("llava_next", "llava_onevision"):
        with pytest.raises(MapError, match="take 'gradient'"):
            pixel_gradient(model, encoded)
        return
    found = pixel_gradient(model, encoded)
    pixels = encoded.inputs["pixel_values"].clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(score_of(model, encoded.inputs | {"pixel_values": pixels}), pixels)
    size = slope[0].norm(dim=0).numpy()
    view = pixels[0].detach().numpy()
    masked = size * plain_busy(view)
    rows, cols = layout.images[0].tiles[0].grid_hw
    blocks = masked.reshape(rows, size.shape[0] // rows, cols, size.shape[1] // cols).mean((1, 3))
    np.testing.assert_allclose(found.values[0], blocks, rtol=2e-3, atol=1e-6 * blocks.max() + 1e-9)


def plain_busy(view: np.ndarray) -> np.ndarray:
    kernel = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])
    blurred = np.stack([ndimage.convolve(c, kernel, mode="mirror") for c in view])
    fine = ndimage.median_filter(np.linalg.norm(view - blurred, axis=0), size=7, mode="reflect")
    return np.asarray(fine > np.median(fine))


@pytest.mark.parametrize(("floor", "floor_of"), [(1e-6, "mean"), (0.5, "mean"), (1e-3, "absolute")])
def test_the_ratio_of_pixel_gradients_is_taken_pixel_by_pixel(floor: float, floor_of: Any) -> None:
    """ViCrop's pure-grad: ratio first, then busy pixels, then the mean of every patch."""
    model, processor = build("llava")
    vlm = Vlm(model, processor, name="llava")
    both = [encoded_by(vlm, question=text) for text in (QUESTION, "Write a general description of the image.")]
    found = pixel_gradient_ratio(model, *both, floor=floor, floor_of=floor_of)
    sizes = []
    for one in both:
        pixels = one.inputs["pixel_values"].clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(score_of(model, one.inputs | {"pixel_values": pixels}), pixels)
        sizes.append(slope[0].norm(dim=0).double().numpy())
    busy = plain_busy(both[0].inputs["pixel_values"][0].numpy())
    least = floor * sizes[1][busy].mean() if floor_of == "mean" else floor
    ratio = np.where(busy, sizes[0] / np.maximum(sizes[1], least), 0.0)
    rows, cols = both[0].layouts[0].images[0].tiles[0].grid_hw
    blocks = ratio.reshape(rows, len(ratio) // rows, cols, len(ratio) // cols).mean((1, 3))
    np.testing.assert_allclose(found.values[0], blocks, rtol=5e-3)
    run = vlm.ask(data.coffee()[:120, :200], QUESTION, max_new_tokens=1, suppress_tokens=[vlm.adapter.image_token_id])
    changes = {"suffix": "", "floor": floor, "floor_of": floor_of, "pictures": "crop"}
    again = run.refine("vicrop-pure-gradient", **changes).refined
    assert again is not None
    np.testing.assert_allclose(again.patch_map.values[0], blocks, rtol=5e-3)


def test_gradients_of_the_second_of_two_pictures() -> None:
    model, processor = build("llava")
    vlm = Vlm(model, processor, name="llava")
    pictures = [va.load_image(data.coffee()[:120, :200]), va.load_image(data.chelsea()[:90, :90])]
    both = [vlm.encode([pictures], [text]) for text in (QUESTION, "Describe it.")]
    pixels = [one.inputs["pixel_values"].clone().requires_grad_(True) for one in both]
    slopes = [
        torch.autograd.grad(score_of(model, one.inputs | {"pixel_values": given}), given)[0][1].norm(dim=0).numpy()
        for one, given in zip(both, pixels, strict=True)
    ]
    busy = plain_busy(both[0].inputs["pixel_values"][1].numpy())
    rows, cols = both[0].layouts[0].images[1].tiles[0].grid_hw

    def blocks(values: np.ndarray) -> np.ndarray:
        return np.asarray(values.reshape(rows, len(values) // rows, cols, len(values) // cols).mean((1, 3)))

    found = pixel_gradient(model, both[0], image=1)
    np.testing.assert_allclose(found.values[0], blocks(slopes[0] * busy), rtol=2e-3, atol=1e-9)
    ratio = pixel_gradient_ratio(model, *both, image=1)
    divisor = np.maximum(slopes[1], 1e-6 * slopes[1][busy].mean())
    np.testing.assert_allclose(ratio.values[0], blocks(np.where(busy, slopes[0] / divisor, 0)), rtol=5e-3)


def test_pixels_of_no_weight_under_the_general_prompt_need_a_floor() -> None:
    model, processor = build("llava")
    vlm = Vlm(model, processor, name="llava")
    both = [encoded_by(vlm, question=text) for text in (QUESTION, "Describe.")]
    with torch.no_grad():
        model.lm_head.weight.zero_()
    with pytest.raises(MapError, match="floor above 0"):
        pixel_gradient_ratio(model, *both, floor=0.0)
    with pytest.raises(MapError, match="different pictures"):
        pixel_gradient_ratio(model, both[0], encoded_by(vlm, data.coffee()[:50, :90]))


def test_what_gradients_refuse() -> None:
    model, processor = build("llava")
    vlm = Vlm(model, processor, name="tiny")
    run = vlm.ask(Image.new("RGB", (40, 30), "red"), QUESTION, max_new_tokens=1,
                  suppress_tokens=[vlm.adapter.image_token_id])  # fmt: skip
    with pytest.raises(SpecError, match="leave out the word"):
        run.refine("vicrop-gradient", "cup", suffix="", pictures="crop")
    both = vlm.encode([run.pictures] * 2, [QUESTION] * 2)
    with pytest.raises(SpecError, match="one prompt at a time"):
        gradient_attention(model, both, layers=[0])
    with pytest.raises(SpecError, match="picture 3"):
        pixel_gradient(model, encoded_by(vlm), image=3)
    with pytest.raises(SpecError, match="heads"):
        gradient_attention(model, encoded_by(vlm), layers=[0], heads=[9])
