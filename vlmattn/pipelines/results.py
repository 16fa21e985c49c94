"""The table of results: JSON lines, CSV or Parquet, written row by row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from vlmattn.core.errors import SpecError
from vlmattn.core.files import atomic_file

TABLES = ("jsonl", "csv", "parquet")
FIELDS = (
    "row",
    "id",
    "image",
    "question",
    "status",
    "error",
    "answer",
    "given",
    "image_wh",
    "prompt_tokens",
    "words",
)
_AT_ONCE = 1024


def check_table(kind: str) -> None:
    """Raises SpecError for a kind of table that does not exist."""
    if kind not in TABLES:
        raise SpecError(f"a table must be one of {', '.join(TABLES)}; got {kind!r}")


def write_table(path: Path, kind: str, records: Iterable[Mapping[str, Any]]) -> Path:
    """Write records as they come; a killed run leaves the old table or none."""
    with atomic_file(path) as file:
        {"jsonl": _json_lines, "csv": _csv, "parquet": _parquet}[kind](file, iter(records))
    return path


def _json_lines(file: BinaryIO, records: Iterator[Mapping[str, Any]]) -> None:
    for record in records:
        line = json.dumps({name: record[name] for name in FIELDS}, ensure_ascii=False, allow_nan=False)
        file.write(f"{line}\n".encode())


def _csv(file: BinaryIO, records: Iterator[Mapping[str, Any]]) -> None:
    """Lists are cells of JSON."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow(FIELDS)
    for record in records:
        writer.writerow([_cell(record[name]) for name in FIELDS])
    text.flush()
    text.detach()


def _cell(value: Any) -> Any:
    plain = value is None or (isinstance(value, (str, int)) and not isinstance(value, bool))
    return value if plain else json.dumps(value, ensure_ascii=False)


def _parquet(file: BinaryIO, records: Iterator[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    schema = _schema(pa)
    with parquet.ParquetWriter(file, schema) as writer:
        while part := list(islice(records, _AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(_ordered(part), schema=schema))


def _ordered(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: record[name] for name in FIELDS} for record in records]


def _schema(pa: Any) -> Any:
    text, number, numbers = pa.string(), pa.float64(), pa.list_(pa.float64())
    words = {
        "word": text,
        "part": text,
        "file": text,
        "peak_xy": numbers,
        "box_xyxy": numbers,
        "image_share": number,
        "log_probability": number,
        "risk": number,
        "error": text,
    }
    whole = {
        **dict.fromkeys(FIELDS, text),
        "row": pa.int64(),
        "given": pa.bool_(),
        "image_wh": pa.list_(pa.int64()),
        "prompt_tokens": pa.int64(),
        "words": pa.list_(pa.struct(list(words.items()))),
    }
    return pa.schema(list(whole.items()))
