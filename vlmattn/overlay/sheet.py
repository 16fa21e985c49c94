"""Many maps on one sheet with one scale: words × layers, methods side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmattn.core.errors import SpecError
from vlmattn.core.optional import cv2
from vlmattn.core.provenance import Provenance
from vlmattn.overlay.colours import DEFAULT
from vlmattn.overlay.draw import record_of, rgb_pixels, small_print_of
from vlmattn.overlay.figure import FAINT, INK, MOST_TITLE, PAPER, Caption, bar_height, draw_bar
from vlmattn.overlay.heat import Drawable, Scale, check_fits, is_flat, painted, scale_of
from vlmattn.overlay.metadata import save_picture
from vlmattn.overlay.preview import Bundle, bundle
from vlmattn.overlay.scanpaths import Colour, Path, draw_scanpath
from vlmattn.overlay.text import draw_lines, length, line_height, printable, wrapped

Cell = tuple[str, Any, Drawable]
_GAP, _SIZE, _SMALL = 10, 16, 12
_WIDEST = 180
_LARGEST_CELL = 16_384


@dataclass(frozen=True, eq=False)
class Sheet:
    """A contact sheet. ``image``: the drawn sheet; ``record``: what is on it, written into every file."""

    image: Image.Image
    record: dict[str, Any]

    def save(self, path: str | FilePath, *, quality: int = 92) -> FilePath:
        """Write ``.png``, ``.webp`` or ``.jpg`` with the record inside."""
        return save_picture(path, self.image, self.record, quality=quality)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:
        return bundle(self.image, repr(self))

    def __repr__(self) -> str:
        cells = sum(map(len, self.record.get("cells", ())))
        return f"<Sheet {self.image.width}x{self.image.height}, {cells} cells: {self.record.get('title', '')!r}>"


@dataclass(frozen=True)
class Small:
    """A map scaled down with its picture; areas are averaged before anything is coloured."""

    pixels: NDArray[np.uint8]
    values: NDArray[np.float32]
    seen: NDArray[np.bool_]
    label: str
    provenance: Provenance


def contact_sheet(
    cells: Sequence[Sequence[Cell]],
    *,
    row_titles: Sequence[str] = (),
    column_titles: Sequence[str] = (),
    scale: Scale | None = None,
    cmap: str = DEFAULT,
    cell_width: int = 220,
    title: str = "",
    paths: Sequence[Sequence[Sequence[tuple[Path, Colour]]]] = (),
) -> Sheet:
    """Draw rows of (title, picture, map) cells with one shared scale, printed below.

    Args:
        cells: rows of cells; rows may differ in length.
        row_titles, column_titles: written before the rows and above the columns.
        scale: values of the first and last colour; default: 0 to the highest value on the sheet (cells are scaled down
            first, by averaging areas).
        cell_width: of each picture, in pixels.
        paths: for each row and cell, scanpaths with their colours, drawn over it; see
            :func:`~vlmattn.overlay.draw_scanpath`.

    Raises:
        SpecError: no cell, no width, or too many titles. MapError: a map does not fit its picture.
    """
    if not cells or not any(cells):
        raise SpecError("a sheet needs at least one cell")
    if not 1 <= cell_width <= _LARGEST_CELL:
        raise SpecError(f"cell_width must be 1 to {_LARGEST_CELL} pixels, got {cell_width}")
    columns = max(len(row) for row in cells)
    if len(row_titles) > len(cells) or len(column_titles) > columns:
        raise SpecError(
            f"{len(row_titles)} row titles and {len(column_titles)} column titles for {len(cells)}x{columns} cells"
        )
    small = [[shrunk(picture, one, cell_width) for _, picture, one in row] for row in cells]
    flat_list = [one for row in small for one in row]
    ends = scale_of(list(flat_list), scale)
    record = {
        "title": title,
        "scale": list(ends),
        "colour_map": cmap,
        "rows": list(row_titles),
        "columns": list(column_titles),
        "cells": [[record_of(one, ends, cmap, is_flat(one)) for one in row] for row in small],
    }
    drawn = [[_painted(one, ends, cmap) for one in row] for row in small]
    for pixels_row, paths_row in zip(drawn, paths, strict=False):
        for pixels, some in zip(pixels_row, paths_row, strict=False):
            for path, colour in some:
                draw_scanpath(pixels, path, colour=colour)
    flat = all(is_flat(one) for one in flat_list)
    made = common_provenance([one.provenance for one in flat_list])
    caption = Caption("", small_print_of(made), ends, cmap, flat, made.unit)
    image = _laid_out(drawn, cells, list(row_titles), list(column_titles), title, caption)
    return Sheet(image, record)


def common_provenance(made: list[Provenance]) -> Provenance:
    """What all maps of a sheet have in common; the rest stands in the record."""
    first = made[0]
    texts = [f.name for f in fields(Provenance) if isinstance(getattr(first, f.name), str)]
    differ = [name for name in texts if any(getattr(one, name) != getattr(first, name) for one in made)]
    changes: dict[str, Any] = {name: "various" if name == "normalisation" else "" for name in differ}
    return replace(first, **changes)


def _painted(one: Small, scale: Scale, cmap: str) -> NDArray[np.uint8]:
    return painted(one.pixels, one, scale, cmap=cmap, alpha="value", alpha_max=0.75, flat=is_flat(one))


def shrunk(picture: Any, one: Drawable, width: int) -> Small:
    """A picture and its map at ``width`` pixels (tall ones at twice that in height): means over areas that were seen.

    Raises:
        MapError: the map does not fit the picture.
    """
    pixels = rgb_pixels(picture)
    check_fits(pixels, one)
    factor = min(width / pixels.shape[1], 2 * width / pixels.shape[0])
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    how = cv2().INTER_AREA if factor < 1 else cv2().INTER_NEAREST
    share = cv2().resize(one.seen.astype(np.float32), size, interpolation=how).reshape(size[::-1])
    held = np.where(one.seen, one.values, 0).astype(np.float32)
    # Unseen pixels have no value: they take no part in the mean of an area.
    mean = cv2().resize(held, size, interpolation=how).reshape(size[::-1]) / np.maximum(share, 1e-6)
    return Small(
        cv2().resize(pixels, size, interpolation=how),
        np.where(share > 0, mean, 0).astype(np.float32),
        share > 0.5,
        one.label,
        one.provenance,
    )


def _laid_out(
    drawn: list[list[NDArray[np.uint8]]],
    cells: Sequence[Sequence[Cell]],
    row_titles: list[str],
    column_titles: list[str],
    title: str,
    caption: Caption,
) -> Image.Image:
    columns = max(len(row) for row in drawn)
    widths = [max((row[c].shape[1] for row in drawn if c < len(row)), default=1) for c in range(columns)]
    left = _GAP + min(
        _WIDEST,
        max((math.ceil(length(printable(t[:_WIDEST], _SIZE), _SIZE)) for t in row_titles), default=0)
        + _GAP * bool(row_titles),
    )
    show_titles = [any(cell[0] for cell in row) and not (row_titles and column_titles) for row in cells]
    heights = [
        max((one.shape[0] for one in row), default=1) + line_height(_SMALL) * s
        for row, s in zip(drawn, show_titles, strict=True)
    ]
    full = max(left + sum(widths) + _GAP * columns, 360)
    head = wrapped(title, _SIZE, full - 2 * _GAP, most=MOST_TITLE)
    top = _GAP + len(head) * line_height(_SIZE) + (line_height(_SIZE) if column_titles else 0)
    notes = wrapped(caption.small_print, _SMALL, full - 2 * _GAP)
    bar = bar_height(caption, _SMALL, full - 2 * _GAP)
    foot = bar + len(notes) * line_height(_SMALL) + _GAP
    canvas = Image.new("RGB", (full, top + sum(heights) + _GAP * len(drawn) + foot), PAPER)
    draw_lines(canvas, (_GAP, _GAP // 2), head, _SIZE, INK)
    for number, text in enumerate(column_titles):
        x = left + sum(widths[:number]) + _GAP * number
        line = wrapped(text, _SIZE, widths[number] + _GAP, most=1)
        draw_lines(canvas, (x, top - line_height(_SIZE)), line, _SIZE, INK)
    y = top
    for number, row in enumerate(drawn):
        if number < len(row_titles):
            fitting = max(1, heights[number] // line_height(_SIZE))
            lines = wrapped(row_titles[number], _SIZE, left - 2 * _GAP, most=fitting)
            draw_lines(canvas, (_GAP, y), lines, _SIZE, INK)
        for column, one in enumerate(row):
            x = left + sum(widths[:column]) + _GAP * column
            canvas.paste(Image.fromarray(one), (x, y))
            if show_titles[number]:
                line = wrapped(cells[number][column][0], _SMALL, widths[column], most=1)
                draw_lines(canvas, (x, y + one.shape[0]), line, _SMALL, FAINT)
        y += heights[number] + _GAP
    draw_bar(canvas, (_GAP, y, full - _GAP), caption, _SMALL)
    draw_lines(canvas, (_GAP, y + bar), notes, _SMALL, FAINT)
    return canvas
