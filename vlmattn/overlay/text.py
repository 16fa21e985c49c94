"""Text in pictures: wrapped lines in the fonts that there are, and no character that vanishes."""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from functools import lru_cache
from itertools import groupby
from typing import Any

from PIL import Image, ImageDraw, ImageFont

_CUT = "..."
_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf")
# For characters that the first font lacks, as far as the system has them: East Asian, Arabic, Indic, emoji.
_MORE_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "NotoSansCJKjp-Regular.otf",
    "NotoSansSC-Regular.ttf",
    "NotoSansSC-Regular.otf",
    "SourceHanSans-Regular.ttc",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "DroidSansFallback.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "msyh.ttc",
    "malgun.ttf",
    "Arial Unicode.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansArabic-Regular.ttf",
    "NotoSansHebrew-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansThai-Regular.ttf",
    "NotoEmoji-Regular.ttf",
    "NotoSansSymbols2-Regular.ttf",
    "Symbola.ttf",
    "seguiemj.ttf",
    "unifont.ttf",
    "unifont.otf",
)


@lru_cache(maxsize=64)
def font(size: int) -> Any:
    """DejaVu Sans where the system has it (many scripts), else Pillow's own font."""
    found = _loaded(_FONTS, size)
    return found[0] if found else ImageFont.load_default(size)


@lru_cache(maxsize=64)
def _more_fonts(size: int) -> tuple[Any, ...]:
    return _loaded(_MORE_FONTS, size)


def _loaded(names: tuple[str, ...], size: int) -> tuple[Any, ...]:
    found = []
    for name in names:
        with suppress(OSError):
            found.append(ImageFont.truetype(name, size))
    return tuple(found)


def _face_of(character: str, size: int) -> Any:
    """The first font that has a character; None if none has."""
    if not character.isprintable():
        return None
    if _has(font(size), character):
        return font(size)
    return next((face for face in _more_fonts(size) if _has(face, character)), None)


def _has(face: Any, character: str) -> bool:
    return _glyph(face, character) != _glyph(face, "\U0010fffd")


def printable(text: str, size: int) -> str:
    """The text with characters that no font has, and control characters, written as escapes."""
    return text.translate({ord(c): _shown(c, size) for c in set(text)})


def _shown(c: str, size: int) -> str:
    if c.isspace() or unicodedata.category(c) == "Zs":
        return " "
    return c if _face_of(c, size) is not None else c.encode("unicode_escape").decode("ascii")


def _runs(text: str, size: int) -> list[tuple[Any, str]]:
    """The text in stretches of one font each."""
    faces = {c: _face_of(c, size) or font(size) for c in set(text)}
    return [(face, "".join(characters)) for face, characters in groupby(text, faces.__getitem__)]


def length(text: str, size: int) -> float:
    """Pixels that a line of text is wide."""
    return float(sum(face.getlength(run) for face, run in _runs(text, size)))


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
    while last and length(last + _CUT, size) > width:
        last = last[:-1]
    return [*lines[: most - 1], last + _CUT]


def _lines(text: str, size: int, width: int) -> list[str]:
    lines, line, words = [], "", text.split()
    while words:
        fitting = _fitting(line, words, size, width)
        if not fitting and line:
            lines.append(line)
            line = ""
            continue
        fitting = max(fitting, 1)
        line = " ".join([line, *words[:fitting]]).strip()
        words = words[fitting:]
        while (long := length(line, size)) > width and len(line) > 1:
            cut = max(1, int(len(line) * width / long))
            lines.append(line[:cut])
            line = line[cut:]
    return [*lines, line] if line else lines


def _fitting(line: str, words: list[str], size: int, width: int) -> int:
    """How many words fit on a line behind what stands there, with few looks at how long it gets."""
    fit, too_many = 0, 1
    while too_many <= len(words) and _fits(line, words[:too_many], size, width):
        fit, too_many = too_many, 2 * too_many
    too_many = min(too_many, len(words) + 1)
    while too_many - fit > 1:
        middle = (fit + too_many) // 2
        fit, too_many = (middle, too_many) if _fits(line, words[:middle], size, width) else (fit, middle)
    return fit


def _fits(line: str, words: list[str], size: int, width: int) -> bool:
    return length(" ".join([line, *words]).strip(), size) <= width


def line_height(size: int) -> int:
    """Pixels from one line to the next."""
    return round(size * 1.35)


def draw_lines(
    image: Image.Image, xy: tuple[int, int], lines: list[str], size: int, fill: tuple[int, int, int]
) -> None:
    """Draw lines of text downwards from ``xy``."""
    draw, ascent = ImageDraw.Draw(image), font(size).getmetrics()[0]
    for number, line in enumerate(lines):
        x: float = xy[0]
        for face, run in _runs(line, size):
            # On one base line, whatever the heights of the fonts.
            draw.text((x, xy[1] + ascent + number * line_height(size)), run, font=face, fill=fill, anchor="ls")
            x += face.getlength(run)


@lru_cache(maxsize=4096)
def _glyph(face: Any, character: str) -> bytes:
    return bytes(face.getmask(character))
