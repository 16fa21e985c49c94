"""From grids to pixels: exact by area, for any picture and any place of the grid."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.grid import PatchMap, PixelMap, pool_pixels, to_pixels
from vlmattn.grid.overlap import cell_sizes, overlap, tile_overlap

SIZES = st.sampled_from([(1, 1), (1, 1000), (8000, 50), (2, 3), (37, 11)]) | st.tuples(
    st.integers(1, 120), st.integers(1, 120)
)


@st.composite
def layouts(draw: st.DrawFn, tiles: int = 2) -> ImageLayout:
    """A picture with tiles that may reach beyond it or leave parts of it out, but always touch it."""
    width, height = draw(SIZES)
    made = []
    for index in range(draw(st.integers(1, tiles))):
        part = st.floats(-0.6, 0.9)
        x0, y0 = draw(part) * width, draw(part) * height
        w, h = draw(st.floats(0.05, 1.8)) * width, draw(st.floats(0.05, 1.8)) * height
        assume(x0 + w > 0.01 and y0 + h > 0.01)
        grid = (draw(st.integers(1, 9)), draw(st.integers(1, 9)))
        made.append(Tile("base" if index == 0 else "tiles", grid, (x0, y0, x0 + w, y0 + h)))
    return ImageLayout((width, height), tuple(made))


def filled(layout: ImageLayout, seed: int = 0, **more: Any) -> PatchMap:
    rng = np.random.default_rng(seed)
    return PatchMap(tuple(rng.random(t.grid_hw) for t in layout.tiles), layout, **more)


@settings(max_examples=120, deadline=None)
@given(layout=layouts(), seed=st.integers(0, 99), smooth=st.sampled_from([None, "bilinear"]))
def test_mass_is_kept(layout: ImageLayout, seed: int, smooth: Any) -> None:
    patches = filled(layout, seed)
    pixels = to_pixels(patches, smooth=smooth)
    assert pixels.total + pixels.outside == pytest.approx(patches.total, rel=1e-4)
    assert pixels.values.min() >= 0
    mean = to_pixels(patches, merge="mean", smooth=smooth)
    assert mean.total + mean.outside == pytest.approx(patches.total / len(layout.tiles), rel=1e-4)
    base = to_pixels(patches, merge="base", smooth=smooth)
    assert base.total + base.outside == pytest.approx(patches.values[0].sum(), rel=1e-4)


@settings(max_examples=60, deadline=None)
@given(layout=layouts(tiles=1), seed=st.integers(0, 99))
def test_pixels_agree_with_areas_computed_one_by_one(layout: ImageLayout, seed: int) -> None:
    patches = filled(layout, seed)
    tile, (width, height) = layout.tiles[0], layout.image_wh
    pixels = to_pixels(patches)
    rng = np.random.default_rng(seed)
    for x, y in zip(rng.integers(0, width, 6), rng.integers(0, height, 6), strict=True):
        mass = 0.0
        for row in range(tile.grid_hw[0]):
            for col in range(tile.grid_hw[1]):
                x0, y0, x1, y1 = tile.cell_box(row, col)
                shared = max(0.0, min(x1, x + 1) - max(x0, x)) * max(0.0, min(y1, y + 1) - max(y0, y))
                mass += patches.values[0][row, col] * shared / ((x1 - x0) * (y1 - y0))
        assert pixels.values[y, x] == pytest.approx(mass, rel=1e-4, abs=1e-6)


def told_apart(weights: Any) -> bool:
    """Cut-off cells at both ends may leave more cells than pixels."""
    used = weights[:, weights.sum(axis=0) > 1e-6]
    return bool(np.linalg.matrix_rank(used, tol=1e-6) == used.shape[1])


@settings(max_examples=100, deadline=None)
@given(layout=layouts(tiles=1), seed=st.integers(0, 99))
def test_density_and_back_is_the_identity(layout: ImageLayout, seed: int) -> None:
    tile = layout.tiles[0]
    w, h = (float(sizes.min()) for sizes in cell_sizes(tile))
    assume(w >= 1 and h >= 1)
    patches = filled(layout, seed)
    in_x, in_y = tile_overlap(tile, layout.image_wh)
    assume(told_apart(in_x) and told_apart(in_y))
    back = pool_pixels(layout, to_pixels(patches, kind="density").values, how="inverse")
    whole_x, whole_y = in_x.sum(axis=0) > w - 1e-9, in_y.sum(axis=0) > h - 1e-9
    whole = np.outer(whole_y, whole_x)
    assert np.allclose(back.values[0][whole], patches.values[0][whole], atol=1e-4)


def test_a_pixel_touched_by_rounding_alone_takes_nothing_from_the_inverse() -> None:
    layout = ImageLayout((8000, 50), (Tile("base", (1, 1), (1.8e-12, 0.0, 4000.000000000002, 50.0)),))
    patches = filled(layout, 0)
    back = pool_pixels(layout, to_pixels(patches, kind="density").values, how="inverse")
    assert back.values[0] == pytest.approx(patches.values[0], rel=1e-4)


def test_mean_and_back_is_the_identity_where_edges_fall_between_pixels() -> None:
    layout = ImageLayout((60, 40), (Tile("base", (4, 5), (-10.0, 0.0, 50.0, 40.0)),))
    patches = filled(layout)
    back = pool_pixels(layout, to_pixels(patches, kind="density").values)
    assert np.allclose(back.values[0], patches.values[0], atol=1e-6)


def test_density_of_a_constant_is_the_constant_in_every_merge_but_sum() -> None:
    layout = ImageLayout((50, 30), (Tile("base", (3, 3), (0, 0, 50, 30)), Tile("tiles", (4, 7), (5.5, 3.2, 41, 30))))
    ones = PatchMap(tuple(np.ones(t.grid_hw) for t in layout.tiles), layout)
    for merge in ("mean", "max", "base"):
        assert np.allclose(to_pixels(ones, kind="density", merge=merge).values, 1.0)  # type: ignore[arg-type]
    both = to_pixels(ones, kind="density", merge="sum").values
    assert both[0, 0] == 1.0
    assert both[15, 20] == pytest.approx(2.0)
    tiles = to_pixels(ones, kind="density", merge="tiles")
    assert not tiles.seen[0, 0]
    assert tiles.values[0, 0] == 0.0
    assert tiles.values[15, 20] == pytest.approx(1.0)


def test_what_a_centre_crop_left_out_is_not_seen() -> None:
    layout = ImageLayout((90, 60), (Tile("base", (4, 4), (15.0, 0.0, 75.0, 60.0)),))
    pixels = to_pixels(PatchMap((np.ones((4, 4)),), layout))
    assert not pixels.seen[:, :15].any()
    assert not pixels.seen[:, 75:].any()
    assert pixels.seen[:, 15:75].all()
    assert pixels.values[:, :15].sum() == 0
    assert pixels.outside == 0.0


def test_mass_in_padding_is_counted_outside() -> None:
    layout = ImageLayout((90, 60), (Tile("base", (6, 6), (0.0, -15.0, 90.0, 75.0)),))
    values = np.zeros((6, 6))
    values[0], values[3] = 1.0, 2.0
    pixels = to_pixels(PatchMap((values,), layout))
    assert pixels.outside == pytest.approx(6.0)
    assert pixels.total == pytest.approx(12.0)


def test_cells_out_of_the_window_are_not_there() -> None:
    layout = ImageLayout((40, 20), (Tile("base", (1, 2), (0.0, 0.0, 40.0, 20.0)),))
    hidden = PatchMap((np.array([[5.0, 1.0]]),), layout, visible=(np.array([[False, True]]),))
    mass = to_pixels(hidden)
    assert not mass.seen[:, :20].any()
    assert mass.seen[:, 20:].all()
    assert mass.total == pytest.approx(1.0)
    assert np.allclose(to_pixels(hidden, kind="density").values[:, 20:], 1.0)
    low = PatchMap((np.array([[0.0, 1.0]]),), layout)
    assert to_pixels(low).seen.all()


def test_bilinear_blends_between_centres_and_is_flat_beyond() -> None:
    layout = ImageLayout((40, 1), (Tile("base", (1, 2), (0.0, 0.0, 40.0, 1.0)),))
    row = to_pixels(PatchMap((np.array([[0.0, 1.0]]),), layout), kind="density", smooth="bilinear").values[0]
    assert np.allclose(row[:10], 0.0, atol=1e-6)
    assert np.allclose(row[30:], 1.0)
    assert np.allclose(row[10:30], (np.arange(20) + 0.5) / 20, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.floats(-50, 50), st.floats(0.1, 200), st.integers(1, 12), st.integers(1, 60))
def test_smoothing_keeps_the_weight_of_pixels_and_cells(low: float, span: float, cells: int, size: int) -> None:
    edges = np.linspace(low, low + span, cells + 1)
    spans = np.stack([edges[:-1], edges[1:]], axis=1)
    hard, soft = overlap(spans, size), overlap(spans, size, "bilinear")
    assert np.allclose(hard.sum(axis=1), soft.sum(axis=1), atol=1e-9)
    inside = edges[0] >= 0 and edges[-1] <= size
    if inside:
        assert np.allclose(soft.sum(axis=0), span / cells)
    assert soft.min() >= -1e-12


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"merge": "median"}, SpecError, "merge must be one of sum, mean"),
        ({"kind": "heat"}, SpecError, "kind must be one of mass, density"),
        ({"smooth": "cubic"}, SpecError, "smooth must be None or 'bilinear'"),
        ({"merge": "max"}, SpecError, "maximum of masses is not a mass"),
        ({"merge": "tiles"}, MapError, "needs a tile of kind tiles or crop; this picture has: base"),
    ],
)
def test_options_that_do_not_exist(options: dict[str, Any], error: type[Exception], match: str) -> None:
    layout = ImageLayout((4, 4), (Tile("base", (2, 2), (0.0, 0.0, 4.0, 4.0)),))
    with pytest.raises(error, match=match):
        to_pixels(filled(layout), **options)


@pytest.mark.parametrize("image_wh", [(4000, 3000), (8000, 50), (1, 10000)])
def test_large_and_thin_pictures_are_quick(image_wh: tuple[int, int]) -> None:
    w, h = image_wh
    layout = ImageLayout(image_wh, (Tile("base", (24, 24), (0, 0, w, h)), Tile("tiles", (48, 64), (0, 0, w, h))))
    patches = filled(layout)
    start = time.process_time()
    pixels = to_pixels(patches)
    assert time.process_time() - start < 2.0
    assert pixels.values.dtype == np.float32
    assert pixels.image_wh == image_wh


def test_the_result_says_what_was_done() -> None:
    layout = ImageLayout((4, 4), (Tile("base", (2, 2), (0.0, 0.0, 4.0, 4.0)),))
    pixels = to_pixels(filled(layout, label="cat"), kind="density", smooth="bilinear")
    assert isinstance(pixels, PixelMap)
    assert pixels.label == "cat"
    assert pixels.provenance.steps == ("pixels: density, merge sum, bilinear",)
