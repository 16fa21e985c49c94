"""Maps against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.traces import layout, trace
from vlmattn.core.errors import MapError, SpecError
from vlmattn.grid import PatchMap
from vlmattn.maps import NORMALISATIONS, PRESETS, ROW_PRESETS, normalise, raw_attention, relative, value_weighted
from vlmattn.trace import Span

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
    assert said.layers == "middle: layers 0-1 of 2 (our choice: 8-23 of 32)"
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


@pytest.mark.parametrize(
    ("kept", "layers", "said"),
    [
        ((10, 12), "var", "var: layers 10, 12 of 32, 2 of the 3 it means: others were not kept (See What You Are Told"),
        ((20, 25), "carve", "carve: layers 20, 25 of 32, 2 of the 6 it means: others were not kept (Focusing by"),
        ((14, 31), "vicrop", "vicrop: layers 14 of 32 (MLLMs Know Where to Look, ICLR 2025, arXiv 2502.17422, LLaVA"),
        ((14, 31), -1, "layers 31"),
        ((14, 31), [-1, 14], "layers 14, 31"),
        ((14, 31), None, "layers 14, 31 of 32"),
    ],
)
def test_layers_count_by_the_models_depth_and_not_by_what_was_kept(
    kept: tuple[int, ...], layers: Any, said: str
) -> None:
    assert raw_attention(trace(layers=kept, depth=32), 0, layers=layers).provenance.layers.startswith(said)


@pytest.mark.parametrize(
    ("kept", "layers", "message"),
    [
        ((10, 15), "carve", r"means layers 20-25 of 32 here, none of which was kept; kept are \[10, 15\]"),
        ((10, 15), "vicrop", "means layers 14 of 32"),
        ((10, 15), -1, r"layers \[31\] were not kept; kept are \[10, 15\]"),
    ],
)
def test_layers_that_were_not_kept_are_refused(kept: tuple[int, ...], layers: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        raw_attention(trace(layers=kept, depth=32), 0, layers=layers)


@pytest.mark.parametrize(("name", "said"), [("all", "all: layers 0-1 of 2"), (None, "all 2 layers")])
def test_every_layer_is_nobodys_finding(name: str | None, said: str) -> None:
    assert raw_attention(trace(), 0, layers=name).provenance.layers == said


def test_a_depth_that_cannot_be_is_refused() -> None:
    with pytest.raises(MapError, match="depth must be at least 13"):
        trace(layers=(10, 12), depth=12)


def test_heads_of_a_published_model_count_once_each() -> None:
    # Layers 14 and 20 of 32; preset heads 14.24 and 14.13 are kept in layer 14.
    one = trace(layers=(14, 20), heads=((24, 13), (0, 1)), depth=32)
    got = raw_attention(one, 0, heads="localization")
    assert equals(got, UNIT * 16 / 1.5)  # layer 14 alone, mean of its two heads
    assert got.provenance.layers == "layers 14"
    assert got.provenance.heads.startswith("localization: 2 heads, layer.head 14.24, 14.13 (Localization heads, CVPR")
    assert raw_attention(one, 0, heads="all").provenance.heads == "2 heads"


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"heads": "localization"}, "is for a model of 32 layers"),
        ({}, {"heads": "best"}, "head preset 'best' does not exist; there are all, localization, ad_hh"),
        ({}, {"heads": "localization", "layers": [0]}, "leave layers out"),
        ({"layers": (14, 20), "depth": 32}, {"heads": "localization"}, r"heads \[24, 13\] were not kept"),
        ({"layers": (3, 20), "depth": 32}, {"heads": "localization"}, r"layers \[14\] were not kept"),
        ({}, {"rows": "best"}, "row preset 'best' does not exist; there are vicrop, localization"),
        ({}, {"rows": "vicrop", "what": "cup"}, "leave out 'cup'"),
        ({}, {"rows": "vicrop", "convention": "query"}, "leave out convention"),
    ],
)
def test_presets_that_do_not_fit_are_refused(changes: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        raw_attention(trace(**changes), **options)


@pytest.mark.parametrize(
    ("rows", "what", "factor", "label"),
    [
        ("vicrop", None, UNIT * 16, "the last prompt row"),  # position 15
        ("localization", None, UNIT * 16, "the last prompt row"),
        ("hgai", "not Red", UNIT * 18, "not Red"),  # tokens 18 and 19, rows 17 and 18
        ("carve", "not Red", UNIT * 18.5, "not Red"),
        ("carve", None, UNIT * (16 + 17 + 18 + 19) / 4, "red, not Red"),
    ],
)
def test_rows_by_name(rows: str, what: str | None, factor: float, label: str) -> None:
    got = raw_attention(trace(), what, rows=rows)
    assert equals(got, factor)
    assert got.label == label
    assert f"rows {rows}: " in got.provenance.steps[0]
    assert ROW_PRESETS[rows].source in got.provenance.steps[0]


def late_layout() -> Any:
    """The picture's first tile moved behind the words "Is the": tokens 9-12 are image cells, 2-5 words."""
    one = layout()
    order = np.array([0, 1, 9, 10, 11, 12, *range(2, 9), *range(13, 20)])
    names = ("kinds", "image", "tile", "row", "col", "char_span")
    return replace(one, **{name: getattr(one, name)[order] for name in names})


def late_trace() -> Any:
    """Words at 2-5 (Is the red cup), picture at 6-12, words at 13-14 (red ?), answer from 16; all rows are kept."""
    tokens = late_layout()
    positions, columns = np.arange(20), tokens.image_positions
    values = np.where(columns[None, :] <= positions[:, None], 0.1, 0.0) * np.ones((2, 2, 1, 1))
    return trace(
        layout=tokens,
        positions=positions,
        columns=columns,
        attn_lhqk=values.astype(np.float32),
        mass_lhqs=np.zeros((2, 2, 20, len(tokens.segments())), dtype=np.float32),
    )


def test_a_word_before_the_picture_has_no_map() -> None:
    with pytest.raises(MapError, match=r"'cup' stands before picture 0, so the model read it without having seen"):
        raw_attention(late_trace(), "cup")
    with pytest.raises(MapError, match="stands before picture 0"):
        value_weighted(trace_with_norms(late_trace()), "cup")


def trace_with_norms(one: Any) -> Any:
    return replace(one, value_norm_lhk=np.ones((2, 2, 6), dtype=np.float32))


def test_words_before_the_picture_do_not_dilute_the_question() -> None:
    got = raw_attention(late_trace(), part="question")
    assert np.allclose(got.values[0], 0.1)
    assert "2 of 6 rows: the others cannot see picture 0" in got.provenance.steps[-1]
    assert got.visible is None


def test_patches_after_the_row_are_not_seen() -> None:
    # A row in the middle of the picture sees the cells before it only.
    got = raw_attention(late_trace(), Span("middle", "question", (-1, -1), (8,)))
    assert got.visible is not None
    assert got.visible[0].tolist() == [[True, True], [True, False]]
    assert got.visible[1].tolist() == [[False, False]]


def test_what_a_later_row_gives_weight_to_is_seen() -> None:
    """Models that read the prompt in both directions."""
    both = replace(late_trace(), attn_lhqk=np.full((2, 2, 20, 6), 0.1, dtype=np.float32))
    assert raw_attention(both, "cup").visible is None


def test_a_span_without_tokens_is_refused() -> None:
    with pytest.raises(MapError, match="no token carries '<image>'"):
        raw_attention(trace(), Span("<image>", "question", (0, 7), ()))


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
        (patch_map(1, 1, 1, 1, 1, 1), float("nan"), SpecError, "floor must be >= 0"),
        (patch_map(1, 1, 1, 1, 1, 1), "tenth", SpecError, "or 'auto', got 'tenth'"),
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


SEEN = (np.array([[False, False], [True, True]]), np.array([[True, True]]))


def half_seen(*values: float) -> PatchMap:
    return replace(patch_map(*values), visible=SEEN)


@pytest.mark.parametrize(
    ("how", "values"),
    [
        ("none", [9, 9, 1, 1, 2, 4]),
        ("share", [0, 0, 0.125, 0.125, 0.25, 0.5]),
        ("uniform", [0, 0, 0.5, 0.5, 1, 2]),
        ("max", [0, 0, 0.25, 0.25, 0.5, 1]),
        ("minmax", [0, 0, 0, 0, 1 / 3, 1]),
        ("rank", [0, 0, 1 / 6, 1 / 6, 2 / 3, 1]),
    ],
)
def test_normalisations_count_visible_patches_only(how: str, values: list[float]) -> None:
    got = normalise(half_seen(9, 9, 1, 1, 2, 4), how)
    assert np.allclose(np.concatenate([v.ravel() for v in got.values]), values)
    assert got.visible is not None


@pytest.mark.parametrize("how", ["max", "minmax", "rank"])
def test_a_map_that_is_flat_where_it_is_visible_is_not_stretched(how: str) -> None:
    with pytest.raises(MapError, match="flat"):
        normalise(half_seen(0, 0, 2, 2, 2, 2), how)


@pytest.mark.parametrize("values", [(-1, -1, -2, -2, -2, 0), (-1, -2, -3, -4, -5, -6)])
def test_nothing_is_divided_by_a_maximum_of_zero_or_less(values: tuple[float, ...]) -> None:
    with pytest.raises(MapError, match="the largest value of the map is"):
        normalise(patch_map(*values), "max")


def test_a_map_of_which_nothing_is_visible_is_not_normalised() -> None:
    blind = replace(patch_map(1, 2, 3, 4, 5, 6), visible=tuple(np.zeros(s.shape, bool) for s in SEEN))
    with pytest.raises(MapError, match="no patch of the map was visible"):
        normalise(blind, "share")


@pytest.mark.parametrize("task_sees_all", [True, False])
def test_relative_divides_only_what_both_maps_saw(task_sees_all: bool) -> None:
    whole, half = patch_map(8, 8, 3, 6, 2, 0), half_seen(0, 0, 3, 1, 2, 2)
    got = relative(whole, half) if task_sees_all else relative(half_seen(8, 8, 3, 6, 2, 0), patch_map(7, 7, 3, 1, 2, 2))
    assert got.visible is not None
    assert [v.tolist() for v in got.visible] == [v.tolist() for v in SEEN]
    assert np.allclose(np.concatenate([v.ravel() for v in got.values]), [0, 0, 1, 6, 1, 0])
    assert "floor 0.2" in got.provenance.steps[-1]  # a tenth of the mean 2 of what both saw
    others = replace(whole, visible=tuple(~s for s in SEEN))
    with pytest.raises(MapError, match="no patch was seen in both"):
        relative(half, others)


def test_relative_says_which_row_and_prompt_it_divided_by() -> None:
    generic = replace(raw_attention(trace(), rows="vicrop"), label="Write.")
    said = relative(raw_attention(trace(), "cup"), generic).provenance.steps[-1]
    assert said.startswith("divided by the map of 'Write.' (raw attention of 'the last prompt row'; rows vicrop: ")


def test_normalisations_that_do_not_exist_and_empty_maps() -> None:
    with pytest.raises(SpecError, match="there are none, share"):
        normalise(patch_map(1, 2, 3, 4, 5, 6), "softmax")
    with pytest.raises(MapError, match="sums to zero"):
        normalise(patch_map(0, 0, 0, 0, 0, 0), "share")
