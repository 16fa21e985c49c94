"""Words written on the cells of a grid, over the picture they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vlmattn.overlay.colours import DEFAULT, colour_table
from vlmattn.overlay.text import draw_lines, length, line_height, wrapped

_CELL = 72
_MOST = 4096


class CellWord(NamedTuple):
    """A word on a cell: its box in original pixels, and how sure it is, 0 to 1."""

    box_xyxy: tuple[float, float, float, float]
    word: str
    share: float
    marked: bool = False


def with_words(image: Image.Image, cells: Sequence[CellWord], *, cmap: str = DEFAULT) -> Image.Image:
    """The picture, paled and enlarged so that words fit, with each cell's word; the frame's colour says how sure it is.

    Marked cells are crossed out. The longer side is at most 4096 pixels.
    """
    smallest = min((c.box_xyxy[2] - c.box_xyxy[0] for c in cells), default=float(_CELL))
    factor = min(max(_CELL / max(smallest, 1e-6), 1.0), max(_MOST / max(image.size), 1.0))
    size = (round(image.size[0] * factor), round(image.size[1] * factor))
    pale = np.asarray(image.resize(size, Image.Resampling.BICUBIC)).astype(np.float32) * 0.45 + 255 * 0.55
    canvas = Image.fromarray(pale.round().astype(np.uint8))
    table = colour_table(cmap)
    for cell in cells:
        _draw(canvas, cell, factor, table)
    return canvas


def _draw(canvas: Image.Image, cell: CellWord, factor: float, table: NDArray[np.uint8]) -> None:
    x0, y0, x1, y1 = (round(edge * factor) for edge in cell.box_xyxy)
    x1, y1 = min(x1, canvas.size[0]) - 1, min(y1, canvas.size[1]) - 1
    x0, y0 = max(x0, 0), max(y0, 0)
    if x1 <= x0 + 4 or y1 <= y0 + 4:
        return
    colour = tuple(int(v) for v in table[round(float(np.clip(cell.share, 0, 1)) * (len(table) - 1))])
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((x0, y0, x1, y1), outline=colour, width=max(1, round(1 + 3 * cell.share)))
    if cell.marked:
        pen.line((x0, y0, x1, y1), fill=(200, 0, 0), width=1)
    points = max(7, min((y1 - y0) // 4, 18))
    while points > 7 and any(length(word, points) > x1 - x0 - 4 for word in cell.word.split()):
        points -= 1
    lines = wrapped(cell.word, points, x1 - x0 - 4, most=max(1, (y1 - y0) // line_height(points)))
    top = y0 + max(0, (y1 - y0 - len(lines) * line_height(points)) // 2)
    for number, line in enumerate(lines):
        left = x0 + max(2, round((x1 - x0 - length(line, points)) / 2))
        draw_lines(canvas, (left, top + number * line_height(points)), [line], points, (0, 0, 0))
