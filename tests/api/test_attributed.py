"""Integrated gradients and occlusion of runs against plain loops over whole passes, family by family."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from skimage import data

import vlmattn as va
from tests.tiny import TINY
from tests.tiny_models import FAMILIES, build
from vlmattn.api.follow import with_answers
from vlmattn.api.vlm import Vlm
from vlmattn.capture.sites import model_sites
from vlmattn.core.errors import BudgetExceeded, DependencyMissing, MapError, SpecError
from vlmattn.grid import pool_pixels
from vlmattn.maps.attribution import blocks_of

PICTURE, OTHER = data.coffee()[:120, :200], data.chelsea()[:90, :90]
QUESTION, ANSWER = "Is the cup red?", "a red cup"
PIXELS = ("llava", "gemma3", "paligemma2", "vipllava")
PATCHES = ("llava", "llava_next", "qwen2_5_vl", "gemma3", "internvl")
COVERED = ("llava", "llava_next", "qwen2_5_vl", "mllama", "internvl")


@lru_cache(maxsize=3)
def made(kind: str, pictures: int = 1) -> va.Run:
    vlm = Vlm(*(build(kind) if kind in FAMILIES else TINY[kind]()), name=kind)
    return vlm.ask([PICTURE, OTHER][:pictures], QUESTION, answer=ANSWER)


def encoded(run: va.Run, *pictures: Any) -> Any:
    layout, vlm = run.trace.layout, run.vlm
    ids = layout.input_ids[layout.answer_start :].tolist()
    given = [[va.load_image(p) for p in pictures]] if pictures else [run.pictures]
    longer, _ = with_answers(vlm.adapter, vlm.encode(given, [QUESTION]), [ids])
    assert longer.pad_left == (0,)
    return longer


def score(run: va.Run, inputs: Any, word: str = "red", of: str = "log_probability") -> torch.Tensor:
    """From all logits of the model, one token after the other."""
    layout = run.trace.layout
    logits = run.vlm.model(**inputs, use_cache=False).logits[0].float()
    total = torch.zeros(())
    for token in run.trace.find(word, part="answer").tokens:
        row, own = logits[token - layout.memory - 1], layout.input_ids[token]
        total = total + (torch.log_softmax(row, -1) if of == "log_probability" else row)[own]
    return total


def image_at(run: va.Run, image: int = 0) -> np.ndarray:
    layout = run.trace.layout
    return layout.image_positions[layout.image[layout.image_positions] == image]


def vector(run: va.Run, word: Any, *, image: int = 0, **options: Any) -> np.ndarray:
    found, layout = run.map(word, image=image, **options).patch_map, run.trace.layout
    return np.array([found.values[layout.tile[p]][layout.row[p], layout.col[p]] for p in image_at(run, image)])


def mean_coloured(picture: np.ndarray) -> Image.Image:
    fill = picture.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    return Image.fromarray(np.broadcast_to(fill, picture.shape).copy())


def legendre(count: int) -> list[tuple[float, float]]:
    at, weights = np.polynomial.legendre.leggauss(count)
    return [(float(0.5 * (1 + a)), float(0.5 * w)) for a, w in zip(at, weights, strict=True)]


# -- integrated gradients ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PIXELS)
@pytest.mark.parametrize("of", ["log_probability", "logit"])
def test_pixels_are_those_of_autograd(kind: str, of: str) -> None:
    run = made(kind)
    plain, base = encoded(run), encoded(run, mean_coloured(PICTURE))
    x, x0 = plain.inputs["pixel_values"], base.inputs["pixel_values"]
    mean = torch.zeros_like(x)
    for alpha, weight in legendre(3):
        here = (x0 + alpha * (x - x0)).detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(score(run, {**plain.inputs, "pixel_values": here}, of=of), here)
        mean += weight * slope
    pixels = ((x - x0) * mean).reshape(3, *x.shape[-2:]).sum(0).double().numpy()
    rows, cols = run.trace.layout.images[0].tiles[0].grid_hw
    step_y, step_x = pixels.shape[0] // rows, pixels.shape[1] // cols
    assert (step_y * rows, step_x * cols) == pixels.shape
    wanted = pixels.reshape(rows, step_y, cols, step_x).sum(axis=(1, 3))
    found = run.map("red", method="integrated_gradients", target=of, n_steps=3).patch_map.values[0]
    assert np.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("kind", PATCHES)
def test_patches_are_those_of_autograd(kind: str) -> None:
    run = made(kind)
    plain, base = encoded(run), encoded(run, mean_coloured(PICTURE))
    model, at = run.vlm.model, torch.as_tensor(image_at(run))
    decoder, seen = model_sites(model).decoder, []
    hook = decoder.register_forward_pre_hook(lambda m, a, k: seen.append(k["inputs_embeds"].detach()), with_kwargs=True)
    with torch.no_grad():
        model(**plain.inputs)
        model(**base.inputs)
    hook.remove()
    x, x0 = (one[0, at] for one in seen)
    mean = torch.zeros_like(x)
    for alpha, weight in legendre(3):
        here = (x0 + alpha * (x - x0)).detach().requires_grad_(True)
        whole = seen[0].index_copy(1, at, here[None])
        hook = decoder.register_forward_pre_hook(
            lambda m, a, k, whole=whole: (a, k | {"inputs_embeds": whole}), with_kwargs=True
        )
        (slope,) = torch.autograd.grad(score(run, plain.inputs), here)
        hook.remove()
        mean += weight * slope
    wanted = ((x - x0) * mean).sum(-1).double().numpy()
    assert np.allclose(vector(run, "red", method="integrated_gradients", of="patches", n_steps=3), wanted, atol=1e-5)


@pytest.mark.parametrize("of", ["pixels", "patches"])
@pytest.mark.parametrize("baseline", ["mean", "black", "blur"])
def test_they_sum_to_the_difference(of: str, baseline: str) -> None:
    run = made("gemma3")
    other = {
        "mean": mean_coloured(PICTURE),
        "black": Image.new("RGB", PICTURE.shape[1::-1]),
        "blur": Image.fromarray(PICTURE).filter(ImageFilter.GaussianBlur(max(PICTURE.shape) / 50)),
    }[baseline]
    with torch.no_grad():
        difference = float(score(run, encoded(run).inputs) - score(run, encoded(run, other).inputs))
    look = run.map("red", method="integrated_gradients", of=of, baseline=baseline, n_steps=24)
    step = look.patch_map.provenance.steps[-1]
    delta = float(step.split("convergence delta ")[1].split(",")[0])
    assert look.patch_map.total == pytest.approx(difference + delta, abs=2e-4 + 0.01 * abs(delta))
    assert abs(delta) < 0.05 * abs(difference) or "raise n_steps" in step
    assert f"baseline {baseline}" in step


def test_few_steps_are_told_to_be_too_few() -> None:
    from vlmattn.maps.attribution import Integrated

    def delta(value: float) -> Integrated:
        return Integrated(torch.zeros(1), 2.0, value)

    assert "raise n_steps" in delta(0.11).told
    assert "raise n_steps" in delta(-0.11).told
    assert "raise n_steps" not in delta(0.09).told


def test_only_the_picture_asked_for_is_changed() -> None:
    run = made("llava", 2)
    first = vector(run, "red", image=0, method="integrated_gradients", of="patches", n_steps=8)
    second = vector(run, "red", image=1, method="integrated_gradients", of="pixels", n_steps=8)
    assert np.abs(first).max() > 0
    assert np.abs(second).max() > 0
    with torch.no_grad():
        whole = score(run, encoded(run).inputs)
        less = score(run, encoded(run, PICTURE, mean_coloured(OTHER)).inputs)
    assert second.sum() == pytest.approx(float(whole - less), rel=0.2, abs=1e-3)


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "llava_next"])
def test_pixels_without_a_place_are_refused(kind: str) -> None:
    with pytest.raises(MapError, match=r"of='patches' or method='occlusion'"):
        made(kind).map("red", method="integrated_gradients")


def test_patches_that_are_no_tokens_are_refused() -> None:
    with pytest.raises(MapError, match="occlusion"):
        made("mllama").map("red", method="integrated_gradients", of="patches")


def test_weights_that_let_no_gradient_through() -> None:
    vlm = Vlm(*build("llava"), name="cut")
    run = vlm.ask(PICTURE, QUESTION, answer=ANSWER)
    run.vlm.model.requires_grad_(False)
    assert np.abs(vector(run, "red", method="integrated_gradients", n_steps=2)).max() > 0  # frozen is no hindrance
    vlm.model.model.multi_modal_projector.register_forward_pre_hook(lambda m, args: tuple(a.detach() for a in args))
    for trained in (False, True):
        vlm.model.requires_grad_(trained)
        with pytest.raises(MapError, match=r"gradients do not reach the picture.*occlusion"):
            run.map("red", method="integrated_gradients", n_steps=2)


# -- occlusion ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", COVERED)
@pytest.mark.parametrize("of", ["log_probability", "logit"])
def test_occlusion_is_that_of_a_loop(kind: str, of: str) -> None:
    run = made(kind)
    layout = run.trace.layout.images[0]
    view = next((n for n, tile in enumerate(layout.tiles) if tile.kind in ("base", "thumbnail")), 0)
    rows, cols = layout.tiles[view].grid_hw
    cells = -(-max(rows, cols) // 2)
    fill = np.asarray(mean_coloured(PICTURE))
    x0, y0, x1, y1 = layout.tiles[view].source_box_xyxy
    wanted, effect = np.zeros((rows, cols)), np.zeros(PICTURE.shape[:2])
    with torch.no_grad():
        whole = float(score(run, encoded(run).inputs, of=of))
        for top in range(0, rows, cells):
            for left in range(0, cols, cells):
                inside = np.zeros(PICTURE.shape[:2], dtype=bool)
                for y in range(PICTURE.shape[0]):
                    for x in range(PICTURE.shape[1]):
                        row = (y + 0.5 - y0) / (y1 - y0) * rows
                        col = (x + 0.5 - x0) / (x1 - x0) * cols
                        inside[y, x] = top <= row < min(top + cells, rows) and left <= col < min(left + cells, cols)
                if inside.any():
                    less = score(run, encoded(run, np.where(inside[..., None], fill, PICTURE)).inputs, of=of)
                    wanted[top : top + cells, left : left + cells] = effect[inside] = whole - float(less)
    found = run.map("red", method="occlusion", cells=cells, target=of, batch=3).patch_map
    assert np.abs(wanted).max() > 1e-4
    for number, (one, pooled) in enumerate(zip(found.values, pool_pixels(layout, effect).values, strict=True)):
        assert np.allclose(one, wanted if number == view else pooled, atol=2e-5)


def test_positive_values_and_the_number_of_passes() -> None:
    run, seen = made("llava"), []
    signed = vector(run, "red", method="occlusion", progress=lambda done, total: seen.append((done, total)), batch=5)
    assert run.passes("occlusion") == 1 + len(blocks_of(run.trace.layout.images[0], 1).boxes)
    assert seen[-1] == (run.passes("occlusion") - 1,) * 2
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert signed.min() < 0 < signed.max()
    assert np.allclose(vector(run, "red", method="occlusion", values="positive"), np.maximum(signed, 0), atol=1e-6)
    assert run.passes("integrated_gradients", n_steps=7) == 9
    with pytest.raises(SpecError, match="passes are counted"):
        run.passes("raw")


@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients"])
def test_they_point_at_what_was_asked_about(method: str) -> None:
    scene, questions = va.scene.split_item("test", 0, 3)
    asked = next(q for q in questions if q.text == "Which color is the diamond?")
    run = va.load("scene").ask(scene.image, asked.text)
    x, y = run.map(method=method).peak_xy
    x0, y0, x1, y1 = scene.objects[asked.targets[0]].box_xyxy
    assert run.answer == asked.answer
    assert x0 < x < x1
    assert y0 < y < y1


def test_a_model_that_reads_one_cell_is_explained_by_that_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    run = made("llava")
    layout = run.trace.layout
    painted = int(image_at(run)[5])

    def toy(pixel_values: Any = None, **inputs: Any) -> Any:
        views = pixel_values.reshape(3, *pixel_values.shape[-2:])
        _, cols = layout.images[0].tiles[0].grid_hw
        size = views.shape[-1] // cols
        row, col = int(layout.row[painted]), int(layout.col[painted])
        seen = views[:, row * size : (row + 1) * size, col * size : (col + 1) * size].std()
        logits = torch.zeros(1, len(layout), 300)
        for token in run.trace.find("red", part="answer").tokens:
            logits[0, token - 1, layout.input_ids[token]] = seen
        return type("Out", (), {"logits": logits})()

    monkeypatch.setattr(run.vlm.model, "forward", toy)
    for options in ({"method": "occlusion", "batch": 1}, {"method": "integrated_gradients", "n_steps": 4}):
        found = vector(run, "red", **options)
        assert int(np.argmax(found)) == 5
        assert found[5] > 10 * np.abs(np.delete(found, 5)).max()


# -- what cannot be asked ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients"])
def test_bad_requests(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made("llava")
    refused: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"target": "x"}, SpecError, "target must be one of"),
        ({"baseline": "noise"}, SpecError, "baseline must be one of mean, black, blur"),
        ({"values": "all"}, SpecError, "values must be one of"),
        ({"sinks": "drop"}, SpecError, "reads no attention"),
        ({"layers": [1]}, SpecError, "layers goes with"),
        ({"part": "question"}, SpecError, "explains what was written"),
    ]
    for options, kind, message in refused:
        with pytest.raises(kind, match=message):
            run.map("cup", method=method, **options)
    with pytest.raises(SpecError, match="of the question"):
        run.map("Is", method=method)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(DependencyMissing, match=r"vlmattn\[attribution\]"):
        run.map("red", method=method)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"method": "occlusion", "cells": 0}, SpecError, "cells must be a whole number"),
        ({"method": "occlusion", "cells": 1.5}, SpecError, "cells must be a whole number"),
        ({"method": "occlusion", "batch": True}, SpecError, "batch must be a whole number"),
        ({"method": "occlusion", "most_passes": 3}, BudgetExceeded, "more than most_passes=3.*cells"),
        ({"method": "occlusion", "n_steps": 3}, SpecError, "method='integrated_gradients' only"),
        ({"method": "integrated_gradients", "n_steps": 0}, SpecError, "n_steps must be a whole number"),
        ({"method": "integrated_gradients", "of": "words"}, SpecError, "of must be one of"),
    ],
)
def test_bad_options(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        made("llava").map("red", **options)


def test_several_tokens_are_summed_and_one_is_itself() -> None:
    run = made("llava")
    whole = vector(run, "red", method="occlusion", cells=2)
    tokens = [t - run.trace.layout.answer_start for t in run.trace.find("red", part="answer").tokens]
    parts = [vector(run, token, method="occlusion", cells=2) for token in tokens]
    assert np.allclose(whole, np.sum(parts, axis=0), atol=1e-5)
    steps = run.map("red", method="occlusion", cells=2).patch_map.provenance.steps[-1]
    assert "sum over 3 tokens" in steps
    assert "signed" in steps
    single = run.vlm.ask(PICTURE, QUESTION, answer="x")
    assert single.map(method="occlusion", cells=4).patch_map.total != 0
    assert single.map(method="integrated_gradients", n_steps=2).patch_map.total != 0


def test_damaged_weights_are_one_error() -> None:
    vlm = Vlm(*build("llava"), name="broken")
    run = vlm.ask(PICTURE, QUESTION, answer=ANSWER)
    with torch.no_grad():
        vlm.model.get_output_embeddings().weight[0] = torch.nan
    for options in ({"method": "occlusion", "cells": 4}, {"method": "integrated_gradients", "n_steps": 2}):
        with pytest.raises(MapError, match="NaN"):
            run.map("red", **options)


def test_videos_are_refused_with_another_method() -> None:
    video = va.Video([PICTURE[:64, 20 * n : 20 * n + 96] for n in range(4)], fps=2.0, name="walk.mp4")
    run = Vlm(*TINY["qwen2_5_vl"](), name="clips").ask(video, QUESTION, answer=ANSWER)
    assert run.map("red", method="tam", frame=0).patch_map.total >= 0
    assert len(run.patch_words(-1).place) == len(image_at(run))
    for method in ("occlusion", "integrated_gradients"):
        with pytest.raises(SpecError, match="not videos: take method='raw' or 'tam'"):
            run.map("red", method=method)
