"""Curves over an answer, and joint embeddings, equal plain computations on whole matrices."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import vlmattn as va
from tests.capture.asked import loaded as tiny_of
from tests.heads.by_hand import FAMILIES, by_hand, loaded, picture, run_of
from vlmattn.api import joint_embedding, reasoning_of
from vlmattn.api.reading import _points
from vlmattn.core.errors import DependencyMissing, FileError, MapError, SpecError
from vlmattn.core.layout import TokenKind, plain_layout
from vlmattn.heads import aligned, reduced, trend
from vlmattn.steering import KnockOut

W, NEAR, FAR = 6, 2, 9


def plain(rows_hnn: np.ndarray, start: int) -> dict[str, np.ndarray]:
    """By definition, one token at a time."""
    heads, count = rows_hnn.shape[:2]
    out = {name: np.full((heads, count - start), np.nan) for name in ("distance", "span", "influence")}
    for h in range(heads):
        for t in range(start, count):
            row = rows_hnn[h, t]
            out["distance"][h, t - start] = sum(row[s] * min(t - s, W) for s in range(t + 1))
            out["span"][h, t - start] = sum(row[s] * (t - s) for s in range(t + 1))
            later = [rows_hnn[h, u, t] for u in range(t + NEAR, min(t + FAR, count - 1) + 1)]
            out["influence"][h, t - start] = np.mean(later) if later else np.nan
    return out


@pytest.mark.parametrize("family", FAMILIES)
def test_curves_equal_their_definitions_on_whole_matrices(family: str) -> None:
    run = run_of(family)
    layout, start = run.trace.layout, run.trace.layout.answer_start
    found = reasoning_of(run, window=W, near=NEAR, far=FAR)
    with by_hand(run) as (_, kept):
        rows = {layer: part["rows"].double().numpy() for layer, part in kept.items()}
    for slot, layer in enumerate(found.layers):
        want = plain(rows[layer], start)
        assert np.allclose(found.distance_lht[slot], want["distance"], atol=1e-5)
        assert np.allclose(found.span_lh[slot], want["span"].mean(1), atol=1e-4)
        assert np.allclose(found.influence_lht[slot], want["influence"], atol=1e-5, equal_nan=True)
    whole = np.stack([rows[layer] for layer in found.layers])
    image = layout.kinds == TokenKind.IMAGE
    assert np.allclose(found.image_share(), whole[:, :, start:, image].sum(-1).mean((0, 1)), atol=1e-5)
    new = np.stack([whole[:, :, t, start : t + 1].mean(-1) for t in range(start, len(layout))], -1)
    old = whole[:, :, start:, image].mean(-1)
    assert np.allclose(found.lookback(), old / (old + new), atol=1e-5)
    received = whole[:, :, start:].mean((0, 1, 2))
    for name, value in found.position_profile("rows").items():
        assert value == pytest.approx(received[image & (layout.row == int(name))].mean(), abs=1e-6)
    order = np.argsort(found.span_lh.reshape(-1), kind="stable")[:2]
    assert np.allclose(found.waad("local", 2 / 12), found.distance_lht.reshape(12, -1)[order].mean(0))


def test_memory_grows_with_tokens_and_parts_equal_the_whole(monkeypatch: Any) -> None:
    import vlmattn.capture.watching as watching

    run = run_of("llava")
    whole = reasoning_of(run, window=W, near=NEAR, far=FAR)
    monkeypatch.setattr(watching, "rows_per_chunk", lambda _call: 3)
    parts = reasoning_of(run, window=W, near=NEAR, far=FAR)
    assert np.allclose(parts.influence_lht, whole.influence_lht, equal_nan=True)
    assert np.allclose(parts.distance_lht, whole.distance_lht)
    sizes = [getattr(whole, name).size for name in ("distance_lht", "influence_lht", "received_lhn", "mass_lhts")]
    assert max(sizes) <= 12 * len(run.trace.layout) * len(whole.segments)


def test_what_it_says() -> None:
    found = reasoning_of(run_of("llava"), window=W, near=NEAR, far=FAR)
    told = found.to_dict()
    assert json.dumps(told)
    assert told["fai"][-1] is None
    assert len(told["tokens"]) == found.tokens
    assert len(found.table().splitlines()) == found.tokens + 1
    line = found.image_trend()
    assert line.low <= line.slope <= line.high
    assert set(found.position_profile("segments")) >= {"image:0", "question"}
    assert list(found.position_profile("images")) == ["0"]
    assert 0 <= np.nanmin(found.lookback("prompt")) <= np.nanmax(found.lookback("prompt")) <= 1
    with pytest.raises(SpecError, match="along"):
        found.position_profile("diagonal")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="context"):
        found.lookback("question")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="'local'"):
        found.waad("near")  # type: ignore[arg-type]


def test_a_trend_equals_least_squares() -> None:
    values = np.array([0.5, np.nan, 0.4, 0.35, 0.1])
    at = np.array([0, 2, 3, 4])
    assert trend(values).slope == pytest.approx(np.polyfit(at, values[at], 1)[0])
    with pytest.raises(MapError, match="three tokens"):
        trend([1.0, 2.0])
    with pytest.raises(SpecError, match="level"):
        trend([1.0, 2.0, 3.0], level=2)


@pytest.mark.parametrize(
    ("answer", "options", "error", "said"),
    [
        ([50], {}, MapError, "1 token has no course"),
        ([50, 51, 52], {}, MapError, "choose near= below 3"),
        ([50, 51, 52], {"near": 5, "far": 2}, SpecError, "far at least near"),
        ([50, 51, 52], {"window": 0, "near": 1}, SpecError, "whole numbers from 1"),
        ([50, 51, 52], {"near": 1, "layers": [77]}, SpecError, "no such attention"),
    ],
)
def test_answers_and_windows_that_do_not_fit(answer: Any, options: Any, error: Any, said: str) -> None:
    run = loaded("llava").ask(picture(), "Is it?", answer=answer)
    with pytest.raises(error, match=said):
        reasoning_of(run, **options)


def test_steered_runs_and_prompts_without_pictures() -> None:
    run = loaded("llava").ask(picture(), "Is it?", answer=[50, 51, 52], steering=[KnockOut()])
    with pytest.raises(SpecError, match="was steered"):
        reasoning_of(run, near=1)
    run = loaded("llava").ask(picture(), "Is it?", answer=[50, 51, 52])
    found = reasoning_of(run, near=1)
    layout = found.layout
    alone = replace(found, layout=replace(plain_layout(layout.input_ids), answer_start=layout.answer_start))
    assert np.isfinite(alone.waad()).all()
    assert alone.to_dict()["image_share"] is None
    for ask in (alone.image_share, alone.image_trend, alone.lookback, alone.position_profile):
        with pytest.raises(MapError, match="no picture"):
            ask()
    with pytest.raises(SpecError, match="no image tokens"):
        _points(alone.layout, None)


def test_cross_attention_and_hybrids() -> None:
    run = tiny_of("mllama").ask(picture(), "Is it?", answer=[20, 21, 22, 23])
    found = reasoning_of(run, near=1)
    cross = {s.layer_idx for s in va.capture.model_sites(run.vlm.model).attention if s.kind == "cross"}
    assert not cross & set(found.layers)
    with pytest.raises(MapError, match="keys beside"):
        found.image_share()
    assert {layer for layer, _ in joint_embedding(run).heads} == cross
    hybrid = tiny_of("lfm2_vl").ask(picture(), "Is it?", answer=[20, 21, 22, 23])
    assert reasoning_of(hybrid, near=1).layers == tuple(
        s.layer_idx for s in va.capture.model_sites(hybrid.vlm.model).attention
    )


# -- joint embedding ---------------------------------------------------------------------------------------------------


def softmax(scores: np.ndarray) -> np.ndarray:
    grown = np.exp(scores - scores.max(-1, keepdims=True))
    return grown / grown.sum(-1, keepdims=True)


@pytest.mark.parametrize("move", [True, False])
@pytest.mark.parametrize("scale", [True, False])
def test_alignment_leaves_every_softmax(move: bool, scale: bool) -> None:
    rng = np.random.default_rng(1)
    queries, keys = rng.normal(size=(5, 8)) * 3, rng.normal(size=(7, 8)) + 2
    q, k = aligned(queries, keys, move=move, scale=scale)
    assert np.allclose(softmax(q @ k.T), softmax(queries @ keys.T), atol=1e-10)
    if scale:
        assert np.linalg.norm(q, axis=1).mean() == pytest.approx(np.linalg.norm(k, axis=1).mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_points_equal_hooked_queries_and_keys(family: str) -> None:
    run = run_of(family)
    found = joint_embedding(run, [(1, 3), (2, 0)], dims=3)
    queries, keys = found.positions_n[~found.is_key_n], found.positions_n[found.is_key_n]
    assert keys.tolist() == run.trace.layout.image_positions.tolist()
    with by_hand(run) as (_, kept):
        for slot, (layer, head) in enumerate(found.heads):
            q = kept[layer]["query"][head, queries].numpy() / np.sqrt(16)
            k = kept[layer]["key"][head // 2, keys].numpy()
            points = np.concatenate(aligned(q, k))
            centred = points - points.mean(0)
            values, axes = np.linalg.eigh(centred.T @ centred)
            for c in range(3):
                want = centred @ axes[:, -1 - c]
                got = found.xy_hnc[slot, :, c]
                assert min(np.abs(got - want).max(), np.abs(got + want).max()) < 1e-3
                assert (got**2).sum() == pytest.approx(values[-1 - c], rel=1e-4)


def test_it_is_saved_with_labels_and_places(tmp_path: Any) -> None:
    found = joint_embedding(run_of("llava"), [(0, 1)])
    with found.save(tmp_path / "e.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found.labels)
    assert rows[-1]["kind"] == "image"
    assert int(rows[-1]["row"]) == run_of("llava").trace.layout.row[found.positions_n[-1]]
    assert json.loads(found.save(tmp_path / "e.json").read_text(encoding="utf-8"))["points"][0]["role"] == "query"
    held = np.load(found.save(tmp_path / "e.npz"))
    assert np.array_equal(held["xy_hnc"], found.xy_hnc)
    with pytest.raises(FileError, match="npz"):
        found.save(tmp_path / "e.png")
    with pytest.raises(FileError, match="cannot write"):
        found.save(tmp_path / "none" / "e.csv")


def test_other_reductions_and_bad_ones(monkeypatch: Any) -> None:
    points = np.random.default_rng(0).normal(size=(20, 5))
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(DependencyMissing, match="embedding"):
        reduced(points, "umap")
    for bad in ({"how": "lda"}, {"dims": 4}):
        with pytest.raises(SpecError, match="reduction"):
            reduced(points, **bad)
    with pytest.raises(SpecError, match="finite points"):
        reduced(points[:1])


def test_heads_and_rows_that_do_not_exist() -> None:
    run = run_of("llava")
    for heads, said in (([(0, 99)], "head 99"), ([(99, 0)], "no such"), ([3], "pairs"), ([], "pairs")):
        with pytest.raises(SpecError, match=said):
            joint_embedding(run, heads)
    with pytest.raises(SpecError, match="rows"):
        joint_embedding(run, [(0, 0)], rows=[10**6])
