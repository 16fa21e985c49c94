"""Text in pictures: one font, wrapped lines, and no character that vanishes."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

_CUT = "..."


@lru_cache(maxsize=64)
def font(size: int) -> Any:
    """DejaVu Sans where the system has it (many scripts), else Pillow's own font."""
    for name in ("DejaVuSans.ttf", "NotoSans-Regular.ttf"):
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def printable(text: str, size: int) -> str:
    """The text with characters that the font lacks, and control characters, written as escapes."""
    face = font(size)
    missing = _glyph(face, "\U0010fffd")
    shown = []
    for c in text:
        space = c.isspace() or unicodedata.category(c) == "Zs"
        known = c.isprintable() and _glyph(face, c) != missing
        shown.append(" " if space else c if known else c.encode("unicode_escape").decode("ascii"))
    return "".join(shown)


def wrapped(text: str, size: int, width: int, *, most: int | None = None) -> list[str]:
    """Lines of at most ``width`` pixels, broken at spaces, or inside a word that is longer than a line.

    Of a text that needs more than ``most`` lines, that many, the last of them ending in dots.
    """
    if most is None:
        return _lines(printable(text, size), size, width)
    # No letter is narrower than a pixel, so what comes after these is never shown.
    lines = _lines(printable(text[: (most + 1) * max(width, 1)], size), size, width)
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    while last and font(size).getlength(last + _CUT) > width:
        last = last[:-1]
    return [*lines[: most - 1], last + _CUT]


def _lines(text: str, size: int, width: int) -> list[str]:
    face, lines, line = font(size), [], ""
    for word in text.split():
        trial = f"{line} {word}".strip()
        if face.getlength(trial) <= width or not line:
            line = trial
        else:
            lines.append(line)
            line = word
        while face.getlength(line) > width and len(line) > 1:
            cut = max(1, int(len(line) * width / face.getlength(line)))
            lines.append(line[:cut])
            line = line[cut:]
    return [*lines, line] if line else lines


def line_height(size: int) -> int:
    """Pixels from one line to the next."""
    return round(size * 1.35)


def draw_lines(
    image: Image.Image, xy: tuple[int, int], lines: list[str], size: int, fill: tuple[int, int, int]
) -> None:
    """Draw lines of text downwards from ``xy``."""
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((xy[0], xy[1] + number * line_height(size)), line, font=font(size), fill=fill)


@lru_cache(maxsize=4096)
def _glyph(face: Any, character: str) -> bytes:
    return bytes(face.getmask(character))
