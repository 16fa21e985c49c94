"""Rollout, flow, gradient and relevancy of a run's words against whole eager matrices, family by family."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

import vlmattn as va
from tests.maps.eager_pass import EagerPass, close, eager_pass
from tests.tiny import SEVERAL, TINY
from tests.tiny_models import FAMILIES, build
from vlmattn.api.follow import with_answers
from vlmattn.api.vlm import Vlm
from vlmattn.api.whole import _shared
from vlmattn.core.errors import MapError, SpecError, VlmattnError
from vlmattn.maps.attention_flow import attention_flow

PICTURE, OTHER = data.coffee()[:120, :200], data.chelsea()[:90, :90]
QUESTION, ANSWER = "Is the cup red?", "a red cup"
METHODS = ("rollout", "flow", "gradient", "relevancy")
EXACT = ("llava", "llava_next", "qwen2_5_vl", "gemma3", "paligemma2", "inkling2", "idefics3", "internvl")


@lru_cache(maxsize=2)
def made(kind: str, pictures: int = 1) -> va.Run:
    vlm = Vlm(*(build(kind) if kind in FAMILIES else TINY[kind]()), name=kind)
    return vlm.ask([PICTURE, OTHER][:pictures], QUESTION, answer=ANSWER)


def plainly(run: va.Run, rows: list[int] | None = None, of: str = "logit") -> EagerPass:
    layout, vlm = run.trace.layout, run.vlm
    ids = layout.input_ids[layout.answer_start :].tolist()
    longer, _ = with_answers(vlm.adapter, vlm.encode([run.pictures], [QUESTION]), [ids])
    chosen = None if rows is None else [int(layout.input_ids[row + 1]) for row in rows]
    return eager_pass(vlm.model, longer.inputs, rows or (), chosen, of)


def rows_of(run: va.Run, word: str, part: Any = "answer") -> list[int]:
    tokens = run.trace.find(word, part=part).tokens
    return [t - 1 for t in tokens] if part == "answer" else list(tokens)


def vector(run: va.Run, word: Any, *, image: int = 0, **options: Any) -> np.ndarray:
    """Values at the image tokens of one picture, in the order of the prompt."""
    found = run.map(word, image=image, **options).patch_map
    layout = run.trace.layout
    at = layout.image_positions[layout.image[layout.image_positions] == image]
    return np.array([found.values[layout.tile[p]][layout.row[p], layout.col[p]] for p in at])


def at_picture(run: va.Run, rows: np.ndarray, image: int = 0) -> np.ndarray:
    layout = run.trace.layout
    at = layout.image_positions[layout.image[layout.image_positions] == image]
    return np.asarray(rows.mean(axis=0)[at])


@pytest.mark.parametrize("kind", EXACT)
def test_relevancy_and_gradient_are_those_of_whole_matrices(kind: str) -> None:
    run = made(kind)
    rows = rows_of(run, "red")
    for target in ("logit", "log_probability"):
        plain = plainly(run, rows, target)
        close(vector(run, "red", method="relevancy", target=target), at_picture(run, plain.relevancy()[rows]))
        wanted = (plain.weighted(0, [1, 3]) + plain.weighted(2, [1, 3])) / 2
        options = {"method": "gradient", "target": target, "layers": [0, 2], "heads": [1, 3]}
        close(vector(run, "red", **options), at_picture(run, wanted[rows]))


@pytest.mark.parametrize("kind", EXACT)
def test_rollout_and_flow_are_those_of_whole_matrices(kind: str) -> None:
    run = made(kind)
    plain = plainly(run)
    for word, part in (("cup", "answer"), ("Is", "question")):
        rows = rows_of(run, word, part)
        close(vector(run, word, part=part, method="rollout"), at_picture(run, plain.rollout()[rows]))
        options = {"start_layer": 1, "residual": 0.3, "without_first": True}
        wanted = plain.rollout(start=1, residual=0.3, without_first=True)[rows]
        close(vector(run, word, part=part, method="rollout", **options), at_picture(run, wanted))
    layout = run.trace.layout
    at = [int(p) for p in layout.image_positions if layout.image[p] == 0]
    row = rows_of(run, "a")[0]
    capacities = np.stack([0.5 * a.mean(0) + 0.5 * np.eye(len(layout)) for a in plain.attention_lhqk])
    found = vector(run, run.trace.find("a", part="answer"), method="flow", cells="all")
    np.testing.assert_allclose(found[:3], attention_flow(capacities, row, at[:3]), atol=2e-5)
    assert found.max() > 0


def test_the_second_of_two_pictures() -> None:
    run = made("llava", 2)
    rows = rows_of(run, "cup")
    plain = plainly(run, rows)
    for image in (0, 1):
        close(vector(run, "cup", image=image, method="relevancy"), at_picture(run, plain.relevancy()[rows], image))
        close(vector(run, "cup", image=image, method="rollout"), at_picture(run, plain.rollout()[rows], image))
    flows = [vector(run, "cup", image=image, method="flow", cells=2) for image in (0, 1)]
    assert all(len(set(flow.tolist())) == 4 for flow in flows)


def test_a_phrase_is_the_sum_of_its_scores_and_the_mean_of_its_rows() -> None:
    run = made("llava")
    rows = rows_of(run, "red cup")
    assert len(rows) > 2
    wanted = plainly(run, rows).relevancy()[rows]
    close(vector(run, "red cup", method="relevancy"), at_picture(run, wanted))
    shares = wanted / wanted.sum(-1, keepdims=True)
    close(vector(run, "red cup", method="relevancy", normalised=True), at_picture(run, shares))


def test_an_answer_of_one_token() -> None:
    run = made("llava").vlm.ask(PICTURE, QUESTION, answer=(65,))
    for method in METHODS:
        assert vector(run, 0, method=method).max() > 0
    plain = plainly(run, [len(run.trace.layout) - 2])
    close(vector(run, 0, method="relevancy"), plain.relevancy()[-2][run.trace.layout.image_positions])


def test_rollout_of_all_words_takes_one_pass() -> None:
    run = made("llava").vlm.ask(PICTURE, QUESTION, answer=ANSWER)
    passes = []
    counting = run.vlm.model.register_forward_hook(lambda *_: passes.append(1))
    for word, part in (("red", None), ("cup", "answer"), ("the", None), (None, None)):
        run.map(word, method="rollout", **({"part": part} if part else {}))
    counting.remove()
    assert len(passes) == 1


@pytest.mark.parametrize("method", METHODS)
def test_maps_of_all_tokens_take_one_pass_and_are_those_of_each(method: str) -> None:
    run = made("llava").vlm.ask(PICTURE, QUESTION, answer=ANSWER)
    options = {"cells": 2} if method == "flow" else {}
    with_text = np.flatnonzero(run.trace.layout.char_span[run.trace.layout.answer_start :, 0] >= 0)
    alone = [run.map(int(n), method=method, **options).patch_map.values[0] for n in with_text]
    passes = []
    run.carried.clear()
    counting = run.vlm.model.register_forward_hook(lambda *_: passes.append(1))
    together = [look.patch_map.values[0] for look in run.token_maps(method=method, **options)]
    assert len(passes) == 1
    assert len(together) == len(alone) > 3
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6 * other.max())
    told = run.grounding(method=method)
    assert [word.peak_xy is not None for word in told] == [True] * 3
    counting.remove()
    assert len(passes) == (1 if method == "rollout" else 2)
    assert _shared.get() is None
    with pytest.raises(SpecError):
        run.token_maps(method=method, heads=[9])
    assert _shared.get() is None


def test_rollout_without_the_columns_of_sinks(monkeypatch: pytest.MonkeyPatch) -> None:
    run = made("llava").vlm.ask(PICTURE, QUESTION, answer=ANSWER)
    layout, plain, rows = run.trace.layout, plainly(run), rows_of(run, "cup")
    sinks = run.sinks("received", alpha=2.0)
    assert {token.kind for token in sinks.tokens} == {"text", "visual"}
    monkeypatch.setattr(va.Run, "sinks", lambda run: sinks)
    whole = np.eye(len(layout))
    for layer in range(len(plain.attention_lhqk)):
        mixed = plain.mixed(layer)
        out = np.zeros(len(layout), dtype=bool)
        out[: sinks.is_sink_ln.shape[1]] = sinks.is_sink_ln[layer]
        mixed = np.where(out & ~np.eye(len(layout), dtype=bool), 0, mixed)
        mixed = mixed / mixed.sum(-1, keepdims=True)
        whole = (mixed + np.eye(len(layout))) / 2 @ whole
    found = vector(run, "cup", method="rollout", sinks="drop")
    close(found, at_picture(run, whole[rows]))
    assert np.abs(found - vector(run, "cup", method="rollout")).max() > 1e-4
    with pytest.raises(SpecError, match="sinks='only'"):
        run.map("cup", method="rollout", sinks="only")


@pytest.mark.parametrize("method", METHODS)
def test_what_the_numbers_are_is_told(method: str) -> None:
    look = made("llava").map("red", method=method)
    told = look.patch_map.provenance
    assert told.method == method
    assert "one pass" in str(told.to_dict())
    assert (look.patch_map.values[0] >= 0).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sinks": "only"}, "no map with sinks"),
        ({"heads": [9]}, "head"),
        ({"heads": "no such"}, "head"),
        ({"residual": 2.0}, "residual"),
        ({"start_layer": 8}, "start_layer"),
        ({"cells": 0}, "cells"),
        ({"cells": "few"}, "cells"),
        ({"target": "loss"}, "target"),
        ({"normalised": "yes"}, "normalised"),
        ({"over_heads": "max"}, "over_heads"),
        ({"rows": "answer"}, "rows"),
    ],
)
def test_options_that_cannot_be_used(method: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        made("llava").map("red", method=method, **options)


@pytest.mark.parametrize("method", ["gradient", "relevancy"])
def test_words_of_the_question_have_no_score(method: str) -> None:
    with pytest.raises(SpecError, match="of the question"):
        made("llava").map("the", method=method)


def test_a_video_has_a_map_per_frame() -> None:
    video = va.Video([data.coffee()[:64, 30 * n : 30 * n + 96] for n in range(3)], fps=2.0, name="walk.mp4")
    run = Vlm(*TINY["qwen2_vl"](), name="qwen2_vl").ask([PICTURE, video], QUESTION, answer=ANSWER)
    for method in METHODS:
        look = run.map("red", method=method, image=1, **({"cells": 2} if method == "flow" else {}))
        assert isinstance(look, va.VideoLook)
        assert len(look.frames()) == 3
        assert look.patch_map.total > 0
    rows = rows_of(run, "red")
    close(vector(run, "red", image=1, method="relevancy"), at_picture(run, plainly(run, rows).relevancy()[rows], 1))


def test_words_before_the_picture_do_not_see_it() -> None:
    run = made("llava")
    early = next(w for w in made("llava_next").words("question"))
    assert made("llava_next").map(early, method="rollout").patch_map.total > 0
    parts = [{"type": "text", "text": "Is it so? "}, {"type": "image"}, {"type": "text", "text": " What is it?"}]
    moved = run.vlm.ask(PICTURE, [{"role": "user", "content": parts}], answer=ANSWER)
    with pytest.raises(MapError, match="stands before picture 0"):
        moved.map("so", method="rollout")


def test_two_threads_have_passes_of_their_own() -> None:
    run = made("llava").vlm.ask(PICTURE, QUESTION, answer=ANSWER)
    wanted = [look.patch_map.values[0] for look in run.token_maps(method="relevancy")]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: run.token_maps(method="relevancy"), range(2)))
    for looks in found:
        for look, one in zip(looks, wanted, strict=True):
            np.testing.assert_allclose(look.patch_map.values[0], one, rtol=1e-4, atol=1e-6 * one.max())
    assert _shared.get() is None


def test_steered_runs_are_refused() -> None:
    run = made("llava").vlm.ask(PICTURE, QUESTION, answer=ANSWER, steering=[va.steering.VAR(p=0.6)])
    for method in METHODS:
        with pytest.raises(SpecError, match="without steering"):
            run.map("red", method=method)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SEVERAL)
def test_every_family_has_them_or_says_why_not(kind: str) -> None:
    run = Vlm(*TINY[kind](), name=kind).ask(Image.fromarray(PICTURE), QUESTION, answer=ANSWER)
    layout, said = run.trace.layout, {}
    for method in METHODS:
        try:
            found = run.map("red", method=method, **({"cells": 2} if method == "flow" else {})).patch_map
        except VlmattnError as error:
            said[method] = str(error)
        else:
            assert all(np.isfinite(v).all() and (v >= 0).all() for v in found.values)
            assert found.total > 0
    assert not any(weight.grad is not None for weight in run.vlm.model.parameters())
    assert torch.is_grad_enabled()
    sites = va.capture.model_sites(run.vlm.model)
    if len(layout.latent_positions):
        assert all("resampler" in said[method] for method in METHODS)
    elif layout.memory:
        assert all("beside the prompt" in said[method] for method in ("rollout", "flow", "relevancy"))
    elif sites.depth != len(sites.attention):
        assert all("have no attention" in said[method] for method in ("rollout", "flow", "relevancy"))
        assert "gradient" not in said
    else:
        assert said == {}
