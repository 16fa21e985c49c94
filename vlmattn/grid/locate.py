"""From the original's pixels to the patch grids."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.layout import Box, ImageLayout, Tile
from vlmattn.core.provenance import Provenance
from vlmattn.grid.overlap import by_row, cell_sizes, cell_spans, tile_overlap
from vlmattn.grid.patch_map import PatchMap

Cell = tuple[int, int, int]


def cell_at(layout: ImageLayout, x: float, y: float) -> list[Cell]:
    """(tile, row, col) of every cell that holds the point (x, y), in original pixels; empty if none does.

    >>> from vlmattn.core.layout import ImageLayout, Tile
    >>> layout = ImageLayout((4, 2), (Tile("base", (1, 2), (0.0, 0.0, 4.0, 2.0)),))
    >>> cell_at(layout, 3.5, 0.5)
    [(0, 0, 1)]
    """
    found = []
    for index, tile in enumerate(layout.tiles):
        in_x, in_y = cell_spans(tile)
        col, row = _holding(in_x, x), _holding(in_y, y)
        if row is not None and col is not None and (row, col) not in tile.lost:
            found.append((index, row, col))
    return found


def cells_of_box(layout: ImageLayout, box_xyxy: Box) -> list[Cell]:
    """(tile, row, col) of every cell that shares area with the box, tile by tile, row by row.

    Raises MapError if the box has no area.

    >>> from vlmattn.core.layout import ImageLayout, Tile
    >>> layout = ImageLayout((4, 2), (Tile("base", (1, 2), (0.0, 0.0, 4.0, 2.0)),))
    >>> cells_of_box(layout, (0.0, 0.0, 3.0, 1.0))
    [(0, 0, 0), (0, 0, 1)]
    """
    _check_box(box_xyxy)
    found: list[Cell] = []
    for index, tile in enumerate(layout.tiles):
        shared_x, shared_y = _shared(tile, box_xyxy)
        rows, cols = np.nonzero(np.logical_and.outer(shared_y > 0, shared_x > 0) & tile.held)
        found += [(index, int(r), int(c)) for r, c in zip(rows, cols, strict=True)]
    return found


def cell_coverage(layout: ImageLayout, region: ArrayLike | Box) -> tuple[NDArray[np.float64], ...]:
    """Per tile, (rows, cols): the share of each cell's area *inside the picture* that the region covers, 0 to 1.

    Args:
        region: a box (x0, y0, x1, y1), or a mask (H, W) whose values are 0 to 1.

    Cells outside the picture and lost ones get 0. Raises MapError for a mask of another size or a box without area.

    >>> from vlmattn.core.layout import ImageLayout, Tile
    >>> layout = ImageLayout((4, 2), (Tile("base", (1, 2), (0.0, 0.0, 4.0, 2.0)),))
    >>> cell_coverage(layout, (0.0, 0.0, 3.0, 1.0))[0].tolist()
    [[0.5, 0.25]]
    """
    width, height = layout.image_wh
    array = np.asarray(region, dtype=np.float64)
    if array.shape == (4,):
        box = _check_box(tuple(float(v) for v in array))
        return tuple(_box_coverage(t, box, (width, height)) * t.held for t in layout.tiles)
    if array.shape != (height, width):
        raise MapError(
            f"region must be a box of 4 numbers or a mask of shape (H, W) = {(height, width)}, got {array.shape}"
        )
    return tuple(_means(t, array, (width, height)) * t.held for t in layout.tiles)


def pool_pixels(
    layout: ImageLayout,
    image: ArrayLike,
    *,
    how: Literal["mean", "inverse"] = "mean",
    provenance: Provenance | None = None,
    label: str = "",
) -> PatchMap:
    """Values per cell from values per pixel.

    Args:
        image: (H, W) numbers.
        how: ``mean`` takes the mean over the cell's area inside the picture. ``inverse`` undoes
            ``to_pixels(kind="density")`` of one tile exactly, where pixels lie across cell edges too: it finds the
            cells whose pixels come closest to ``image`` (least squares). Both agree where edges fall between pixels.

    Cells outside the picture get 0.

    Raises:
        MapError: another size than the layout's; ``inverse`` where cells are smaller than a pixel, or cut off so that
            pixels do not tell them apart.

    Example:
        >>> from vlmattn.core.layout import ImageLayout, Tile
        >>> layout = ImageLayout((4, 2), (Tile("base", (1, 2), (0.0, 0.0, 4.0, 2.0)),))
        >>> pool_pixels(layout, [[1, 3, 5, 5], [1, 3, 5, 9]]).values[0].tolist()
        [[2.0, 6.0]]
    """
    width, height = layout.image_wh
    array = np.asarray(image, dtype=np.float64)
    if array.shape != (height, width):
        raise MapError(f"image must have shape (H, W) = {(height, width)}, got {array.shape}")
    if how not in ("mean", "inverse"):
        raise SpecError(f"how must be 'mean' or 'inverse', got {how!r}")
    pool = _means if how == "mean" else _inverse
    values = tuple(pool(t, array, (width, height)) for t in layout.tiles)
    source = provenance if provenance is not None else Provenance()
    return PatchMap(values, layout, source.then(f"pooled from pixels: {how}"), label)


def _holding(spans: NDArray[np.float64], at: float) -> int | None:
    """Index of the span that holds a place; None before, after and between them."""
    index = int(np.searchsorted(spans[:, 0], at, side="right")) - 1
    return index if index >= 0 and at < spans[index, 1] else None


def _check_box(box_xyxy: tuple[float, ...]) -> Box:
    x0, y0, x1, y1 = box_xyxy
    if not (x1 > x0 and y1 > y0):
        raise MapError(f"a box must have positive width and height (x0, y0, x1, y1), got {box_xyxy}")
    return x0, y0, x1, y1


def _shared(tile: Tile, box_xyxy: Box) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Length that each column (in x) and each row (in y) shares with a box."""
    x, y = cell_spans(tile)
    x0, y0, x1, y1 = box_xyxy
    return np.diff(np.clip(x, x0, x1), axis=1)[:, 0], np.diff(np.clip(y, y0, y1), axis=1)[:, 0]


def _box_coverage(tile: Tile, box: Box, image_wh: tuple[int, int]) -> NDArray[np.float64]:
    w, h = image_wh
    whole_x, whole_y = _shared(tile, (0.0, 0.0, float(w), float(h)))
    inner = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(w)), min(box[3], float(h)))
    if inner[2] <= inner[0] or inner[3] <= inner[1]:
        return np.zeros(tile.grid_hw)
    part_x, part_y = _shared(tile, inner)
    return np.outer(_ratio(part_y, whole_y), _ratio(part_x, whole_x))


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 1e-12)


def _means(tile: Tile, image: NDArray[Any], image_wh: tuple[int, int]) -> NDArray[np.float64]:
    in_x, in_y = tile_overlap(tile, image_wh)
    return np.asarray(by_row(in_y.T) @ image @ by_row(in_x.T).T, dtype=np.float64)


def _inverse(tile: Tile, image: NDArray[np.float64], image_wh: tuple[int, int]) -> NDArray[np.float64]:
    w, h = (float(sizes.min()) for sizes in cell_sizes(tile))
    if min(w, h) < 1:
        raise MapError(f"cells of {w:.3g} x {h:.3g} pixels are smaller than a pixel: use how='mean'")
    in_x, in_y = tile_overlap(tile, image_wh)
    return np.asarray(_left_inverse(in_y) @ image @ _left_inverse(in_x).T, dtype=np.float64)


def _left_inverse(overlap: NDArray[np.float64]) -> NDArray[np.float64]:
    """(cells, pixels) that undoes the (pixels, cells) averaging of ``density``; zero for cells outside."""
    inside = overlap.sum(axis=0) > 1e-6
    spread = by_row(overlap, floor=1e-9)[:, inside]  # pixels that a tile touches by rounding alone show none of it
    undo = np.linalg.pinv(spread)
    if not np.allclose(undo @ spread, np.eye(int(inside.sum())), atol=1e-6):
        raise MapError(
            f"{int(inside.sum())} cells lie on {int((overlap.sum(axis=1) > 0).sum())} pixels so that these do not"
            " tell them apart: use how='mean'"
        )
    out = np.zeros(overlap.T.shape)
    out[inside] = undo
    return out
