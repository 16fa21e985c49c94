"""Fixations in files of our own: CSV, TSV, JSON, JSON lines and Parquet, written whole and read back as they were."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

from vlmattn.core.errors import FileError
from vlmattn.core.files import atomic_write_bytes
from vlmattn.core.records import read_object, read_rows
from vlmattn.gaze.columns import COLUMNS
from vlmattn.gaze.fixations import Fixations, Scanpath
from vlmattn.gaze.readers.entries import at

FORMAT = "vlmattn fixations 1"
ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
_TEXT = ("image", "subject", "task")


def write_fixations(path: str | Path, fixations: Fixations) -> Path:
    """Write all scanpaths; the ending says how: one of :data:`ENDINGS`, also ``.gz`` but for Parquet.

    JSON and JSON lines (one scanpath per line) keep everything. CSV, TSV and Parquet have one row per fixation with
    the columns of :meth:`~vlmattn.gaze.Fixations.to_columns`, in pixels and seconds: scanpaths without a fixation,
    trial facts and the eye's distance are not in them.

    Raises:
        FileError: another ending, or the file cannot be written.
    """
    target = Path(path)
    ending = _ending(target)
    if ending == ".parquet":
        content = _parquet(fixations)
    elif ending in (".csv", ".tsv"):
        content = _table(fixations, "\t" if ending == ".tsv" else ",").encode("utf-8")
    else:
        content = _json(fixations, lines=ending == ".jsonl", path=target).encode("utf-8")
    return atomic_write_bytes(target, gzip.compress(content, mtime=0) if target.suffix == ".gz" else content)


def read_fixations(path: str | Path) -> Fixations:
    """What :func:`write_fixations` wrote.

    Raises:
        FileError: no such file, not whole, or of another content; names line and reason.
    """
    target = Path(path)
    ending = _ending(target)
    if ending == ".json":
        return _from_json(target)
    if ending == ".jsonl":
        rows = read_rows(target)
        if rows and rows[0].get("format") != FORMAT:
            raise FileError(f"{target}, line 1: expected the format {FORMAT!r}, got {rows[0].get('format')!r}")
        return Fixations(tuple(_one(row, f"{target}, line {number}") for number, row in enumerate(rows[1:], 2)))
    columns = _parquet_columns(target) if ending == ".parquet" else _table_columns(target)
    with at(str(target)):
        return Fixations.from_columns(columns)


def _ending(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    ending = next((e for e in ENDINGS if name.endswith(e)), "")
    if not ending or (ending == ".parquet" and path.suffix == ".gz"):
        raise FileError(f"{path} must end in one of {', '.join(ENDINGS)} (and .gz, but for Parquet)")
    return ending


def _json(fixations: Fixations, *, lines: bool, path: Path) -> str:
    try:
        rows = [json.dumps(p.to_dict(), ensure_ascii=False, sort_keys=True, allow_nan=False) for p in fixations]
    except (TypeError, ValueError) as error:
        raise FileError(f"cannot write {path}: a trial fact is no plain value: {error}") from error
    if lines:
        return "\n".join([json.dumps({"format": FORMAT}), *rows]) + "\n"
    return f'{{"format": {json.dumps(FORMAT)}, "scanpaths": [\n' + ",\n".join(rows) + "\n]}\n"


def _from_json(path: Path) -> Fixations:
    held = read_object(path)
    if held.get("format") != FORMAT or not isinstance(held.get("scanpaths"), list):
        raise FileError(f"{path}: expected the format {FORMAT!r} and scanpaths, got {held.get('format')!r}")
    return Fixations(tuple(_one(row, f"{path}, scanpath {number}") for number, row in enumerate(held["scanpaths"])))


def _one(row: Any, place: str) -> Scanpath:
    with at(place):
        return Scanpath.from_dict(row)


def _table(fixations: Fixations, separator: str) -> str:
    columns = fixations.to_columns()
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in zip(*(columns[name] for name in COLUMNS), strict=True):
        writer.writerow(["" if value is None else repr(value) if isinstance(value, float) else value for value in row])
    return out.getvalue()


def _table_columns(path: Path) -> dict[str, list[Any]]:
    rows = read_rows(path)
    held: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for number, row in enumerate(rows, 2):
        if set(row) != set(COLUMNS):
            raise FileError(f"{path}: expected the columns {', '.join(COLUMNS)}; read_table takes others")
        for name in COLUMNS:
            held[name].append(_cell(row[name], name, f"{path}, line {number}, column {name!r}"))
    return held


def _cell(cell: str, name: str, place: str) -> Any:
    if cell == "":
        return None
    if name in _TEXT:
        return cell
    with at(place):
        return float(cell) if name in ("x", "y", "start", "duration", "pixels_per_degree") else int(cell)


def _parquet(fixations: Fixations) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = fixations.to_columns()
    kinds = {**dict.fromkeys(_TEXT, pa.string()), **dict.fromkeys(("scanpath", "width", "height", "index"), pa.int64())}
    arrays = [pa.array(columns[name], kinds.get(name, pa.float64())) for name in COLUMNS]
    table = pa.table(arrays, names=list(COLUMNS)).replace_schema_metadata({"format": FORMAT})
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def _parquet_columns(path: Path) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
    except FileNotFoundError as error:
        raise FileError(f"{path} does not exist") from error
    except (OSError, pa.ArrowException) as error:
        raise FileError(f"{path} cannot be read as Parquet: {error}") from error
    if list(table.column_names) != list(COLUMNS):
        raise FileError(f"{path}: expected the columns {', '.join(COLUMNS)}, got {', '.join(table.column_names)}")
    held: dict[str, list[Any]] = table.to_pydict()
    return held
