"""Any-resolution pictures: one small view of the whole, and tiles of a large one stitched into one grid.

The large view is resized to fit one of the listed resolutions, padded to it and cut into square tiles. The tiles'
tokens are joined to one grid, rows and columns that lie in padding are cut off (whole cells only, so up to half a
cell of padding stays or goes), and, with a limit, the grid is shrunk.

Where the tile's side is not a multiple of the patch, the tower drops the pixels left over in *every* tile (6 of 384
for SigLIP 384/14). The joined grid then has gaps in pixels, and ``row_spans`` and ``col_spans`` say where its cells
lie. Shrinking by bilinear interpolation makes cell *k* of the small grid from the joined cells around k·s … (k + 1)·s,
with s joined cells to a small one; that stretch of the joined grid, in pixels, is its box. A box that reaches over a
gap holds the gap's pixels too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.cells import Cells, placed
from vlmattn.adapters.plan import ImagePlan, nowhere, places, raster
from vlmattn.adapters.tower import Tower
from vlmattn.core.errors import LayoutError, UnsupportedModel
from vlmattn.core.layout import ImageLayout, Tile


@dataclass(frozen=True)
class TileRule:
    """What decides the tiles of a picture.

    Attributes:
        tower: the vision tower, whose side is the tile's side.
        resolutions: (height, width) pixels that the large view may have, in order of preference.
        most_tiles: shrink the joined grid to about this many tiles' cells; None for no limit.
    """

    tower: Tower
    resolutions: tuple[tuple[int, int], ...]
    most_tiles: int | None = None

    def __post_init__(self) -> None:
        side = self.tower.image_size
        ragged = [r for r in self.resolutions if r[0] % side or r[1] % side]
        if ragged or not self.resolutions:
            raise LayoutError(
                f"image_grid_pinpoints must be multiples of the tower's {side} pixels, got {ragged or 'none'}"
            )
        if self.tower.leading < 0:
            raise UnsupportedModel(
                "vision_feature_select_strategy='default' drops the first token of every tile, and vision tower"
                f" {self.tower.name!r} has no CLS token: the top-left patch would be lost, and the model itself cannot"
                " join such tiles. Use strategy 'full' in model and processor"
            )
        if self.tower.leading:
            raise LayoutError(
                "the CLS token of every tile would be kept (vision_feature_select_strategy='full' with a CLS tower):"
                " the model cannot join such tiles. Use strategy 'default' in model and processor"
            )


@dataclass(frozen=True)
class _Span:
    """Cells [first, last) of one side of the joined grid."""

    first: int
    last: int

    @property
    def count(self) -> int:
        return self.last - self.first


def plan_anyres(rule: TileRule, image_wh: tuple[int, int]) -> ImagePlan:
    """The whole picture stretched to the tower's square, then the tiles, each row ended by a newline token."""
    side = rule.tower.image_size
    base = _base_tile(Canvas.of(image_wh).resized(side, side), rule.tower)
    best_hw = best_resolution(rule, image_wh)
    rows, cols = kept_cells(rule, image_wh, best_hw)
    grid_hw = shrunk(rule, rows.count, cols.count)
    views = 1 + (best_hw[0] // side) * (best_hw[1] // side)
    parts = [raster(0, base.grid_hw), raster(1, grid_hw, newline=True)]
    tiles: tuple[Tile, ...] = (base,)
    if grid_hw[0] and grid_hw[1]:
        tiles = (base, _joined_tile(rule, _large_view(image_wh, best_hw), rows, cols, grid_hw))
    return ImagePlan(ImageLayout(image_wh, tiles, views), places(parts), (side, side), views)


def plan_padded(tower: Tower, image_wh: tuple[int, int]) -> ImagePlan:
    """The whole picture padded to a square, then one newline token: one of several pictures in LLaVA-OneVision."""
    base = _base_tile(Canvas.of(image_wh).squared().resized(tower.image_size, tower.image_size), tower)
    parts = [raster(0, base.grid_hw), nowhere(1)]
    return ImagePlan(ImageLayout(image_wh, (base,), 1), places(parts), (tower.image_size,) * 2, 1)


def _base_tile(canvas: Canvas, tower: Tower) -> Tile:
    return Tile("base", *canvas.grid(tower.patch_size))


def best_resolution(rule: TileRule, image_wh: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the large view, by transformers' own rule."""
    from transformers.image_processing_utils import select_best_resolution

    height, width = select_best_resolution((image_wh[1], image_wh[0]), [list(r) for r in rule.resolutions])
    return int(height), int(width)


def fitted_hw(image_wh: tuple[int, int], best_hw: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the picture inside the large view: one side fits, the other is rounded up."""
    scale_w, scale_h = best_hw[1] / image_wh[0], best_hw[0] / image_wh[1]
    if scale_w < scale_h:
        return min(math.ceil(image_wh[1] * scale_w), best_hw[0]), best_hw[1]
    return best_hw[0], min(math.ceil(image_wh[0] * scale_h), best_hw[1])


def kept_cells(rule: TileRule, image_wh: tuple[int, int], best_hw: tuple[int, int]) -> tuple[_Span, _Span]:
    """Rows and columns of the joined grid that are left after whole cells of padding are cut on both sides."""
    side, cells = rule.tower.image_size, rule.tower.side
    rows, cols = best_hw[0] // side * cells, best_hw[1] // side * cells
    width, height = image_wh
    if width / height > cols / rows:
        cut = (rows - int(round(height * (cols / width), 7))) // 2
        return _Span(cut, rows - cut), _Span(0, cols)
    cut = (cols - int(round(width * (rows / height), 7))) // 2
    return _Span(0, rows), _Span(cut, cols - cut)


def shrunk(rule: TileRule, rows: int, cols: int) -> tuple[int, int]:
    """The joined grid after it is brought near the limit, if it is more than 1.1 times over it (per side)."""
    if rule.most_tiles is None:
        return rows, cols
    ratio = math.sqrt(rows * cols / (rule.most_tiles * rule.tower.side**2))
    return (int(rows // ratio), int(cols // ratio)) if ratio > 1.1 else (rows, cols)


def _large_view(image_wh: tuple[int, int], best_hw: tuple[int, int]) -> Canvas:
    """The picture resized to fit the large view, and padded to it."""
    new_h, new_w = fitted_hw(image_wh, best_hw)
    canvas = Canvas.of(image_wh).resized(new_w, new_h)
    return canvas.window(-((best_hw[1] - new_w) // 2), -((best_hw[0] - new_h) // 2), best_hw[1], best_hw[0])


def _joined_tile(rule: TileRule, view: Canvas, rows: _Span, cols: _Span, grid_hw: tuple[int, int]) -> Tile:
    """The grid's cells in the original: one by one where pixels were dropped between the joined cells."""
    across, down = _cells(rule.tower, cols, grid_hw[1]), _cells(rule.tower, rows, grid_hw[0])
    return placed("tiles", view, down, across)


def _cells(tower: Tower, joined: _Span, count: int) -> Cells:
    """Start and end of each of ``count`` cells that divide a run of joined cells evenly, in pixels of the view."""

    def pixel(cell: int) -> int:
        return cell // tower.side * tower.image_size + cell % tower.side * tower.patch_size

    def start(place: Fraction) -> Fraction:
        cell = math.floor(place)
        return pixel(cell) + (place - cell) * tower.patch_size

    def end(place: Fraction) -> Fraction:
        cell = math.ceil(place) - 1
        return pixel(cell) + (place - cell) * tower.patch_size

    edges = [joined.first + Fraction(k * joined.count, count) for k in range(count + 1)]
    return [(start(a), end(b)) for a, b in pairwise(edges)]


def resolutions_of(points: Any) -> tuple[tuple[int, int], ...]:
    """``image_grid_pinpoints`` of a model or a processor, as (height, width) pairs."""
    return tuple((int(h), int(w)) for h, w in points or ())
