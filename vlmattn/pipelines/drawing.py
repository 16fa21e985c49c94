"""What happens to rows beside the model: pictures are read before it, maps drawn and written after it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from vlmattn.core.errors import ImageError, MapError, VlmattnError
from vlmattn.core.files import safe_name
from vlmattn.pipelines.asking import Asked, Loaded, Mapped, one_line
from vlmattn.pipelines.job import Drawing
from vlmattn.pipelines.places import place_in, read_picture, write
from vlmattn.pipelines.rows import Row

if TYPE_CHECKING:
    from vlmattn.api import Look

OVERLAYS = "overlays"
_IN_A_FOLDER = 1000


def load_row(row: Row, folder: str) -> Loaded:
    """The row with its picture, or with what is wrong with it; relative paths start from ``folder``."""
    if row.fault:
        return row, row.fault
    try:
        return row, read_picture(row.image, row.name, folder)
    except (ImageError, MemoryError) as error:
        return row, one_line(error)


def file_name(row: Row, number: int, word: str | None, ending: str) -> str:
    """Of an overlay, safe on any file system; rows and words of the same text have different ones."""
    parts = [f"{row.number:08d}", safe_name(row.id), f"{number:02d}", safe_name("answer" if word is None else word)]
    return f"{OVERLAYS}/{row.number // _IN_A_FOLDER:05d}/{'-'.join(part for part in parts if part)}.{ending}"


def draw_word(row: Row, number: int, mapped: Mapped, drawing: Drawing, folder: str) -> dict[str, Any]:
    """Draw a word's map, write it below ``folder``, and tell its file, its peak and its box.

    Raises:
        FileError: the file cannot be written, which is no fault of the row.
    """
    if mapped.look is None:
        return mapped.record
    name = file_name(row, number, mapped.record["word"], drawing.format)
    try:
        content, places = _drawn(mapped.look, drawing)
    except (VlmattnError, MemoryError) as error:
        return mapped.record | {"error": one_line(error)}
    write(place_in(folder, name), content)
    return mapped.record | places | {"file": name}


def _drawn(look: Look, drawing: Drawing) -> tuple[bytes, dict[str, Any]]:
    from vlmattn.overlay.metadata import encoded

    made = look.overlay(cmap=drawing.cmap)
    image = made.figure if drawing.figure else made.image
    content = encoded(image, made.record, f".{drawing.format}", quality=drawing.quality)
    try:
        places: dict[str, Any] = {"peak_xy": list(look.pixels.peak_xy), "box_xyxy": list(look.box_xyxy())}
    except MapError:
        places = {}
    return content, places


def finished(asked: Asked, words: list[dict[str, Any]]) -> dict[str, Any]:
    """The record of a row, with those of its words; NaN nowhere."""
    wrong = [one["error"] for one in words if one["error"] is not None]
    record = dict(asked.record)
    if wrong:
        record |= {"status": "error" if len(wrong) == len(words) else "partial", "error": wrong[0]}
    return record | {"words": [{k: _plain(v) for k, v in one.items()} for one in words]}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
