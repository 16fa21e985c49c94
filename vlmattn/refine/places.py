"""From a map to a place: a mask, its regions, and the box that holds them, in pixels of the original.

What is decided for hard cases: a flat map has no place (an error). A mask holds only pixels above the map's lowest
value, so that ties never make it everything, unless ``share=1`` asks for everything. A box smaller than a patch of the
model grows to one; one larger than the picture is the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError
from vlmattn.grid import PatchMap, PixelMap
from vlmattn.grid.overlap import cell_sizes
from vlmattn.grid.regions import Region, ranked_regions
from vlmattn.refine.recipes import Recipe

Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Place:
    """Where to look again.

    Attributes:
        mask: (H, W) bool. box_xyxy: pixels of the original, ends exclusive. regions: that the mask consists of, best
            first; empty for windows.
    """

    mask: NDArray[np.bool_]
    box_xyxy: Box
    regions: tuple[Region, ...] = ()

    @property
    def share(self) -> float:
        """Of the picture's pixels, how many the box holds, 0 to 1."""
        x0, y0, x1, y1 = self.box_xyxy
        return (x1 - x0) * (y1 - y0) / self.mask.size


def place_of(patch_map: PatchMap, pixels: PixelMap, recipe: Recipe) -> Place:
    """The place that a recipe finds on a map.

    Args:
        patch_map: the map on patches. pixels: the same in pixels of the original.

    Raises:
        MapError: the map is flat, or no region is large enough.
    """
    if pixels.is_flat:
        raise MapError(
            "the map is flat, so no place stands out: take other layers= or another recipe, or keep the first answer"
        )
    least, origin = finest_patch(patch_map)
    if recipe.place == "regions":
        return _regions(pixels, recipe, least)
    side = recipe.window_px or max(1, round((recipe.window_share or 1.0) * max(pixels.image_wh)))
    if recipe.place == "window":
        box = best_window(pixels, side, recipe.ratios, least, origin)
    else:
        box = around(pixels.peak_xy, side, pixels.image_wh, least)
    box = widened(box, recipe.margin, pixels.image_wh)
    mask = np.zeros(pixels.values.shape, dtype=np.bool_)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return Place(mask, box)


def finest_patch(patch_map: PatchMap) -> tuple[tuple[float, float], tuple[float, float]]:
    """Width and height, and the first corner, of the patches of the tile that has the smallest; original pixels."""
    found = []
    for tile in patch_map.layout.tiles:
        widths, heights = cell_sizes(tile)
        found.append(((float(widths.min()), float(heights.min())), tile.source_box_xyxy[:2]))
    return min(found, key=lambda one: one[0][0] * one[0][1])


# -- regions -----------------------------------------------------------------------------------------------------------


def _regions(pixels: PixelMap, recipe: Recipe, least: tuple[float, float]) -> Place:
    labels, found = ranked_regions(
        high_mask(pixels, recipe.share), pixels.values, neighbours=recipe.neighbours, rank=recipe.rank
    )
    total = sum(region.area for region in found)
    large = [region for region in found if region.area >= recipe.least_share * total]
    if not large:
        raise MapError(f"no region of the mask holds {recipe.least_share:.1%} of it: lower least_share")
    kept = large[: recipe.keep if recipe.keep is not None else max(3, len(found) // 5)]
    mask = np.isin(labels, [region.number for region in kept])
    boxes = np.array([region.box_xyxy for region in kept])
    tight = (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())
    box = widened(tight, recipe.margin, pixels.image_wh)
    return Place(mask, grown(box, pixels.image_wh, least), tuple(kept))


def high_mask(pixels: PixelMap, share: float) -> NDArray[np.bool_]:
    """(H, W) the seen pixels at or above the (1 - share) quantile of the seen ones, and above the lowest of them.

    ``share=1`` gives the whole picture, seen or not.

    >>> pixels = PixelMap(np.array([[0.0, 0.0, 0.0, 2.0]]), np.ones((1, 4), bool))
    >>> high_mask(pixels, 0.5).tolist()
    [[False, False, False, True]]
    """
    if share >= 1:
        return np.ones(pixels.values.shape, dtype=np.bool_)
    seen = pixels.values[pixels.seen]
    threshold = np.percentile(seen.astype(np.float64), 100 * (1 - share))
    return np.asarray(pixels.seen & (pixels.values >= threshold) & (pixels.values > seen.min()))


# -- windows -----------------------------------------------------------------------------------------------------------


def best_window(
    pixels: PixelMap,
    side: int,
    ratios: tuple[float, ...],
    patch_wh: tuple[float, float],
    origin_xy: tuple[float, float] = (0.0, 0.0),
) -> Box:
    """ViCrop's search: of the windows of each size the one with the largest sum, of the sizes the sharpest.

    Zhang et al., arXiv 2502.17422: windows move patch by patch; sharpness is what the best window has over the mean of
    its neighbours (a patch to each side, those that lie in the picture), per patch inside. The box has the window's
    middle and ``side`` times the ratio, moved into the picture. Here sums are over the map in pixels of the original,
    so that centre crops and tiles count where they lie; on one uncropped tile they are the paper's sums of patches.

    Args:
        pixels: the map. side: pixels. ratios: sizes to try, times ``side``. patch_wh: steps, and unit of size.
        origin_xy: where some patch begins.
    """
    width, height = pixels.image_wh
    (first_x, step_x, columns), (first_y, step_y, rows) = (
        _grid(size, step, origin) for size, step, origin in zip((width, height), patch_wh, origin_xy, strict=True)
    )
    total = _integral(np.where(pixels.seen, pixels.values, 0.0))
    best: tuple[float, Box] | None = None
    for ratio in ratios:
        wide, high = min(int(side * ratio / step_x), columns), min(int(side * ratio / step_y), rows)
        wide, high = max(wide, 1), max(high, 1)
        if wide == columns and high == rows and ratio == ratios[0]:
            return 0, 0, width, height
        left = first_x + np.arange(columns - wide + 1) * step_x
        top = first_y + np.arange(rows - high + 1) * step_y
        sums = _window_sums(total, left, left + wide * step_x, top, top + high * step_y)
        row, column = divmod(int(sums.argmax()), sums.shape[1])
        sharpness = (sums[row, column] - _beside(sums, row, column)) / (wide * high)
        middle = (float(left[column]) + wide * step_x / 2, float(top[row]) + high * step_y / 2)
        if best is None or sharpness > best[0]:
            best = sharpness, around(middle, int(side * ratio), pixels.image_wh, patch_wh)
    return best[1] if best is not None else (0, 0, width, height)


def _integral(values: NDArray[np.float64]) -> NDArray[np.float64]:
    summed = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    summed[1:, 1:] = np.cumsum(np.cumsum(values, axis=0, dtype=np.float64), axis=1)
    return summed


def _window_sums(
    total: NDArray[np.float64], left: NDArray[Any], right: NDArray[Any], top: NDArray[Any], bottom: NDArray[Any]
) -> NDArray[np.float64]:
    """(rows, columns) sums of windows, one per left and top edge; edges inside pixels cut these in parts."""
    upper, lower = _between(total, top, 0), _between(total, bottom, 0)
    return np.asarray(
        _between(lower, right, 1) - _between(lower, left, 1) - _between(upper, right, 1) + _between(upper, left, 1)
    )


def _grid(size: int, step: float, origin: float) -> tuple[float, float, int]:
    """Where patches begin along a side, how long they are, and how many fit into the picture; one at least."""
    step = min(step, float(size))
    first = float(np.mod(origin, step))
    first = 0.0 if step - first < 1e-6 else first
    return first, step, max(1, int((size - first) / step + 1e-6))


def _between(total: NDArray[np.float64], places: NDArray[np.floating], axis: int) -> NDArray[np.float64]:
    places = np.clip(places, 0, total.shape[axis] - 1)
    low = np.floor(places).astype(np.int64)
    high = np.minimum(low + 1, total.shape[axis] - 1)
    part = (places - low).reshape((-1, 1) if axis == 0 else (1, -1))
    return np.asarray(np.take(total, low, axis) * (1 - part) + np.take(total, high, axis) * part)


def _beside(sums: NDArray[np.float64], row: int, column: int) -> float:
    near = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
    inside = [sums[r, c] for r, c in near if 0 <= r < sums.shape[0] and 0 <= c < sums.shape[1]]
    return float(np.mean(inside)) if inside else float(sums[row, column])


# -- boxes -------------------------------------------------------------------------------------------------------------


def around(middle_xy: tuple[float, float], side: int, image_wh: tuple[int, int], least: tuple[float, float]) -> Box:
    """A square round a point, moved into the picture; cut to it where it is larger, never under one patch.

    >>> around((5.0, 50.0), 20, (100, 60), (8, 8))
    (0, 40, 20, 60)
    """
    spans = []
    for middle, size, small in zip(middle_xy, image_wh, least, strict=True):
        length = min(max(side, int(np.ceil(small))), size)
        start = int(np.clip(round(middle - length / 2), 0, size - length))
        spans.append((start, start + length))
    (x0, x1), (y0, y1) = spans
    return x0, y0, x1, y1


def grown(box: Box, image_wh: tuple[int, int], least: tuple[float, float]) -> Box:
    """A box that is at least one patch wide and high, about the same middle, inside the picture."""
    x0, y0, x1, y1 = box
    wide, high = max(x1 - x0, int(np.ceil(least[0]))), max(y1 - y0, int(np.ceil(least[1])))
    if (wide, high) == (x1 - x0, y1 - y0):
        return box
    wide, high = min(wide, image_wh[0]), min(high, image_wh[1])
    left = int(np.clip(round((x0 + x1 - wide) / 2), 0, image_wh[0] - wide))
    top = int(np.clip(round((y0 + y1 - high) / 2), 0, image_wh[1] - high))
    return left, top, left + wide, top + high


def widened(box: Box, margin: float, image_wh: tuple[int, int]) -> Box:
    """A box with a share of its own width and height added on each side, cut to the picture."""
    x0, y0, x1, y1 = box
    dx, dy = round((x1 - x0) * margin), round((y1 - y0) * margin)
    return max(x0 - dx, 0), max(y0 - dy, 0), min(x1 + dx, image_wh[0]), min(y1 + dy, image_wh[1])
