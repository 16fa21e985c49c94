"""The two kinds of map: what they hold, refuse and summarise."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from vlmattn.core.errors import LayoutError, MapError, SpecError
from vlmattn.core.layout import ImageLayout, Tile, TokenKind, TokenLayout
from vlmattn.grid import PatchMap, PixelMap, to_pixels
from vlmattn.grid.regions import largest_region

ONE = ImageLayout((40, 20), (Tile("base", (2, 4), (0.0, 0.0, 40.0, 20.0)),))


def layout_of(kinds: str, image: list[int], place: list[tuple[int, int, int]], pictures: Any) -> TokenLayout:
    """A token layout from letters: B bos, S system, I image, N separator, Q question."""
    code = {"B": 0, "S": 1, "I": 2, "N": 3, "Q": 4}
    array = np.asarray(place, dtype=np.int32)
    n = len(kinds)
    return TokenLayout(
        text="",
        input_ids=np.arange(n),
        kinds=np.array([code[k] for k in kinds], dtype=np.int8),
        image=np.asarray(image, dtype=np.int32),
        tile=array[:, 0],
        row=array[:, 1],
        col=array[:, 2],
        char_span=np.full((n, 2), -1, dtype=np.int32),
        question_span=(0, 0),
        answer_start=n,
        images=pictures,
    )


no = (-1, -1, -1)
TWO_PICTURES = layout_of(
    "BIIISIINIINQ",
    [-1, 0, 0, 0, -1, 1, 1, 1, 1, 1, 1, -1],
    [no, (0, 0, 0), (0, 0, 1), (0, 0, 2), no, (0, 1, 0), (0, 0, 0), no, (1, 0, 1), (1, 0, 0), no, no],
    (
        ImageLayout((9, 3), (Tile("base", (1, 3), (0, 0, 9, 3)),)),
        ImageLayout((4, 4), (Tile("base", (2, 1), (0, 0, 4, 4)), Tile("tiles", (1, 2), (0, 0, 4, 4)))),
    ),
)


def test_a_vector_goes_to_the_cells_of_its_tokens() -> None:
    vector = np.arange(7, dtype=np.float32)
    first = PatchMap.from_vector(vector, TWO_PICTURES, label="cat")
    assert first.values[0].tolist() == [[0, 1, 2]]
    assert first.label == "cat"
    second = PatchMap.from_vector(vector, TWO_PICTURES, picture=1, visible=vector != 3)
    assert second.values[0].tolist() == [[4], [3]]
    assert second.values[1].tolist() == [[6, 5]]
    assert second.visible is not None
    assert second.visible[0].tolist() == [[True], [False]]
    assert second.total == 18
    assert TWO_PICTURES.kinds[7] == TokenKind.SEPARATOR


@pytest.mark.parametrize(
    ("vector", "options", "match"),
    [
        (np.zeros(12), {}, r"one entry per image token, shape \(7,\), got \(12,\)"),
        (np.zeros((7, 1)), {}, r"got \(7, 1\)"),
        (np.zeros(7), {"picture": 2}, "picture must be 0 to 1, got 2"),
        (np.zeros(7), {"picture": -1}, "picture must be 0 to 1, got -1"),
        (np.zeros(7), {"visible": np.ones(3, bool)}, r"visible must have one entry"),
        (np.full(7, np.nan), {}, "values of tile 0 must be finite, got 3 NaN or infinite of 3"),
    ],
)
def test_bad_vectors(vector: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(MapError, match=match):
        PatchMap.from_vector(vector, TWO_PICTURES, **options)


@pytest.mark.parametrize(
    ("values", "visible", "match"),
    [
        ((np.zeros((4, 2)),), None, r"values must have one array .*\[\(2, 4\)\], got \[\(4, 2\)\]"),
        ((), None, r"got \[\]"),
        ((np.zeros((2, 4)), np.zeros((2, 4))), None, "values must have one array"),
        ((np.full((2, 4), np.inf),), None, "must be finite"),
        ((np.zeros((2, 4)),), (np.ones((4, 2), bool),), "visible must have one array"),
    ],
)
def test_bad_patch_maps(values: Any, visible: Any, match: str) -> None:
    with pytest.raises(MapError, match=match):
        PatchMap(values, ONE, visible=visible)


def test_a_patch_map_is_its_own() -> None:
    source = np.zeros((2, 4))
    patches = PatchMap((source,), ONE)
    source[:] = 7
    assert patches.total == 0
    with pytest.raises(ValueError, match="read-only"):
        patches.values[0][0, 0] = 1
    assert PatchMap((np.ones((2, 4), dtype=int),), ONE).values[0].dtype == np.float64
    assert PatchMap((np.ones((2, 4), dtype=np.float32),), ONE).values[0].dtype == np.float32


def test_the_peak_of_patches() -> None:
    values = np.zeros((2, 4))
    values[1, 2] = 3.0
    peak = PatchMap((values,), ONE).peak()
    assert (peak.tile, peak.row, peak.col, peak.value) == (0, 1, 2, 3.0)
    assert peak.box_xyxy == (20.0, 10.0, 30.0, 20.0)


def test_patch_maps_go_to_json() -> None:
    patches = PatchMap((np.ones((2, 4), dtype=np.float32),), ONE, label="ok", visible=(np.ones((2, 4), bool),))
    back = json.loads(json.dumps(patches.to_dict()))
    assert back["tiles"][0]["values"] == [[1.0] * 4] * 2
    assert back["visible"][0][0] == [True] * 4
    assert "base 2x4" in repr(patches)


def test_the_peak_of_pixels_is_the_middle_of_its_patch() -> None:
    values = np.zeros((2, 4))
    values[1, 2] = 3.0
    assert to_pixels(PatchMap((values,), ONE)).peak_xy == (25.0, 15.0)
    single = np.zeros((5, 7), dtype=np.float32)
    single[3, 2] = 1
    assert PixelMap(single, np.ones((5, 7), bool)).peak_xy == (2.5, 3.5)


def test_unseen_pixels_are_never_the_peak() -> None:
    values = np.full((4, 4), -1.0, dtype=np.float32)
    values[0, 0] = 9.0
    seen = np.ones((4, 4), bool)
    seen[0, 0] = False
    values[2, 1] = -0.5
    assert PixelMap(values, seen).peak_xy == (1.5, 2.5)
    with pytest.raises(MapError, match="no pixel of the picture was seen"):
        _ = PixelMap(values, np.zeros((4, 4), bool)).peak_xy


def test_the_box_is_that_of_the_largest_region() -> None:
    values = np.zeros((20, 30), dtype=np.float32)
    values[2:5, 3:9] = 1.0
    values[10:12, 20:22] = 2.0
    pixels = PixelMap(values, np.ones((20, 30), bool))
    assert pixels.box_xyxy(threshold=0.5) == (3, 2, 9, 5)
    assert pixels.box_xyxy(threshold=1.5) == (20, 10, 22, 12)
    assert pixels.box_xyxy(quantile=0.995) == (20, 10, 22, 12)
    assert pixels.box_xyxy(quantile=0.97) == (3, 2, 9, 5)
    assert pixels.box_xyxy(quantile=0.0) == (0, 0, 30, 20)
    # The lowest value of all does not stand out, however much of the map has it.
    assert pixels.level(0.9) == pixels.level(0.1) == 1.0
    assert pixels.box_xyxy() == (3, 2, 9, 5)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"quantile": 0.5, "threshold": 1.0}, SpecError, "not both"),
        ({"quantile": 1.5}, SpecError, "quantile must be 0 to 1"),
        ({"threshold": 5.0}, MapError, "no pixel reaches 5: the highest value is 1"),
    ],
)
def test_boxes_that_cannot_be_had(options: dict[str, Any], error: type[Exception], match: str) -> None:
    pixels = PixelMap(np.eye(4, dtype=np.float32), np.ones((4, 4), bool))
    with pytest.raises(error, match=match):
        pixels.box_xyxy(**options)


@pytest.mark.parametrize("value", [0.0, 3.5, -2.0])
def test_a_flat_map_has_no_box_and_no_peak(value: float) -> None:
    pixels = PixelMap(np.full((4, 4), value, dtype=np.float32), np.ones((4, 4), bool))
    assert pixels.is_flat
    with pytest.raises(MapError, match="the map is flat"):
        pixels.box_xyxy()
    with pytest.raises(MapError, match="the map is flat"):
        _ = pixels.peak_xy
    assert pixels.to_dict()["peak_xy"] is None
    patches = PatchMap((np.full((2, 4), value),), ONE)
    assert patches.is_flat
    with pytest.raises(MapError, match="the map is flat"):
        patches.peak()


def test_patches_out_of_sight_count_neither_for_the_peak_nor_against_flatness() -> None:
    seen = np.ones((2, 4), bool)
    seen[0, :2] = False
    values = np.ones((2, 4))
    values[0, 0] = 9.0
    assert PatchMap((values,), ONE, visible=(seen,)).is_flat
    values[1, 3] = 2.0
    assert PatchMap((values,), ONE, visible=(seen,)).peak()[1:3] == (1, 3)
    assert PatchMap((-values,), ONE, visible=(seen,)).peak().value == -1.0
    blind = PatchMap((values,), ONE, visible=(np.zeros((2, 4), bool),))
    assert blind.is_flat
    with pytest.raises(MapError, match="no peak"):
        blind.peak()


def test_a_map_of_one_value_per_cell_is_flat_in_pixels_too() -> None:
    layout = ImageLayout((37, 23), (Tile("base", (3, 5), (0.0, 0.0, 37.0, 23.0)),))
    assert to_pixels(PatchMap((np.full((3, 5), 0.1),), layout), kind="density").is_flat


@pytest.mark.parametrize(
    ("values", "seen", "match"),
    [
        (np.zeros(4), np.ones(4, bool), r"shape \(H, W\), got \(4,\)"),
        (np.zeros((0, 4)), np.ones((0, 4), bool), r"got \(0, 4\)"),
        (np.zeros((2, 3)), np.ones((3, 2), bool), r"seen must have the shape of values, \(2, 3\), got \(3, 2\)"),
        (np.full((2, 2), np.nan), np.ones((2, 2), bool), "must be finite"),
    ],
)
def test_bad_pixel_maps(values: Any, seen: Any, match: str) -> None:
    with pytest.raises(MapError, match=match):
        PixelMap(values, seen)


def test_the_summary_holds_no_pixels() -> None:
    seen = np.ones((4, 8), bool)
    seen[:, :2] = False
    pixels = PixelMap(np.eye(4, 8, dtype=np.float32), seen, outside=0.5, label="cat")
    summary = json.loads(pixels.to_json())
    assert summary["image_wh"] == [8, 4]
    assert summary["seen_share"] == 0.75
    assert summary["outside"] == 0.5
    assert summary["label"] == "cat"
    assert summary["flat"] is False
    assert summary["peak_xy"] == [2.5, 2.5]
    assert json.loads(PixelMap(np.zeros((2, 2)), np.zeros((2, 2), bool)).to_json())["peak_xy"] is None
    assert "8x4" in repr(pixels)


def test_regions_touch_at_corners() -> None:
    assert largest_region(np.eye(3, dtype=bool)) == (0, 0, 3, 3)
    assert largest_region(np.zeros((3, 3), dtype=bool)) is None


def test_a_layout_that_lacks_tokens_is_refused_before_any_map() -> None:
    with pytest.raises(LayoutError, match="2 image tokens in the prompt but its grids have 3 cells"):
        layout_of("II", [0, 0], [(0, 0, 0), (0, 0, 1)], (ImageLayout((9, 3), (Tile("base", (1, 3), (0, 0, 9, 3)),)),))
