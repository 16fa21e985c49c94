"""The highest point of a map without the map in pixels: a photograph has millions, most of them alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError
from vlmattn.grid import PatchMap, to_pixels
from vlmattn.grid.overlap import by_row, tile_overlap

_SEEN = 1e-9


def peak_of(patch_map: PatchMap) -> tuple[float, float]:
    """The place that ``to_pixels(patch_map, merge="mean", kind="density").peak_xy`` gives, in original pixels.

    Pixel columns that lie in the same parts of the same cells have the same values, so one of each run is looked at.

    Raises:
        MapError: no pixel of the picture was seen, or all seen ones have the same value.
    """
    if patch_map.visible is not None:
        return to_pixels(patch_map, merge="mean", kind="density").peak_xy
    overlaps = [tile_overlap(tile, patch_map.layout.image_wh) for tile in patch_map.layout.tiles]
    xs, ys = (_runs(np.concatenate([one[axis] for one in overlaps], axis=1)) for axis in (0, 1))
    values = np.zeros((len(ys), len(xs)), dtype=np.float32)
    count = np.zeros(values.shape, dtype=np.int64)
    for (in_x, in_y), grid in zip(overlaps, patch_map.values, strict=True):
        x, y = in_x[xs], in_y[ys]
        values += (by_row(y) @ np.asarray(grid, dtype=np.float64)).astype(np.float32) @ by_row(x).T.astype(np.float32)
        count += np.logical_and.outer(y.sum(axis=1) > _SEEN, x.sum(axis=1) > _SEEN)
    values /= np.maximum(count, 1)
    if not count.any():
        raise MapError("no pixel of the picture was seen by the model: there is no peak")
    width, height = patch_map.layout.image_wh
    return _highest(np.where(count > 0, values, -np.inf), np.append(xs, width), np.append(ys, height))


def _runs(weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Where runs of equal rows begin."""
    return np.flatnonzero(np.append(True, (weights[1:] != weights[:-1]).any(axis=1)))


def _highest(values: NDArray[np.float32], xs: NDArray[np.int64], ys: NDArray[np.int64]) -> tuple[float, float]:
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    high, low = float(values.max()), float(values[np.isfinite(values)].min())
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        raise MapError("the map is flat: every seen pixel has the same value, so there is no peak")
    floor = high - 1e-5 * (high - low)
    right = column + _leading(values[row, column:] >= floor)
    down = row + _leading(values[row:, column] >= floor)
    return float(xs[column] + xs[right]) / 2, float(ys[row] + ys[down]) / 2


def _leading(high: NDArray[np.bool_]) -> int:
    return len(high) if high.all() else int(high.argmin())
