"""Tables with one row per fixation: CSV and TSV with columns of any names, and data frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.records import listed, read_rows
from vlmattn.gaze.columns import none_if_missing
from vlmattn.gaze.fixations import Fixations, Scanpath
from vlmattn.gaze.readers.entries import Sizes, at, size_of, text_or_none
from vlmattn.gaze.units import Outside

FIELDS = ("x", "y", "start", "duration", "end", "image", "subject", "task", "width", "height", "scanpath")
_NUMBERS = ("x", "y", "start", "duration", "end", "width", "height")


def read_table(
    path: str | Path,
    columns: Mapping[str, str] | None = None,
    *,
    sizes: Sizes | None = None,
    image: str | None = None,
    subject: str | None = None,
    time_unit: float = 1.0,
    offset: float = 0.0,
    outside: Outside = "keep",
    drop_bad: bool = False,
) -> Fixations:
    """Scanpaths of a CSV or TSV file (also ``.gz``) with a head, one row per fixation.

    Rows of one scanpath agree in ``scanpath``, or without that column in picture, subject and task, and keep their
    order.

    Args:
        columns: which column is which of :data:`FIELDS`, as ``{"x": "CURRENT_FIX_X"}``; columns that already
            have these names need none. ``end`` gives durations with ``start``.
        sizes: of the pictures, where there are no columns width and height. image, subject: of all rows, where there
            is no such column.
        time_unit: seconds in one unit of time: 0.001 for milliseconds. offset: added to x and y: -0.5 where pixels are
            counted from 1 at their centres, 0.5 where from 0 at their centres.
        drop_bad: leave out fixations with a missing value or no duration instead of refusing the file.

    Raises:
        FileError: no such file, a column is missing, a value is no number, or a scanpath is wrong; names line and
            column. SpecError: ``columns`` has another field.
    """
    mapped = _mapping(columns)
    if not Path(path).name.removesuffix(".gz").endswith((".csv", ".tsv")):
        raise FileError(f"{path} must end in .csv or .tsv, or that and .gz, which says how its cells are parted")
    rows = read_rows(path)
    there = list(rows[0]) if rows else []
    held: dict[str, list[Any]] = {name: [] for name in FIELDS if mapped[name] in there}
    for name in ("x", "y", *(columns or ())):
        if name not in held:
            raise FileError(f"{path} has no column {mapped[name]!r}; it has {listed(there, 20) or 'no row'}")
    for number, row in enumerate(rows, 2):
        for name, values in held.items():
            values.append(_value(row[mapped[name]], name, f"{path}, line {number}, column {mapped[name]!r}"))
    fixed = {"image": image, "subject": subject}
    return _scanpaths(held, str(path), sizes, fixed, time_unit, offset, outside=outside, drop_bad=drop_bad)


def from_frame(
    frame: Any,
    columns: Mapping[str, str] | None = None,
    *,
    sizes: Sizes | None = None,
    image: str | None = None,
    subject: str | None = None,
    time_unit: float = 1.0,
    offset: float = 0.0,
    outside: Outside = "keep",
    drop_bad: bool = False,
) -> Fixations:
    """Scanpaths of a pandas or polars data frame, or a dict of columns; arguments are :func:`read_table`'s.

    Example:
        >>> frame = {"X": [5.0, 6.0], "Y": [1.0, 2.0], "ms": [200, 300], "who": ["a", "b"]}
        >>> from_frame(frame, {"x": "X", "y": "Y", "duration": "ms", "subject": "who"}, sizes=(9, 9), time_unit=0.001)
        Fixations(2 fixations, 2 scanpaths, 1 pictures, 2 subjects)
    """
    mapped, names = _mapping(columns), list(getattr(frame, "columns", frame))
    missing = [mapped[n] for n in ("x", "y", *(columns or ())) if mapped[n] not in names]
    if missing:
        raise FileError(f"the data frame has no column {missing[0]!r}; it has {listed([str(n) for n in names], 20)}")
    held = {n: [none_if_missing(v) for v in frame[mapped[n]]] for n in FIELDS if mapped[n] in names}
    fixed = {"image": image, "subject": subject}
    return _scanpaths(held, "the data frame", sizes, fixed, time_unit, offset, outside=outside, drop_bad=drop_bad)


def _mapping(columns: Mapping[str, str] | None) -> dict[str, str]:
    unknown = [name for name in columns or () if name not in FIELDS]
    if unknown:
        raise SpecError(f"columns may name {', '.join(FIELDS)}, not {unknown[0]!r}")
    return {name: (columns or {}).get(name, name) for name in FIELDS}


def _value(cell: Any, name: str, place: str) -> Any:
    if name not in _NUMBERS:
        return text_or_none(cell)
    if cell in (None, "", ".", "n/a", "NA", "NaN", "nan"):
        return None
    try:
        return float(cell)
    except (TypeError, ValueError) as error:
        raise FileError(f"{place}: {cell!r} is no number") from error


def _scanpaths(
    held: Mapping[str, list[Any]],
    place: str,
    sizes: Sizes | None,
    fixed: Mapping[str, str | None],
    time_unit: float,
    offset: float,
    **options: Any,
) -> Fixations:
    keys = ["scanpath"] if "scanpath" in held else [n for n in ("image", "subject", "task") if n in held]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row in range(len(held["x"])):
        groups.setdefault(tuple(held[n][row] for n in keys), []).append(row)
    size = None if sizes is None else size_of(sizes)
    paths = []
    for rows in groups.values():
        where = f"{place}, rows {rows[0] + 1} to {rows[-1] + 1}"
        with at(where):
            paths.append(_scanpath(held, rows, size, fixed, time_unit, offset, **options))
    return Fixations(tuple(paths))


def _scanpath(
    held: Mapping[str, list[Any]],
    rows: list[int],
    size: Any,
    fixed: Mapping[str, str | None],
    time_unit: float,
    offset: float,
    *,
    outside: Outside,
    drop_bad: bool,
) -> Scanpath:
    def many(name: str, scale: float = 1.0, shift: float = 0.0) -> list[float] | None:
        if name not in held or all(held[name][row] is None for row in rows):
            return None
        return [float("nan") if (v := held[name][row]) is None else float(v) * scale + shift for row in rows]

    def one(name: str) -> Any:
        return held[name][rows[0]] if name in held else fixed.get(name)

    start, duration, end = (many(name, time_unit) for name in ("start", "duration", "end"))
    if duration is None and start is not None and end is not None:
        duration = [b - a for a, b in zip(start, end, strict=True)]
    image = text_or_none(one("image"))
    wh = (one("width"), one("height"))
    if None in wh:
        if size is None:
            raise SpecError("the picture's size is not known: give sizes, or columns width and height")
        wh = size(image or "")
    none = [float("nan")] * len(rows)
    named: dict[str, Any] = {"image": image, "subject": text_or_none(one("subject")), "task": text_or_none(one("task"))}
    make = Scanpath.of if drop_bad else Scanpath
    x, y = many("x", 1.0, offset) or none, many("y", 1.0, offset) or none
    path: Scanpath = make(x, y, wh, start=start, duration=duration, **named)  # type: ignore[arg-type]
    return path.outside(outside)
