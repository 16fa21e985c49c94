"""Rows of a table of pictures and questions, read one after the other: CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePath
from typing import Any, BinaryIO

from vlmattn.core.errors import FileError
from vlmattn.pipelines.places import opened

READERS = ("csv", "jsonl", "parquet")
SEPARATOR = "|"
_AT_ONCE = 256


@dataclass(frozen=True)
class Columns:
    """Which column of a table holds what.

    Attributes:
        image, question: must be there. words, answer, id, system: None for a column of that name if there is one.
    """

    image: str = "image"
    question: str = "question"
    words: str | None = None
    answer: str | None = None
    id: str | None = None
    system: str | None = None

    def found_in(self, names: Sequence[str], where: str) -> dict[str, str]:
        """What is there, and the name of its column.

        Raises:
            FileError: a column that was named, or one that must be there, is not.
        """
        found: dict[str, str] = {}
        for what, told in asdict(self).items():
            if told is not None and told not in names:
                raise FileError(
                    f"{where} has no column {told!r} for the {what}; it has {', '.join(names) or 'none'}: name another "
                    f"with --{what}-column"
                )
            if (told or what) in names:
                found[what] = told or what
        return found


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        number: from 0. id: of the user, or the number. image: path, address or content of the picture. question, words,
            answer, system: as in :meth:`vlmattn.Vlm.ask`; no words stands for the whole answer. fault: why it cannot be
            asked; empty if it can.
    """

    number: int
    id: str
    image: str | bytes = ""
    question: str = ""
    words: tuple[str, ...] = ()
    answer: str | None = None
    system: str | None = None
    name: str = ""
    fault: str = ""


def rows_to(rows: Sequence[Row]) -> str:
    """Rows as JSON text; contents of pictures as base64."""

    def told(row: Row) -> dict[str, Any]:
        content = {"content": b64encode(row.image).decode("ascii")} if isinstance(row.image, bytes) else {}
        return asdict(replace(row, image="")) | content if content else asdict(row)

    return json.dumps([told(row) for row in rows])


def rows_from(text: str) -> tuple[Row, ...]:
    """Rows that :func:`rows_to` made text of."""

    def made(told: dict[str, Any]) -> Row:
        image = b64decode(told.pop("content")) if "content" in told else told["image"]
        return Row(**told | {"image": image, "words": tuple(told["words"])})

    return tuple(made(told) for told in json.loads(text))


@dataclass(frozen=True)
class Table:
    """A table on disk or at an address; :func:`open_table` makes it.

    Attributes:
        place: path or address. columns: what is there, and the name of its column. rows: how many there are. sha256: of
            the file.
    """

    place: str
    columns: Mapping[str, str]
    rows: int
    sha256: str

    def __iter__(self) -> Iterator[Row]:
        for number, cells in enumerate(_cells(self.place)):
            yield _row(number, cells, self.columns)


def open_table(place: str, columns: Columns | None = None) -> Table:
    """The table at a path or address, read once through, so that what is wrong with all of it is told now.

    Raises:
        FileError: not there, of another kind, cut off, without rows, or without a column.
    """
    names: dict[str, None] = {}
    count = 0
    for cells in _cells(place):
        count += 1
        names |= dict.fromkeys(str(name) for name in cells if isinstance(name, str))
    if not count:
        raise FileError(f"{place} has no rows")
    found = (columns or Columns()).found_in(tuple(name for name in names if name != _FAULT), place)
    return Table(place, found, count, _digest(place))


_FAULT = "\0fault"


def _digest(place: str) -> str:
    with opened(place) as file:
        stream: Any = file
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _cells(place: str) -> Iterator[dict[Any, Any]]:
    """Cells of each row by column; a row that cannot be read has the one cell ``_FAULT``."""
    kind = PurePath(place).suffix.lower().removeprefix(".").replace("ndjson", "jsonl")
    if kind not in READERS:
        raise FileError(f"{place} has no known ending: expected .{', .'.join(READERS)}")
    with opened(place) as file:
        yield from {"csv": _csv, "jsonl": _json_lines, "parquet": _parquet}[kind](file, place)


def _csv(file: BinaryIO, place: str) -> Iterator[dict[Any, Any]]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        for cells in csv.DictReader(text, strict=True):
            fit = None not in cells and None not in cells.values()
            yield cells if fit else {_FAULT: "the row has not as many cells as the head"}
    except (csv.Error, UnicodeDecodeError) as error:
        raise FileError(f"{place} is not a whole CSV table in UTF-8: {error}") from error
    finally:
        text.detach()


def _json_lines(file: BinaryIO, _place: str) -> Iterator[dict[Any, Any]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            yield {_FAULT: f"line {number} is not whole JSON: {error}"}
            continue
        yield cells if isinstance(cells, dict) else {_FAULT: f"line {number} is no JSON object"}


def _parquet(file: BinaryIO, place: str) -> Iterator[dict[Any, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=_AT_ONCE):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise FileError(f"{place} is not a whole Parquet table: {error}") from error


def _row(number: int, cells: Mapping[Any, Any], columns: Mapping[str, str]) -> Row:
    told = {what: cells.get(name) for what, name in columns.items()}
    given = told.get("id")
    known = isinstance(given, (str, int)) and not isinstance(given, bool) and str(given).strip()
    row_id = _unicode(str(given)) if known else str(number)
    try:
        if _FAULT in cells:
            raise _Unusable(cells[_FAULT])
        image, name = _image(told.get("image"))
        return Row(
            number,
            row_id,
            image,
            _text(told.get("question"), "question"),
            _words(told.get("words")),
            _optional(told.get("answer"), "answer"),
            _optional(told.get("system"), "system text"),
            _unicode(name),
        )
    except _Unusable as fault:
        held = (told.get("image"), told.get("question"))
        shown = [_unicode(one) if isinstance(one, str) else "" for one in held]
        return Row(number, row_id, name=shown[0], question=shown[1], fault=str(fault))


class _Unusable(Exception):
    """A row cannot be asked; says why."""


def _unicode(text: str) -> str:
    """Text with half surrogate pairs, which UTF-8 cannot say, replaced."""
    return text.encode("utf-8", "replace").decode()


def _image(value: Any) -> tuple[str | bytes, str]:
    """Path, address or content, and what it is called."""
    if isinstance(value, Mapping):  # as data sets on the hub hold them
        content, name = value.get("bytes"), value.get("path")
        value = content or name
        if isinstance(content, bytes) and content:
            return content, name if isinstance(name, str) else ""
    if isinstance(value, bytes) and value:
        return value, ""
    if not isinstance(value, str) or not value.strip():
        raise _Unusable("no picture is named" if value in (None, "") else f"the picture is {value!r:.60}, no path")
    return value, value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise _Unusable(f"the {what} is missing" if value is None else f"the {what} is {value!r:.60}, not text")
    if not value.strip():
        raise _Unusable(f"the {what} is empty")
    if _unicode(value) != value:
        raise _Unusable(f"the {what} holds half a surrogate pair, which is no character")
    return value


def _optional(value: Any, what: str) -> str | None:
    return None if value is None or (isinstance(value, str) and not value.strip()) else _text(value, what)


def _words(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    parts = value.split(SEPARATOR) if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        raise _Unusable(f"the words are {value!r:.60}: expected text, with {SEPARATOR} between several, or a list")
    return tuple(_text(one, "word").strip() for one in parts if one is not None and one != "" and str(one).strip())
