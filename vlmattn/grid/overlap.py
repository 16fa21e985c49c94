"""How much of each pixel lies in each cell, along one side of a picture."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.core.layout import Spans, Tile

Smooth = Literal["bilinear"] | None
Matrix = NDArray[np.float64]


def cell_spans(tile: Tile) -> tuple[Matrix, Matrix]:
    """Start and end of a tile's cells in original pixels: (cols, 2) in x and (rows, 2) in y."""
    x0, y0, x1, y1 = tile.source_box_xyxy
    rows, cols = tile.grid_hw
    return _spans(tile.col_spans, x0, x1, cols), _spans(tile.row_spans, y0, y1, rows)


def _spans(told: Spans | None, low: float, high: float, count: int) -> Matrix:
    if told is not None:
        return np.asarray(told, dtype=np.float64)
    edges = np.linspace(low, high, count + 1)
    return np.stack([edges[:-1], edges[1:]], axis=1)


def overlap(spans: Matrix, size: int, smooth: Smooth = None) -> Matrix:
    """(size, cells): how many pixel lengths of each pixel belong to each cell, given the cells' (start, end).

    Without ``smooth`` a cell owns what lies between its edges. With ``bilinear`` its weight falls off linearly from
    its centre to its neighbours' centres (flat beyond the outermost centres); the whole weight of a cell stays its
    width and, between cells of one width, the whole weight of a pixel stays what the cells cover of it. Nothing is
    sampled: all is integrated, so cells narrower than a pixel count in full. The cells on both sides of a gap blend as
    if they touched; the gap itself belongs to none.
    """
    if smooth not in (None, "bilinear"):
        raise SpecError(f"smooth must be None or 'bilinear', got {smooth!r}")
    pixels = np.arange(size + 1, dtype=np.float64)
    reached = np.clip(pixels[:, None], spans[None, :, 0], spans[None, :, 1])
    if smooth is None:
        return np.asarray(np.diff(reached, axis=0))
    cells, width = len(spans), np.diff(spans, axis=1)[:, 0]
    position = np.clip(((reached - spans[:, 0]) / width).sum(axis=1), 0, cells)
    area = _tent_area(position[:, None] - (np.arange(-1, cells + 1) + 0.5)[None, :])
    area[:, 1] += area[:, 0]
    area[:, -2] += area[:, -1]
    return np.asarray(np.diff(area[:, 1:-1], axis=0) * width)


def _tent_area(t: Matrix) -> Matrix:
    """Area under the tent 1 - |t| from its left end to ``t``."""
    left, right = np.clip(t + 1, 0, 1), np.clip(1 - t, 0, 1)
    return np.asarray(np.where(t < 0, left**2 / 2, 1 - right**2 / 2), dtype=np.float64)


def tile_overlap(tile: Tile, image_wh: tuple[int, int], smooth: Smooth = None) -> tuple[Matrix, Matrix]:
    """:func:`overlap` of a tile in x (W, cols) and in y (H, rows)."""
    x, y = cell_spans(tile)
    return overlap(x, image_wh[0], smooth), overlap(y, image_wh[1], smooth)


def cell_sizes(tile: Tile) -> tuple[Matrix, Matrix]:
    """Widths (cols,) and heights (rows,) of a tile's cells in original pixels."""
    x, y = cell_spans(tile)
    return np.diff(x, axis=1)[:, 0], np.diff(y, axis=1)[:, 0]


def by_row(weights: Matrix, floor: float = 1e-12) -> Matrix:
    """Rows divided by their sums; rows without weight stay zero."""
    total = weights.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(weights, total, out=np.zeros_like(weights), where=total > floor))
