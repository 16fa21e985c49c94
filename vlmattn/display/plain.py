"""A table as plain text: whole words and numbers, whatever the width of the terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def plain_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of columns two spaces apart: the first to the left, the others to the right."""
    lines = [[_plain(cell) for cell in row] for row in (head, *rows)]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(_padded(line, widths)).rstrip() for line in lines)


def _padded(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    spaces = [" " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)]
    return [line[0] + spaces[0], *(space + cell for cell, space in zip(line[1:], spaces[1:], strict=True))]


def _plain(cell: str) -> str:
    return " ".join(cell.split())


def _width(text: str) -> int:
    # East Asian wide characters take two places, combining ones none.
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)
