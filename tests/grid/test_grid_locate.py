"""From pixels to cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.grid import cell_at, cell_coverage, cells_of_box, pool_pixels

LAYOUT = ImageLayout(
    (90, 60), (Tile("base", (4, 4), (15.0, 0.0, 75.0, 60.0)), Tile("tiles", (6, 9), (0.0, -10.0, 90.0, 50.0)))
)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (15.0, 0.0, [(0, 0, 0), (1, 1, 1)]),
        (14.9, 0.0, [(1, 1, 1)]),
        (74.9, 59.9, [(0, 3, 3)]),
        (75.0, 30.0, [(1, 4, 7)]),
        (30.0, 15.0, [(0, 1, 1), (1, 2, 3)]),
        (500.0, 5.0, []),
    ],
)
def test_cell_at(x: float, y: float, expected: list[Any]) -> None:
    assert cell_at(LAYOUT, x, y) == expected


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((15.0, 0.0, 30.0, 15.0), {(0, 0, 0)}),
        ((29.9, 14.9, 30.1, 15.1), {(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)}),
        ((0.0, 0.0, 15.0, 60.0), set()),
        ((-100.0, -100.0, 200.0, 200.0), {(0, r, c) for r in range(4) for c in range(4)}),
    ],
)
def test_cells_of_box(box: Any, expected: set[Any]) -> None:
    assert {c for c in cells_of_box(LAYOUT, box) if c[0] == 0} == expected


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(0, 59)] * 4))
def test_a_box_and_its_mask_cover_the_same(corners: tuple[int, int, int, int]) -> None:
    x0, x1 = sorted((corners[0], corners[1]))
    y0, y1 = sorted((corners[2], corners[3]))
    box = (x0, y0, x1 + 1, y1 + 1)
    mask = np.zeros((60, 90), dtype=bool)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    for by_box, by_mask in zip(cell_coverage(LAYOUT, box), cell_coverage(LAYOUT, mask), strict=True):
        assert np.allclose(by_box, by_mask, atol=1e-9)
        assert by_box.min() >= 0
        assert by_box.max() <= 1 + 1e-12
    touched = {(t, int(r), int(c)) for t, g in enumerate(cell_coverage(LAYOUT, box)) for r, c in np.argwhere(g > 1e-12)}
    inside = {c for c in cells_of_box(LAYOUT, box) if c != (1, 0, c[2]) or c[0] == 0}
    assert touched == {c for c in inside if not (c[0] == 1 and c[1] == 0)}


def test_coverage_counts_only_what_lies_inside_the_picture() -> None:
    whole = cell_coverage(LAYOUT, np.ones((60, 90), dtype=bool))
    assert np.allclose(whole[0], 1.0)
    assert np.allclose(whole[1][1:], 1.0)
    assert np.allclose(whole[1][0], 0.0)
    half = ImageLayout((10, 10), (Tile("base", (1, 1), (-10.0, 0.0, 10.0, 10.0)),))
    assert cell_coverage(half, (0.0, 0.0, 5.0, 10.0))[0] == pytest.approx(0.5)
    assert cell_coverage(half, (-9.0, 0.0, -5.0, 10.0))[0] == 0.0


def test_pooling_is_the_mean_of_the_pixels() -> None:
    grey = data.astronaut()[:60, :90, 0].astype(float)
    pooled = pool_pixels(LAYOUT, grey, label="brightness")
    assert pooled.values[0][1, 2] == pytest.approx(grey[15:30, 45:60].mean())
    assert pooled.values[1][1, 0] == pytest.approx(grey[0:10, 0:10].mean())
    assert pooled.values[1][0, 0] == 0.0
    assert pooled.label == "brightness"
    assert pooled.provenance.steps == ("pooled from pixels: mean",)


def undone(image_wh: tuple[int, int], grid_hw: tuple[int, int], box: Any) -> Any:
    layout = ImageLayout(image_wh, (Tile("base", grid_hw, box),))
    return pool_pixels(layout, np.ones(image_wh[::-1]), how="inverse")


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: cells_of_box(LAYOUT, (5.0, 5.0, 5.0, 9.0)), MapError, "positive width"),
        (lambda: cell_coverage(LAYOUT, (9.0, 5.0, 5.0, 9.0)), MapError, "positive width"),
        (lambda: cell_coverage(LAYOUT, np.ones((90, 60))), MapError, r"\(60, 90\), got \(90, 60\)"),
        (lambda: pool_pixels(LAYOUT, np.ones((90, 60))), MapError, r"\(60, 90\), got \(90, 60\)"),
        (lambda: pool_pixels(LAYOUT, np.ones((60, 90)), how="max"), SpecError, "'mean' or 'inverse'"),
        (lambda: undone((2, 2), (4, 4), (0, 0, 2, 2)), MapError, "smaller than a pixel"),
        (lambda: undone((2, 1), (1, 3), (-0.5, 0, 2.5, 1)), MapError, "3 cells lie on 2 pixels"),
    ],
)  # fmt: skip
def test_bad_regions(call: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()
