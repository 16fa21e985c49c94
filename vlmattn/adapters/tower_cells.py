"""From cells back to the tokens of the vision tower: which of them each cell is made of.

Declared per kind of tower, and proved for every family by painting: the token whose input changes most when a cell is
painted must be one of the cell's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters.tower import LEADING_TOKENS
from vlmattn.core.errors import UnsupportedModel
from vlmattn.core.layout import ImageLayout
from vlmattn.core.tower_cells import NO_CELL, TowerCells, TowerView

if TYPE_CHECKING:
    from vlmattn.adapters.adapter import Adapter

Numbers = NDArray[np.int64]


def cell_numbers(picture: ImageLayout) -> list[Numbers]:
    """(rows, cols) numbers of the cells of each tile, counted over the picture; lost cells are counted too."""
    numbers, first = [], 0
    for tile in picture.tiles:
        rows, cols = tile.grid_hw
        numbers.append(np.arange(first, first + rows * cols).reshape(rows, cols))
        first += rows * cols
    return numbers


def cell_count(picture: ImageLayout) -> int:
    """Cells of all tiles, lost ones too."""
    return sum(t.grid_hw[0] * t.grid_hw[1] for t in picture.tiles)


def view_of(owners: Numbers, *, classes: int = 0, registers: int = 0, at_end: bool = False) -> TowerView:
    """A view of patches whose cells are ``owners``, with class and then register tokens before them (or after)."""
    flat = owners.reshape(-1)
    extra = np.full(classes + registers, NO_CELL, dtype=np.int64)
    start = len(flat) if at_end else 0
    places = tuple(range(start, start + len(extra)))
    cell = np.concatenate([flat, extra] if at_end else [extra, flat])
    return TowerView(cell, places[:classes], places[classes:])


def merged_rows(numbers: Numbers, merge: int) -> Numbers:
    """Patches row by row, where a cell is ``merge`` x ``merge`` of them: (rows · merge, cols · merge)."""
    return numbers.repeat(merge, axis=0).repeat(merge, axis=1)


def merged_blocks(numbers: Numbers, merge: int) -> Numbers:
    """Patches cell by cell: the ``merge``² patches of a cell come one after the other."""
    return numbers.reshape(-1).repeat(merge**2)


def windowed_blocks(numbers: Numbers, merge: int, window: int) -> Numbers:
    """Patches cell by cell, cells by windows of ``window`` x ``window`` of them, as towers with windows sort them."""
    rows, cols = numbers.shape
    parts = [
        numbers[top : top + window, left : left + window].reshape(-1)
        for top in range(0, rows, window)
        for left in range(0, cols, window)
    ]
    return np.concatenate(parts).repeat(merge**2)


def fixed_cells(adapter: Adapter, picture: ImageLayout) -> TowerCells:
    """Towers with an input of one size: every tile is a view, its patches row by row behind the class token.

    Raises:
        UnsupportedModel: what comes before the patches of the tower is not known, or the patches of a view do not
            divide evenly among the cells of its tile.
    """
    if not adapter.tower.image_size or adapter.tower.name not in LEADING_TOKENS:
        raise unknown(adapter, "its adapter does not say (Adapter.tower_cells)")
    side, classes = patches_of_side(adapter), class_tokens(adapter)
    views = []
    for numbers in cell_numbers(picture):
        rows, cols = numbers.shape
        if rows != cols or side % rows:
            raise unknown(adapter, f"{side} x {side} patches do not divide among {rows} x {cols} cells")
        views.append(view_of(merged_rows(numbers, side // rows), classes=classes))
    return TowerCells.averaged(views, cell_count(picture))


def patches_of_side(adapter: Adapter) -> int:
    """Rows, and columns, of patches of a tower whose input has one size."""
    vision = getattr(adapter.config, "vision_config", None)
    sizes = [getattr(vision, name, None) for name in ("image_size", "patch_size")]
    size, patch = (max(s) if isinstance(s, (list, tuple)) else s for s in sizes)
    return int(size) // int(patch) if size and patch else adapter.tower.side


def class_tokens(adapter: Adapter) -> int:
    """Class tokens before the patches of a view."""
    return max(0, LEADING_TOKENS.get(adapter.tower.name, 0))


def grid_cells(
    adapter: Adapter, picture: ImageLayout, merge: int, order: str = "rows", *, classes: int = 0, registers: int = 0
) -> TowerCells:
    """Towers whose grid follows the picture, every tile a view.

    Args:
        merge: patches along a side of a cell.
        order: ``rows`` for patches row by row; ``blocks`` for those of a cell one after the other; ``windows`` for such
            blocks, ``patch_windows`` for patches, sorted by the tower's windows.
        classes, registers: tokens before the patches of each view.
    """
    vision = adapter.config.vision_config
    views = []
    for numbers in cell_numbers(picture):
        if order == "windows":
            owners = windowed_blocks(numbers, merge, int(vision.window_size) // merge // adapter.tower.patch_size)
        elif order == "patch_windows":
            owners = windowed_blocks(merged_rows(numbers, merge), 1, int(vision.pos_emb_height))
        else:
            owners = merged_blocks(numbers, merge) if order == "blocks" else merged_rows(numbers, merge)
        views.append(view_of(owners, classes=classes, registers=registers))
    return TowerCells.averaged(views, cell_count(picture))


def joined_tokens(tiles_hw: tuple[int, int], side: int, classes: int) -> Numbers:
    """(rows, cols) numbers of the tokens of views that are joined to one grid; the view of the whole comes first.

    Args:
        tiles_hw: rows and columns of views. side: patches along a side of each. classes: class tokens before them.
    """
    rows, cols = tiles_hw
    view = classes + side**2
    first = view * (1 + np.arange(rows * cols)).reshape(rows, 1, cols, 1) + classes
    return (first + np.arange(side**2).reshape(1, side, 1, side)).reshape(rows * side, cols * side)


def joined_cells(
    picture: ImageLayout, joined: Numbers, kept: tuple[Any, Any], views: Sequence[TowerView], merge: int
) -> TowerCells:
    """The first tile is the first view; the second is the joined grid of the others, cut and shrunk.

    Args:
        joined: (rows, cols) tokens of the joined grid. kept: its rows and columns of cells that were not cut off.
        merge: patches along a side of a cell.
    """
    base, (rows, cols) = picture.tiles[0].cells, picture.tiles[1].grid_hw
    first = TowerCells.averaged(views, base)
    down, across = (_along(span, n, merge) for span, n in zip(kept, (rows, cols), strict=True))
    pairs = down[:, None, :, None] * across[None, :, None, :]  # cell row, cell column, joined row, joined column
    row, col, joined_row, joined_col = np.nonzero(pairs)
    window = joined[kept[0].first * merge :, kept[1].first * merge :]
    return TowerCells(
        tuple(views),
        base + rows * cols,
        np.concatenate([first.cell, base + row * cols + col]),
        np.concatenate([first.token, window[joined_row, joined_col]]),
        np.concatenate([first.weight, pairs[row, col, joined_row, joined_col]]),
    )


def _along(kept: Any, count: int, merge: int) -> NDArray[np.float64]:
    """(count, patches) weights along one side of a joined grid."""
    small = np.eye(count) if kept.count == count else shrinking(kept.count, count)
    return small.repeat(merge, axis=1) / merge


def shrinking(joined: int, kept: int) -> NDArray[np.float64]:
    """(kept, joined) weights of bilinear interpolation along one side, with the middles of the end cells kept inside.

    Cell k of the shrunk side looks at the point (k + ½)·joined/kept − ½ of the joined one.
    """
    place = np.clip((np.arange(kept) + 0.5) * joined / kept - 0.5, 0, joined - 1)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, joined - 1)
    weights = np.zeros((kept, joined))
    np.add.at(weights, (np.arange(kept), low), 1 - (place - low))
    np.add.at(weights, (np.arange(kept), high), place - low)
    return weights


def layers_read(config: Any, depth: int) -> int:
    """How many of the tower's ``depth`` layers reach the language model: up to ``vision_feature_layer``, else all."""
    said = getattr(config, "vision_feature_layer", None)
    numbers = [n for n in (said if isinstance(said, (list, tuple)) else [said]) if isinstance(n, int)]
    return max((n if n >= 0 else depth + 1 + n for n in numbers), default=depth)


def unknown(adapter: Adapter, reason: str) -> UnsupportedModel:
    """The error of a family whose tower tokens are not known."""
    return UnsupportedModel(
        f"which tokens of the vision tower the cells of {adapter.spec.name} are made of is not known: {reason}. The "
        "text-side maps (run.map) do not need it"
    )
