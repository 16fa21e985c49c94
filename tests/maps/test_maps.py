"""Maps against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.traces import layout, trace
from vlmattn.core.errors import MapError, SpecError
from vlmattn.grid import PatchMap
from vlmattn.maps import NORMALISATIONS, PRESETS, normalise, raw_attention, relative, value_weighted

# Mean over layers (1, 2) and heads (1, 3): 1.5 · 2 = 3 for a row at position 0, per column number.
UNIT = 3 / 10000


def equals(one: PatchMap, factor: float) -> bool:
    # Image tokens in sequence order are 1 … 6; the base tile is stored column by column.
    wanted = ([[1, 3], [2, 4]], [[5, 6]])
    return all(np.allclose(v, np.array(w) * factor, rtol=1e-6) for v, w in zip(one.values, wanted, strict=True))


@pytest.mark.parametrize(
    ("what", "options", "factor"),
    [
        (0, {}, UNIT * 16),  # answer token 0 is at 16; the row that predicts it at 15
        (0, {"convention": "query"}, UNIT * 17),
        ("cup", {}, UNIT * 13),
        ("red cup", {}, UNIT * 12.5),
        (None, {}, UNIT * (16 + 17 + 18 + 19) / 4),
        (0, {"layers": [0]}, UNIT * 16 / 1.5),
        (0, {"layers": -1}, UNIT * 16 * 2 / 1.5),
        (0, {"heads": [1]}, UNIT * 16 * 3 / 2),
        (0, {"over_heads": "max"}, UNIT * 16 * 3 / 2),
        (0, {"over_layers": "max"}, UNIT * 16 * 2 / 1.5),
        (None, {"over_rows": "max"}, UNIT * 19),
    ],
)
def test_raw_attention(what: Any, options: dict[str, Any], factor: float) -> None:
    assert equals(raw_attention(trace(), what, **options), factor)


def test_equal_words_have_their_own_maps() -> None:
    first, second = (raw_attention(trace(), "red", part="question", occurrence=n) for n in (1, 2))
    assert first.total < second.total
    assert first.label == "red (question, 1 of 2)"


def test_float16_storage_is_summed_in_float32() -> None:
    exact = raw_attention(trace(), None)
    stored = raw_attention(trace(attn_lhqk=trace().attn_lhqk.astype(np.float16)), None)
    assert stored.values[0].dtype == np.float32
    assert np.allclose(exact.values[0], stored.values[0], rtol=1e-3)


def test_provenance_says_what_was_done() -> None:
    said = raw_attention(trace(), "cup", layers="middle").provenance
    assert said.layers == "middle: layers 0-1 of 2 (published: 8-23 of 32)"
    assert said.convention == "query"
    assert said.reduction == "mean over heads, mean over rows, mean over layers"
    assert said.steps == ("raw attention of 'cup'",)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": [5]}, SpecError, r"layers \[5\] were not kept"),
        ({"layers": "best"}, SpecError, "there are all, middle"),
        ({"heads": [9]}, SpecError, r"heads \[9\] were not kept"),
        ({"heads": []}, SpecError, "none"),
        ({"image": 3}, SpecError, "picture 3 does not exist"),
        ({"over_heads": "sum"}, SpecError, "over_heads must be"),
    ],
)
def test_raw_attention_refuses(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        raw_attention(trace(), 0, **options)


def test_out_of_window_is_carried_and_a_picture_out_of_it_refused() -> None:
    seen = np.ones((2, 12, 6), dtype=bool)
    seen[:, :, 1] = False
    seen[0, :, 2] = False
    one = raw_attention(trace(visible_lqk=seen), 0)
    assert one.visible is not None
    assert one.visible[0].tolist() == [[True, True], [False, True]]
    with pytest.raises(MapError, match="outside the attention window"):
        raw_attention(trace(visible_lqk=np.zeros((2, 12, 6), dtype=bool)), 0)


@pytest.mark.parametrize(
    ("name", "depth", "layers"),
    [
        ("vicrop", 32, (14,)),
        ("vicrop", 4, (1,)),
        ("carve", 32, tuple(range(20, 26))),
        ("carve", 40, tuple(range(25, 32))),
        ("all", 4, (0, 1, 2, 3)),
        ("middle", 4, (1, 2)),
        ("hgai", 1, (0,)),
        ("last_half", 32, tuple(range(16, 32))),
    ],
)
def test_presets_move_with_depth(name: str, depth: int, layers: tuple[int, ...]) -> None:
    assert PRESETS[name].at_depth(depth) == layers


def test_value_weighting_multiplies_each_head_and_patch() -> None:
    norms = np.arange(1, 25, dtype=np.float32).reshape(2, 2, 6)
    one = trace(value_norm_lhk=norms)
    by_hand = (one.attn_lhqk[:, :, 7] * norms).mean(axis=(0, 1))  # row 7 is position 15
    got = value_weighted(one, 0)
    assert np.allclose(got.values[0], [[by_hand[0], by_hand[2]], [by_hand[1], by_hand[3]]])
    assert np.allclose(got.values[1], [by_hand[4:]])
    only = value_weighted(one, 0, heads=[1], layers=[1])
    assert np.allclose(only.values[1], [one.attn_lhqk[1, 1, 7, 4:] * norms[1, 1, 4:]])


def test_value_weighting_says_what_to_keep() -> None:
    with pytest.raises(MapError, match="value_norms='projected'"):
        value_weighted(trace(), 0)


def patch_map(*values: float) -> PatchMap:
    return PatchMap((np.array([values[:2], values[2:4]]), np.array([values[4:6]])), layout().images[0], label="x")


def test_relative_divides_with_a_floor() -> None:
    task, generic = patch_map(1, 2, 3, 4, 5, 6), patch_map(1, 1, 1, 1, 2, 0)
    assert np.allclose(relative(task, generic, floor=0.5).values[1], [[2.5, 12]])
    auto = relative(task, generic)
    assert np.allclose(auto.values[1], [[2.5, 60]])
    assert "floor 0.1" in auto.provenance.steps[-1]


@pytest.mark.parametrize(
    ("generic", "floor", "error", "message"),
    [
        (patch_map(0, 0, 0, 0, 0, 0), "auto", MapError, "zero everywhere"),
        (patch_map(1, 1, 1, 1, 1, 0), 0.0, MapError, "floor above 0"),
        (patch_map(1, 1, 1, 1, 1, 1), -1.0, SpecError, "floor must be >= 0"),
    ],
)
def test_relative_refuses(generic: PatchMap, floor: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        relative(patch_map(1, 2, 3, 4, 5, 6), generic, floor=floor)


@pytest.mark.parametrize(
    ("how", "values"),
    [
        ("none", [1, 1, 2, 4, 4, 8]),
        ("share", [0.05, 0.05, 0.1, 0.2, 0.2, 0.4]),
        ("uniform", [0.3, 0.3, 0.6, 1.2, 1.2, 2.4]),
        ("max", [0.125, 0.125, 0.25, 0.5, 0.5, 1]),
        ("minmax", [0, 0, 1 / 7, 3 / 7, 3 / 7, 1]),
        ("rank", [0.1, 0.1, 0.4, 0.7, 0.7, 1]),
    ],
)
def test_normalisations(how: str, values: list[float]) -> None:
    got = normalise(patch_map(1, 1, 2, 4, 4, 8), how)
    assert np.allclose(np.concatenate([v.ravel() for v in got.values]), values)
    assert got.provenance.normalisation == ("" if how == "none" else how)


@pytest.mark.parametrize("how", NORMALISATIONS)
def test_a_flat_map_is_not_stretched(how: str) -> None:
    flat = patch_map(2, 2, 2, 2, 2, 2)
    if how in ("none", "share", "uniform"):
        assert len(set(normalise(flat, how).values[0].ravel())) == 1
    else:
        with pytest.raises(MapError, match="flat"):
            normalise(flat, how)


def test_normalisations_that_do_not_exist_and_empty_maps() -> None:
    with pytest.raises(SpecError, match="there are none, share"):
        normalise(patch_map(1, 2, 3, 4, 5, 6), "softmax")
    with pytest.raises(MapError, match="sums to zero"):
        normalise(patch_map(0, 0, 0, 0, 0, 0), "share")
