"""The frame round a picture: title above, colour bar and small print below."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vlmattn.overlay.colours import colour_table
from vlmattn.overlay.heat import Scale, cover_of
from vlmattn.overlay.memory import mounted
from vlmattn.overlay.text import draw_lines, length, line_height, wrapped

PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)
MOST_TITLE = 6
"""Lines of a title; the whole of it stands in the file's record."""

_NARROWEST = 480
_MOST_NOTES = 24


@dataclass(frozen=True)
class Caption:
    """What is written round a picture.

    Attributes:
        title: above. small_print: below, in small type. scale: of the colour bar; None for no bar. flat: whether the
            map is flat, which is said instead of drawing a bar. unit: what the numbers of the bar are.
        alpha, alpha_max: how the map covers the picture; see :func:`vlmattn.overlay.overlay`.
    """

    title: str
    small_print: str
    scale: Scale | None
    cmap: str
    flat: bool = False
    unit: str = ""
    alpha: float | str = "value"
    alpha_max: float = 0.75


def text_size(width: int, height: int) -> int:
    """Type size, in pixels, that suits a picture of this size, long and narrow ones included."""
    return int(np.clip(round(max(math.sqrt(width * height) / 40, width / 100)), 15, 96))


def enlargement(width: int, height: int) -> int:
    """The whole factor by which a figure enlarges a tiny picture; 1 for others."""
    longest = max(width, height)
    return max(1, min(_NARROWEST // longest, 64)) if longest < _NARROWEST // 2 else 1


def framed(pixels: NDArray[np.uint8], caption: Caption) -> Image.Image:
    """The picture with its caption."""
    height, width = pixels.shape[:2]
    size = text_size(width, height)
    small = max(11, round(size * 0.62))
    full = max(width, _NARROWEST)
    margin = size // 2
    title = wrapped(caption.title, size, full - 2 * margin, most=MOST_TITLE)
    notes = wrapped(caption.small_print, small, full - 2 * margin, most=_MOST_NOTES)
    head = len(title) * line_height(size) + size if title else 0
    bar = bar_height(caption, small, full - 2 * margin)
    foot = bar + len(notes) * line_height(small) + size
    canvas = mounted(pixels, (full, head + height + foot), ((full - width) // 2, head), PAPER)
    draw_lines(canvas, (margin, size // 2), title, size, INK)
    top = head + height + size // 2
    draw_bar(canvas, (margin, top, full - margin), caption, small)
    draw_lines(canvas, (margin, top + bar), notes, small, FAINT)
    return canvas


def bar_height(caption: Caption, size: int, width: int) -> int:
    """Pixels that :func:`draw_bar` takes: the colours, three values below them, and what the values are."""
    if caption.scale is None:
        return 0
    rows = 1 if caption.flat else 2 + len(wrapped(caption.unit, size, width))
    return rows * line_height(size) + line_height(size) // 2


def draw_bar(canvas: Image.Image, place: tuple[int, int, int], caption: Caption, size: int) -> None:
    """Draw the colour bar from (left, top) to right, with values at its ends and middle, or the words *flat map*.

    The colours lie on a chequerboard as they lie on the picture, so that the bar fades where the map does.
    """
    left, top, right = place
    if caption.scale is None:
        return
    if caption.flat:
        draw_lines(
            canvas, (left, top), ["flat map: every seen pixel has the same value, nothing stands out"], size, INK
        )
        return
    high, row = line_height(size), line_height(size)
    canvas.paste(Image.fromarray(_ramp(caption, right - left, high)), (left, top))
    _draw_values(canvas, (left, top + high, right), caption.scale, size)
    draw_lines(canvas, (left, top + high + row), wrapped(caption.unit, size, right - left), size, INK)


def _ramp(caption: Caption, width: int, height: int) -> NDArray[np.uint8]:
    steps = np.linspace(0, 255, width).astype(int)
    share = cover_of(caption.alpha, caption.alpha_max)[steps][:, None] / 255
    colour = colour_table(caption.cmap)[steps] * share
    light, shade = (np.round(ground * (1 - share) + colour).astype(np.uint8) for ground in (255, 205))
    square = max(2, height // 2)
    odd = (np.arange(width) // square % 2 == 1)[:, None]
    lines = np.stack([np.where(odd, shade, light), np.where(odd, light, shade)])
    return lines[np.arange(height) // square % 2]


def _draw_values(canvas: Image.Image, place: tuple[int, int, int], scale: Scale, size: int) -> None:
    left, top, right = place
    texts = [number(value) for value in (scale[0], (scale[0] + scale[1]) / 2, scale[1])]
    wide = [round(length(text, size)) for text in texts]
    starts = [left, (left + right - wide[1]) // 2, right - wide[2]]
    shown = range(3) if sum(wide) + 2 * size < right - left else (0, 2)
    draw = ImageDraw.Draw(canvas)
    for one, tick in zip(range(3), (left, (left + right) // 2, right - 1), strict=True):
        if one in shown:
            draw.line((tick, top, tick, top + size // 4), fill=INK, width=max(1, size // 12))
            draw_lines(canvas, (starts[one], top + size // 5), [texts[one]], size, INK)


def number(value: float) -> str:
    """A value in three significant digits."""
    return f"{value:.3g}"
