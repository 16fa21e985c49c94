"""Scanpaths as a table with one row per fixation, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vlmattn.core.errors import SpecError
from vlmattn.gaze.screen import Screen

NAMES = ("image", "subject", "task")
COLUMNS = (
    "scanpath",
    *NAMES,
    "width",
    "height",
    "pixels_per_degree",
    "index",
    "x",
    "y",
    "start",
    "duration",
)
"""Of the table, in this order."""


def table(scanpaths: Iterable[Any]) -> dict[str, list[Any]]:
    """Columns of scanpaths, one row per fixation."""
    held: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for number, path in enumerate(scanpaths):
        n = len(path)
        same = {
            "scanpath": number,
            **{name: getattr(path, name) for name in NAMES},
            "width": path.image_wh[0],
            "height": path.image_wh[1],
            "pixels_per_degree": None if path.screen is None else path.screen.pixels_per_degree,
        }
        for name, value in same.items():
            held[name] += [value] * n
        held["index"] += range(n)
        for name in ("x", "y", "start", "duration"):
            values = getattr(path, name)
            held[name] += [None] * n if values is None else values.tolist()
    return held


def rows_of_columns(columns: Any, image_wh: tuple[int, int] | None) -> list[dict[str, Any]]:
    """What each scanpath of a table is made of. Raises SpecError, naming the column."""
    held = _columns(columns)
    n = len(held["x"])
    keys = ["scanpath"] if "scanpath" in held else [name for name in NAMES if name in held]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row in range(n):
        groups.setdefault(tuple(held[name][row] for name in keys), []).append(row)
    return [_fields(held, rows, image_wh) for rows in groups.values()]


def _columns(columns: Any) -> dict[str, list[Any]]:
    names = list(getattr(columns, "columns", columns))
    held = {name: [none_if_missing(v) for v in columns[name]] for name in COLUMNS if name in names}
    if missing := [name for name in ("x", "y") if name not in held]:
        raise SpecError(f"the columns must have {' and '.join(missing)}, got {[str(n) for n in names]}")
    lengths = {name: len(v) for name, v in held.items()}
    if len(set(lengths.values())) > 1:
        raise SpecError(f"columns must have one length, got {lengths}")
    return held


def _fields(held: Mapping[str, Sequence[Any]], rows: list[int], wh: tuple[int, int] | None) -> dict[str, Any]:
    def one(name: str) -> Any:
        values = [held[name][row] for row in rows] if name in held else [None]
        if any(v != values[0] for v in values):
            raise SpecError(f"{name} must be one value in each scanpath, got {values[0]!r} and others")
        return values[0]

    def many(name: str) -> list[Any] | None:
        values = [held[name][row] for row in rows] if name in held else [None]
        if all(v is None for v in values) and name in ("start", "duration"):
            return None
        return [np.nan if v is None else v for v in values]

    width, height, degree = one("width"), one("height"), one("pixels_per_degree")
    size = wh if width is None or height is None else (width, height)
    if size is None:
        raise SpecError("the picture's size is not known: give image_wh, or columns width and height")
    return {
        "x": many("x"),
        "y": many("y"),
        "image_wh": size,
        "start": many("start"),
        "duration": many("duration"),
        "screen": None if degree is None else Screen(float(degree)),
        **{name: one(name) for name in NAMES},
    }


def none_if_missing(value: Any) -> Any:
    """None for NaN and for what data frames put for it."""
    return None if value is None or value != value or type(value).__name__ in ("NAType", "NaTType") else value
