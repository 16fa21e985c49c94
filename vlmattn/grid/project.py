"""From the patch grids to the original's pixels."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.layout import Tile
from vlmattn.grid.overlap import Smooth, by_row, cell_sizes, tile_overlap
from vlmattn.grid.patch_map import PatchMap
from vlmattn.grid.pixel_map import PixelMap

Merge = Literal["sum", "mean", "base", "tiles", "max"]
Kind = Literal["mass", "density"]

_WHOLE = ("base", "thumbnail")
_PARTS = ("tiles", "crop")


def to_pixels(patch_map: PatchMap, *, merge: Merge = "sum", kind: Kind = "mass", smooth: Smooth = None) -> PixelMap:
    """The map in original pixels, exact by area.

    ``kind``:
        ``mass``: a cell's value is spread evenly over its own area. Sums are kept: the pixels' sum plus ``outside`` is
        the sum of the merged cells (for ``mean``, divided by the number of tiles).
        ``density``: a pixel gets the mean value of the cells that cover it, weighted by area. Values are kept: a cell
        of value v shows as v whatever its size, and ``pool_pixels(…, how="inverse")`` gives the map back.
    ``merge``, when the picture was seen in several tiles:
        ``sum`` adds what all tiles say of a pixel; ``mean`` averages it (``mass``: over all tiles; ``density``: over
        the tiles that cover the pixel); ``max`` takes the highest (``density`` only); ``base`` uses only views of the
        whole picture, ``tiles`` only parts of it.
    ``smooth``: ``bilinear`` blends neighbouring cells; sums are kept as without it.

    Cells that the query could not attend to (``visible`` False) count as not there.
    Pixels between the cells of a stitched tile (``Tile.row_spans``) belong to none: they are not seen.

    Raises:
        SpecError: an unknown option, or ``max`` with ``mass``.
        MapError: the picture has no tile of the kind asked for, or the map is of several frames of a video.

    Example:
        >>> from vlmattn.core.layout import ImageLayout, Tile
        >>> layout = ImageLayout((4, 2), (Tile("base", (1, 2), (0.0, 0.0, 4.0, 2.0)),))
        >>> to_pixels(PatchMap(([[2.0, 6.0]],), layout)).values.tolist()
        [[0.5, 0.5, 1.5, 1.5], [0.5, 0.5, 1.5, 1.5]]
        >>> to_pixels(PatchMap(([[2.0, 6.0]],), layout), kind="density").values.tolist()
        [[2.0, 2.0, 6.0, 6.0], [2.0, 2.0, 6.0, 6.0]]
    """
    _check_options(merge, kind)
    if len(patch_map.frames) > 1:
        raise MapError(
            f"the map is of a video and has {len(patch_map.frames)} grids in time: choose a frame, as in look.frame(0) "
            "or frame=0"
        )
    chosen = _chosen(patch_map, merge)
    width, height = patch_map.layout.image_wh
    values = np.full((height, width), -np.inf if merge == "max" else 0.0, dtype=np.float32)
    count = np.zeros((height, width), dtype=np.uint8)
    outside = 0.0
    for index in chosen:
        layer, seen, lost = _layer(patch_map, index, kind, smooth)
        outside += lost
        if merge == "max":
            np.maximum(values, layer, out=values, where=seen)
        else:
            values += layer
        count += seen
    if merge == "mean":
        values /= len(chosen) if kind == "mass" else np.maximum(count, 1)
        outside /= len(chosen)
    seen = count > 0
    values[~seen] = 0.0
    step = f"pixels: {kind}, merge {merge}" + (f", {smooth}" if smooth else "")
    return PixelMap(values, seen, outside, patch_map.label, patch_map.provenance.then(step))


def _check_options(merge: str, kind: str) -> None:
    for name, value, known in (
        ("merge", merge, ("sum", "mean", "base", "tiles", "max")),
        ("kind", kind, ("mass", "density")),
    ):
        if value not in known:
            raise SpecError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if merge == "max" and kind == "mass":
        raise SpecError("merge='max' goes with kind='density' only: a maximum of masses is not a mass")


def _chosen(patch_map: PatchMap, merge: str) -> list[int]:
    """Indices of the tiles that ``merge`` uses."""
    kinds = {"base": _WHOLE, "tiles": _PARTS}.get(merge, _WHOLE + _PARTS)
    chosen = [i for i, t in enumerate(patch_map.layout.tiles) if t.kind in kinds]
    if not chosen:
        have = ", ".join(sorted({t.kind for t in patch_map.layout.tiles})) or "none"
        raise MapError(f"merge={merge!r} needs a tile of kind {' or '.join(kinds)}; this picture has: {have}")
    return chosen


def _layer(
    patch_map: PatchMap, index: int, kind: str, smooth: Smooth
) -> tuple[NDArray[np.float32], NDArray[np.bool_], float]:
    """One tile in pixels: values (H, W), seen (H, W), mass outside the picture."""
    tile = patch_map.layout.tiles[index]
    grid = np.asarray(patch_map.values[index], dtype=np.float64)
    in_x, in_y = tile_overlap(tile, patch_map.layout.image_wh, smooth)
    if patch_map.visible is None:
        seen = np.logical_and.outer(in_y.sum(axis=1) > 1e-9, in_x.sum(axis=1) > 1e-9)
        lost = _lost(tile, grid, in_x, in_y)
        if kind == "mass":
            w, h = cell_sizes(tile)
            return _product(in_y / h, grid, in_x / w), seen, lost
        return _product(by_row(in_y), grid, by_row(in_x)), seen, lost
    return _partly_visible(tile, grid, patch_map.visible[index], in_x, in_y, kind)


def _partly_visible(
    tile: Tile, grid: NDArray[np.float64], visible: NDArray[np.bool_], in_x: NDArray[np.float64],
    in_y: NDArray[np.float64], kind: str,
) -> tuple[NDArray[np.float32], NDArray[np.bool_], float]:  # fmt: skip
    grid = np.where(visible, grid, 0.0)
    share = _product(in_y, visible.astype(np.float64), in_x)
    seen = share > 1e-9
    lost = _lost(tile, grid, in_x, in_y)
    if kind == "mass":
        w, h = cell_sizes(tile)
        return _product(in_y / h, grid, in_x / w), seen, lost
    value = _product(in_y, grid, in_x)
    return np.divide(value, share, out=np.zeros_like(value), where=seen), seen, lost


def _lost(tile: Tile, grid: NDArray[np.float64], in_x: NDArray[np.float64], in_y: NDArray[np.float64]) -> float:
    """Mass of the cells' parts that lie outside the picture."""
    w, h = cell_sizes(tile)
    share = np.outer(in_y.sum(axis=0) / h, in_x.sum(axis=0) / w)
    return float((grid * (1.0 - np.minimum(share, 1.0))).sum())


def _product(in_y: NDArray[np.float64], grid: NDArray[np.float64], in_x: NDArray[np.float64]) -> NDArray[np.float32]:
    """in_y (H, rows) · grid (rows, cols) · in_xᵀ (cols, W), the large product in float32."""
    left = np.ascontiguousarray((in_y @ grid).astype(np.float32))
    return np.asarray(left @ in_x.T.astype(np.float32), dtype=np.float32)
