"""Rows of a file, whatever its layout, with errors that name file and line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmattn.core.errors import FileError, SpecError

Row = Mapping[str, Any]


def read_text(path: str | Path, *, published: str = "") -> str:
    """The text of a file, unpacked where it ends in ``.gz``.

    Raises:
        FileError: it is not there (says where it is published, if that is given), is cut short, or is not UTF-8.
    """
    target = Path(path)
    try:
        content = target.read_bytes()
        return (gzip.decompress(content) if target.suffix == ".gz" else content).decode("utf-8-sig")
    except FileNotFoundError as error:
        where = f"; it is published at {published}" if published else ""
        raise FileError(f"{target} does not exist{where}") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise FileError(f"{target} cannot be read: {error}") from error


def read_rows(path: str | Path, *, published: str = "") -> list[dict[str, Any]]:
    """Rows of a JSON array, of JSON lines, or of a table (``.tsv``, ``.csv``, ``.xlsx``).

    JSON is told from JSON lines by its first character, not by the file's name: several benchmarks call both ``.json``.

    Raises:
        FileError: missing, empty, cut short, or not of objects; says the line.
    """
    target = Path(path)
    endings = [s for s in target.suffixes if s != ".gz"][-1:]
    if endings == [".xlsx"]:
        return _sheet(target)
    text = read_text(target, published=published)
    if not text.strip():
        raise FileError(f"{target} is empty")
    if endings in ([".tsv"], [".csv"]):
        return _table(target, text, "\t" if endings == [".tsv"] else ",")
    rows = _array(target, text) if text.lstrip()[0] == "[" else _lines(target, text)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise FileError(f"{target}: row {number} is a {type(row).__name__}, not an object")
    return rows


def read_object(path: str | Path, *, published: str = "") -> dict[str, Any]:
    """The one JSON object of a file.

    Raises:
        FileError: missing, cut short, or something else.
    """
    text = read_text(path, published=published)
    try:
        value = json.loads(text)
    except ValueError as error:
        raise FileError(f"{path} is not whole JSON: {error}") from error
    if not isinstance(value, dict):
        raise FileError(f"{path} must hold one JSON object, not a {type(value).__name__}")
    return value


def field(row: Row, name: str, where: str, kind: type | tuple[type, ...] = str) -> Any:
    """A row's value.

    Raises:
        FileError: the row lacks it, or it is of another type; says which, and what the row has.
    """
    if name not in row:
        raise FileError(f"{where} has no {name!r}; it has {', '.join(sorted(map(str, row))) or 'nothing'}")
    value = row[name]
    if not isinstance(value, kind):
        raise FileError(f"{where}: {name!r} is {value!r}, a {type(value).__name__}")
    return value


def unique(ids: Iterable[str], what: str) -> None:
    """Refuse ids that occur twice.

    Raises:
        SpecError: says which.
    """
    seen: set[str] = set()
    twice: list[str] = []
    for one in ids:
        if one in seen:
            twice.append(one)
        seen.add(one)
    if twice:
        raise SpecError(f"{len(twice)} ids of {what} occur twice: {listed(twice)}")


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def find_images(folder: str | Path | None, names: Sequence[str], *, published: str) -> dict[str, tuple[Path, ...]]:
    """Where each picture is; nothing for each if no folder is given, which is enough for scoring.

    Raises:
        FileError: pictures are missing; says which, and where they are published.
    """
    if folder is None:
        return dict.fromkeys(names, ())
    root = Path(folder)
    missing = sorted({name for name in names if not (root / name).is_file()})
    if missing:
        raise FileError(f"{len(missing)} pictures are not in {root}: {listed(missing)}; published at {published}")
    return {name: (root / name,) for name in names}


def _array(target: Path, text: str) -> list[Any]:
    try:
        return list(json.loads(text))
    except ValueError as error:
        raise FileError(f"{target} is not a whole JSON array: {error}") from error


def _lines(target: Path, text: str) -> list[Any]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise FileError(f"{target}, line {number}, is not whole JSON: {error}") from error
    return rows


def _table(target: Path, text: str, separator: str) -> list[dict[str, Any]]:
    # Pictures stand in cells as base64, which the default limit of a cell would refuse.
    before = csv.field_size_limit(2**31 - 1)
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        raise FileError(f"{target} is not a whole table: {error}") from error
    finally:
        csv.field_size_limit(before)
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise FileError(f"{target}: row {number} has not as many cells as the head")
    return rows


def _sheet(target: Path) -> list[dict[str, Any]]:
    from vlmattn.core.optional import require

    openpyxl = require("openpyxl", extra="hallucination")
    try:
        book = openpyxl.load_workbook(target, read_only=True, data_only=True)
        head, *rest = book.active.iter_rows(values_only=True)
    except Exception as error:
        raise FileError(f"{target} cannot be read as a sheet: {error}") from error
    # An empty cell is an empty answer; a spreadsheet library would make it, and the words None and NA, not a number.
    return [{str(k): "" if v is None else v for k, v in zip(head, row, strict=True)} for row in rest]
