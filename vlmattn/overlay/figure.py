"""The frame round a picture: title above, colour bar and small print below."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmattn.overlay.colours import colour_table
from vlmattn.overlay.heat import Scale
from vlmattn.overlay.text import draw_lines, font, line_height, wrapped

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
            map is flat, which is said instead of drawing a bar.
    """

    title: str
    small_print: str
    scale: Scale | None
    cmap: str
    flat: bool = False


def text_size(width: int, height: int) -> int:
    """Type size, in pixels, that suits a picture of this size."""
    return int(np.clip(round(math.sqrt(width * height) / 40), 15, 96))


def framed(pixels: NDArray[np.uint8], caption: Caption) -> Image.Image:
    """The picture with its caption. A tiny picture is enlarged by a whole factor, which the small print says."""
    height, width = pixels.shape[:2]
    factor = max(1, min(_NARROWEST // max(width, height), 64)) if max(width, height) < _NARROWEST // 2 else 1
    shown = pixels.repeat(factor, axis=0).repeat(factor, axis=1) if factor > 1 else pixels
    small_print = caption.small_print + (f" · shown {factor}x enlarged" if factor > 1 else "")
    size = text_size(shown.shape[1], shown.shape[0])
    small = max(11, round(size * 0.62))
    full = max(shown.shape[1], _NARROWEST)
    margin = size // 2
    title = wrapped(caption.title, size, full - 2 * margin, most=MOST_TITLE)
    notes = wrapped(small_print, small, full - 2 * margin, most=_MOST_NOTES)
    head = len(title) * line_height(size) + size if title else 0
    bar = line_height(size) * 2 if caption.scale is not None else 0
    foot = bar + len(notes) * line_height(small) + size
    canvas = Image.new("RGB", (full, head + shown.shape[0] + foot), PAPER)
    canvas.paste(Image.fromarray(shown), ((full - shown.shape[1]) // 2, head))
    draw_lines(canvas, (margin, size // 2), title, size, INK)
    top = head + shown.shape[0] + size // 2
    if caption.scale is not None:
        draw_bar(canvas, (margin, top, full - margin, top + line_height(size)), caption, small)
    draw_lines(canvas, (margin, top + bar), notes, small, FAINT)
    return canvas


def draw_bar(canvas: Image.Image, box: tuple[int, int, int, int], caption: Caption, size: int) -> None:
    """Draw the colour bar with the values of its ends, or the words *flat map*."""
    left, top, right, bottom = box
    if caption.flat or caption.scale is None:
        draw_lines(
            canvas, (left, top), ["flat map: every seen pixel has the same value, nothing stands out"], size, INK
        )
        return
    low, high = (number(v) for v in caption.scale)
    face = font(size)
    left_end, right_end = left + round(face.getlength(low)) + size // 2, right - round(face.getlength(high)) - size // 2
    if right_end - left_end < 16:
        return
    ramp = colour_table(caption.cmap)[np.linspace(0, 255, right_end - left_end).astype(int)]
    canvas.paste(Image.fromarray(np.repeat(ramp[None], bottom - top, axis=0)), (left_end, top))
    middle = top + (bottom - top - line_height(size)) // 2
    draw_lines(canvas, (left, middle), [low], size, INK)
    draw_lines(canvas, (right_end + size // 2, middle), [high], size, INK)


def number(value: float) -> str:
    """A value in three significant digits."""
    return f"{value:.3g}"
