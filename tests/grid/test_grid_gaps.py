"""Grids whose cells do not all touch: stitched tiles between which pixels were dropped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmattn.core.errors import LayoutError
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.grid import PatchMap, cell_at, cell_coverage, cells_of_box, pool_pixels, to_pixels

ROWS = ((0.0, 10.0), (10.0, 20.0), (23.0, 33.0))
COLS = ((2.0, 12.0), (12.0, 22.0), (26.0, 36.0), (36.0, 46.0))
TILE = Tile("tiles", (3, 4), (2.0, 0.0, 46.0, 33.0), ROWS, COLS)
LAYOUT = ImageLayout((48, 33), (TILE,))


def stitched(tiles: int, cells: int, patch: float, gap: float, start: float) -> tuple[tuple[float, float], ...]:
    """Spans of ``tiles`` runs of ``cells`` cells, with a gap after each run."""
    lows = [start + t * (cells * patch + gap) + c * patch for t in range(tiles) for c in range(cells)]
    return tuple((low, low + patch) for low in lows)


@st.composite
def gappy(draw: st.DrawFn) -> ImageLayout:
    """A picture with one stitched tile that may reach beyond it."""
    sides = [
        stitched(
            draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.floats(1.0, 9.0)), draw(st.floats(0.0, 6.0)),
            draw(st.floats(-5.0, 5.0)),
        )
        for _ in range(2)
    ]  # fmt: skip
    rows, cols = sides
    box = (cols[0][0], rows[0][0], cols[-1][1], rows[-1][1])
    size = (draw(st.integers(8, 90)), draw(st.integers(8, 90)))
    return ImageLayout(size, (Tile("tiles", (len(rows), len(cols)), box, rows, cols),))


def filled(layout: ImageLayout, **more: Any) -> PatchMap:
    rng = np.random.default_rng(0)
    return PatchMap(tuple(rng.random(t.grid_hw) for t in layout.tiles), layout, **more)


@settings(max_examples=80, deadline=None)
@given(layout=gappy(), smooth=st.sampled_from([None, "bilinear"]), masked=st.booleans())
def test_mass_is_kept(layout: ImageLayout, smooth: Any, masked: bool) -> None:
    patches = filled(layout)
    kept = [np.random.default_rng(1).random(v.shape) < (0.5 if masked else 2) for v in patches.values]
    patches = filled(layout, visible=tuple(kept))
    pixels = to_pixels(patches, smooth=smooth)
    assert pixels.total + pixels.outside == pytest.approx((patches.values[0] * kept[0]).sum(), rel=1e-4, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(layout=gappy())
def test_pixels_agree_with_areas_computed_one_by_one(layout: ImageLayout) -> None:
    patches, tile, (width, height) = filled(layout), layout.tiles[0], layout.image_wh
    mass, density = to_pixels(patches), to_pixels(patches, kind="density")
    for x, y in np.random.default_rng(2).integers(0, (width, height), (6, 2)).tolist():
        parts = []
        for (row, col), value in np.ndenumerate(patches.values[0]):
            x0, y0, x1, y1 = tile.cell_box(row, col)
            shared = max(0.0, min(x1, x + 1) - max(x0, x)) * max(0.0, min(y1, y + 1) - max(y0, y))
            parts.append((value, shared, (x1 - x0) * (y1 - y0)))
        covered = sum(shared for _, shared, _ in parts)
        assert mass.values[y, x] == pytest.approx(sum(v * s / area for v, s, area in parts), rel=1e-4, abs=1e-6)
        if covered > 1e-6:
            assert density.seen[y, x]
            assert density.values[y, x] == pytest.approx(sum(v * s for v, s, _ in parts) / covered, rel=1e-4)
        elif covered == 0:
            assert not mass.seen[y, x]


@pytest.mark.parametrize("smooth", [None, "bilinear"])
@pytest.mark.parametrize("visible", [None, (np.ones((3, 4), bool),)])
def test_gaps_are_not_seen(smooth: Any, visible: Any) -> None:
    for kind in ("mass", "density"):
        pixels = to_pixels(filled(LAYOUT, visible=visible), kind=kind, smooth=smooth)  # type: ignore[arg-type]
        assert np.flatnonzero(~pixels.seen.any(axis=0)).tolist() == [0, 1, 22, 23, 24, 25, 46, 47]
        assert np.flatnonzero(~pixels.seen.any(axis=1)).tolist() == [20, 21, 22]
        assert not pixels.values[~pixels.seen].any()


@pytest.mark.parametrize("how", ["mean", "inverse"])
def test_density_and_back_is_the_identity(how: Any) -> None:
    patches = filled(LAYOUT)
    back = pool_pixels(LAYOUT, to_pixels(patches, kind="density").values, how=how)
    assert np.allclose(back.values[0], patches.values[0], atol=1e-6)


def test_density_and_back_is_the_identity_where_edges_cross_pixels() -> None:
    rows, cols = stitched(2, 3, 4.3, 1.4, 0.2), stitched(3, 2, 3.7, 0.6, -0.4)
    box = (cols[0][0], rows[0][0], cols[-1][1], rows[-1][1])
    layout = ImageLayout((40, 40), (Tile("tiles", (6, 6), box, rows, cols),))
    patches = filled(layout)
    back = pool_pixels(layout, to_pixels(patches, kind="density").values, how="inverse")
    assert np.allclose(back.values[0], patches.values[0], atol=1e-5)


@pytest.mark.parametrize("smooth", [None, "bilinear"])
def test_spans_without_gaps_change_nothing(smooth: Any) -> None:
    rows, cols = stitched(1, 3, 10.0, 0.0, 0.0), stitched(1, 4, 12.0, 0.0, 0.0)
    told = ImageLayout((48, 30), (Tile("tiles", (3, 4), (0.0, 0.0, 48.0, 30.0), rows, cols),))
    even = ImageLayout((48, 30), (Tile("tiles", (3, 4), (0.0, 0.0, 48.0, 30.0)),))
    assert np.allclose(
        to_pixels(filled(told), smooth=smooth).values, to_pixels(filled(even), smooth=smooth).values, atol=1e-7
    )


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (2.0, 0.0, [(0, 0, 0)]),
        (21.9, 19.9, [(0, 1, 1)]),
        (22.0, 5.0, []),
        (25.9, 5.0, []),
        (26.0, 23.0, [(0, 2, 2)]),
        (45.9, 32.9, [(0, 2, 3)]),
        (30.0, 21.0, []),
        (46.0, 5.0, []),
        (1.9, 5.0, []),
    ],
)
def test_cell_at(x: float, y: float, expected: list[Any]) -> None:
    assert cell_at(LAYOUT, x, y) == expected


def test_boxes_share_area_with_cells_and_not_with_gaps() -> None:
    assert cells_of_box(LAYOUT, (22.0, 0.0, 26.0, 10.0)) == []
    assert cells_of_box(LAYOUT, (21.0, 0.0, 27.0, 10.0)) == [(0, 0, 1), (0, 0, 2)]
    box = (17.0, 15.0, 31.0, 28.0)
    mask = np.zeros((33, 48), dtype=bool)
    mask[15:28, 17:31] = True
    expected = np.outer([0, 0.5, 0.5], [0, 0.5, 0.5, 0])
    assert np.allclose(cell_coverage(LAYOUT, box)[0], expected)
    assert np.allclose(cell_coverage(LAYOUT, mask)[0], expected)


def test_a_summary_tells_the_spans() -> None:
    (tile,) = filled(LAYOUT).to_dict()["tiles"]
    assert tile["row_spans"] == [list(span) for span in ROWS]
    assert tile["col_spans"] == [list(span) for span in COLS]
    assert tile["source_box_xyxy"] == [2.0, 0.0, 46.0, 33.0]
    half = ImageLayout((48, 33), (Tile("tiles", (3, 4), TILE.source_box_xyxy, col_spans=COLS),))
    assert "row_spans" not in filled(half).to_dict()["tiles"][0]
    assert filled(half).layout.tiles[0].cell_box(1, 2) == (26.0, 11.0, 36.0, 22.0)


@pytest.mark.parametrize(
    ("spans", "match"),
    [
        (((0.0, 4.0),), r"row_spans .*shape \(2, 2\), got \(1, 2\)"),
        (((0.0, 4.0), (6.0, 6.0)), "must all have a positive length"),
        (((0.0, float("nan")), (6.0, 10.0)), "must all have a positive length"),
        (((float("-inf"), 4.0), (6.0, 10.0)), "must all have a positive length"),
        (((0.0, 6.0), (4.0, 10.0)), "ascending and not overlap"),
        (((6.0, 10.0), (0.0, 4.0)), "ascending and not overlap"),
        (((1.0, 5.0), (6.0, 10.0)), "edge to edge"),
        (((0.0, 4.0), (5.0, 9.0)), "edge to edge"),
    ],
)
def test_spans_that_do_not_fit_are_refused(spans: Any, match: str) -> None:
    with pytest.raises(LayoutError, match=match):
        Tile("tiles", (2, 1), (0.0, 0.0, 5.0, 10.0), row_spans=spans)


UNEVEN = Tile(
    "tiles", (1, 3), (2.0, 0.0, 26.0, 4.0), col_spans=((2.0, 8.0), (8.0, 18.0), (20.0, 26.0))
)  # cells of 6, 10 and 6 pixels, and a gap of 2


@pytest.mark.parametrize("smooth", [None, "bilinear"])
@pytest.mark.parametrize("visible", [None, (np.array([[True, True, False]]),)])
def test_cells_of_unequal_length_keep_their_sums_and_their_values(smooth: Any, visible: Any) -> None:
    layout = ImageLayout((28, 4), (UNEVEN,))
    patches = PatchMap((np.array([[3.0, 5.0, 9.0]]),), layout, visible=visible)
    told = 17.0 if visible is None else 8.0
    mass = to_pixels(patches, kind="mass", smooth=smooth)
    assert mass.total == pytest.approx(told)
    assert mass.outside == pytest.approx(0.0, abs=1e-9)
    density = to_pixels(patches, kind="density", smooth=smooth)
    assert density.values[0, [4, 13]] == pytest.approx([3.0, 5.0], abs=0.2 if smooth else 1e-6)
    assert not density.seen[0, [0, 1, 18, 19, 26]].any()
    flat = PatchMap((np.full((1, 3), 2.0),), layout, visible=visible)
    shown = to_pixels(flat, kind="density", smooth=smooth)
    assert np.allclose(shown.values[shown.seen], 2.0)


def test_a_pixel_of_a_cell_of_unequal_length_holds_its_share() -> None:
    patches = PatchMap((np.array([[3.0, 5.0, 9.0]]),), ImageLayout((28, 4), (UNEVEN,)))
    mass = to_pixels(patches, kind="mass").values
    assert mass[0, [2, 7, 8, 17, 18, 20, 25, 26]] == pytest.approx(
        [3 / 24, 3 / 24, 5 / 40, 5 / 40, 0, 9 / 24, 9 / 24, 0]
    )
    back = pool_pixels(patches.layout, to_pixels(patches, kind="density").values)
    assert np.allclose(back.values[0], patches.values[0])
    assert cell_at(patches.layout, 17.5, 1) == [(0, 0, 1)]
    assert cell_at(patches.layout, 19.0, 1) == []
