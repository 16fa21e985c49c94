"""Tiles: a picture as several views, each a grid of its own, one after the other in the prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from sys import modules
from typing import Any

from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.plan import ImagePlan, nowhere, places, raster
from vlmattn.core.errors import LayoutError, UnsupportedModel
from vlmattn.core.layout import ImageLayout, Tile, TileKind


@dataclass(frozen=True)
class View:
    """What the vision tower gets of a picture at once. ``kind`` is that of its tile."""

    kind: TileKind
    canvas: Canvas


def cut(canvas: Canvas, tiles_hw: tuple[int, int], tile_wh: tuple[int, int]) -> list[View]:
    """Tiles of ``tile_wh`` pixels from the top-left corner on, row by row."""
    width, height = tile_wh
    rows, cols = tiles_hw
    return [
        View("crop", canvas.window(col * width, row * height, width, height))
        for row in range(rows)
        for col in range(cols)
    ]


def stretched_tiles(image_wh: tuple[int, int], tiles_hw: tuple[int, int], side: int) -> list[View]:
    """The picture stretched to rows x cols squares of ``side`` pixels, and cut into them."""
    rows, cols = tiles_hw
    return cut(Canvas.of(image_wh).resized(cols * side, rows * side), tiles_hw, (side, side))


def whole(image_wh: tuple[int, int], side: int, kind: TileKind) -> View:
    """The whole picture stretched to a square of ``side`` pixels."""
    return View(kind, Canvas.of(image_wh).resized(side, side))


def plan_views(image_wh: tuple[int, int], views: Sequence[View], cell: int) -> ImagePlan:
    """The views' grids one after the other, each row by row; a token stands for ``cell`` x ``cell`` pixels."""
    width, height = views[0].canvas.wh
    return plan_tiles(image_wh, [Tile(v.kind, *v.canvas.grid(cell)) for v in views], (height, width))


def plan_tiles(image_wh: tuple[int, int], grids: Sequence[Tile], view_hw: tuple[int, int]) -> ImagePlan:
    """One grid per view, one after the other; tokens of views that hold nothing but padding have no place."""
    tiles = tuple(tile for tile in grids if _holds_picture(tile, image_wh))
    index = iter(range(len(tiles)))
    parts = [raster(next(index), g.grid_hw) if _holds_picture(g, image_wh) else nowhere(g.cells) for g in grids]
    return ImagePlan(ImageLayout(image_wh, tiles, len(grids)), places(parts), view_hw, len(grids))


def joined(kind: TileKind, grids: Sequence[Tile], tiles_hw: tuple[int, int]) -> Tile:
    """One grid of rows x cols grids that touch, given row by row; each has spans for its rows and columns."""
    across, down = grids[: tiles_hw[1]], grids[:: tiles_hw[1]]
    cols = tuple(span for grid in across for span in grid.col_spans or ())
    rows = tuple(span for grid in down for span in grid.row_spans or ())
    box = (*grids[0].source_box_xyxy[:2], *grids[-1].source_box_xyxy[2:])
    return Tile(kind, (len(rows), len(cols)), box, rows, cols)


def _holds_picture(tile: Tile, image_wh: tuple[int, int]) -> bool:
    x0, y0, x1, y1 = tile.source_box_xyxy
    return x0 < image_wh[0] and y0 < image_wh[1] and x1 > 0 and y1 > 0


def rule_of(image_processor: Any, name: str) -> Callable[..., Any]:
    """The function or method ``name`` with which an image processor decides, from its class or from its module.

    Raises UnsupportedModel if this version of transformers has none.
    """
    found = getattr(image_processor, name, None)
    for cls in type(image_processor).__mro__:
        found = found or getattr(modules.get(cls.__module__), name, None)
    if found is None or not callable(found):
        raise UnsupportedModel(
            f"{type(image_processor).__name__} has no {name!r} in this version of transformers: how it cuts pictures"
            " is not known. Use a version that vlmattn is tested with"
        )
    return found


def check_square(image_processor: Any, side: int, tower_side: int) -> None:
    """Raises LayoutError unless the views that are cut have the side that the vision tower takes."""
    if side != tower_side:
        raise LayoutError(
            f"{type(image_processor).__name__} makes views of {side} x {side} pixels, but the vision tower takes"
            f" {tower_side} x {tower_side}: set the image processor's size to that of the model"
        )
