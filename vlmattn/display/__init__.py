"""How results look in a notebook, and how they become rows of a table."""

from __future__ import annotations

from vlmattn.display.html import (
    Shaded,
    bar,
    beside,
    facts,
    folded,
    html_table,
    image,
    panel,
    paragraph,
    preformatted,
    said,
    shaded,
    text,
)
from vlmattn.display.rows import Facts, Rows, Tabular, Told, columns_of, data_frame, rows_of
from vlmattn.display.shrink import Shrunk, coded, shrunk

__all__ = [
    "Facts",
    "Rows",
    "Shaded",
    "Shrunk",
    "Tabular",
    "Told",
    "bar",
    "beside",
    "coded",
    "columns_of",
    "data_frame",
    "facts",
    "folded",
    "html_table",
    "image",
    "panel",
    "paragraph",
    "preformatted",
    "rows_of",
    "said",
    "shaded",
    "shrunk",
    "text",
]
