"""COCO-Search18 and COCO-FreeView: people searching for, or freely viewing, COCO's pictures.

Yang et al., CVPR 2020, and Chen et al., "COCO-Search18 fixation dataset", Scientific Reports 2021; Yang et al., "HAT",
2024. A list of scanpaths with X, Y in pixels and T in milliseconds. Pictures were shown at 1680 x 1050, scaled and
padded; copies that models are trained on are scaled to 512 x 320. What chenxy99/Scanpaths and GazeXplain write for
other sets has the same shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmattn.core.records import field, read_rows
from vlmattn.gaze.fixations import Fixations, Scanpath
from vlmattn.gaze.readers.entries import numbers, one_length, scanpath, text_or_none
from vlmattn.gaze.units import Outside

SHOWN = (1680, 1050)
SMALL = (512, 320)
_FACTS = ("condition", "split", "bbox", "fixOnTarget", "correct", "RT")


def read_coco_search18(
    path: str | Path,
    *,
    image_wh: tuple[int, int] | None = None,
    outside: Outside = "keep",
    shorten: bool = False,
    drop_bad: bool = False,
) -> Fixations:
    """Scanpaths of COCO-Search18's JSON (``coco_search18_fixations_TP_train_split1.json`` and so on).

    ``task`` is the category that was searched for; ``trial`` has condition (``present`` or ``absent``), split, bbox
    (x, y, width, height), fixOnTarget, correct and RT as far as the file has them. The same picture may be searched for
    several categories. Files hold fixations off the screen, which papers drop (``outside="drop"``).

    Args:
        image_wh: size of the pictures that coordinates are in; None takes 512 x 320 if every fixation of the file lies
            left of 512 and above 320, else 1680 x 1050.
        shorten: in older test files X and Y end at the first fixation on the target and T goes on; True cuts all to the
            shortest, False refuses. drop_bad: leave out fixations with a missing value or no duration.

    Raises:
        FileError: no such file, not whole, or an entry without name, X, Y or T; names the entry.
    """
    return _read(path, image_wh, outside, shorten, drop_bad, searched=True)


def read_coco_freeview(
    path: str | Path,
    *,
    image_wh: tuple[int, int] | None = None,
    outside: Outside = "keep",
    shorten: bool = False,
    drop_bad: bool = False,
) -> Fixations:
    """Scanpaths of COCO-FreeView's JSON; ``task`` is None. Arguments and errors are :func:`read_coco_search18`'s."""
    return _read(path, image_wh, outside, shorten, drop_bad, searched=False)


def _read(
    path: str | Path,
    image_wh: tuple[int, int] | None,
    outside: Outside,
    shorten: bool,
    drop_bad: bool,
    searched: bool,
) -> Fixations:
    rows = read_rows(path)
    wh = _size(rows) if image_wh is None else image_wh
    paths = []
    for number, row in enumerate(rows):
        place = f"{path}, entry {number}"
        paths.append(_scanpath(row, place, wh, searched, shorten, outside=outside, drop_bad=drop_bad))
    return Fixations(tuple(paths))


def _scanpath(
    row: Mapping[str, Any], place: str, wh: tuple[int, int], searched: bool, shorten: bool, **options: Any
) -> Scanpath:
    held = one_length(place, {name: numbers(row, name, place) for name in ("X", "Y", "T")}, shorten=shorten)
    task = text_or_none(row.get("task")) if searched else None
    return scanpath(
        place,
        held["X"],
        held["Y"],
        wh,
        ms=held["T"],
        image=field(row, "name", place),
        subject=text_or_none(row.get("subject")),
        task=None if task in ("none", "freeview") else task,
        trial={name: row[name] for name in _FACTS if row.get(name) is not None},
        **options,
    )


def _size(rows: list[dict[str, Any]]) -> tuple[int, int]:
    furthest = [0.0, 0.0]
    for i, axis in enumerate(("X", "Y")):
        for row in rows:
            values = row.get(axis)
            known = [v for v in values if isinstance(v, (int, float))] if isinstance(values, list) else []
            furthest[i] = max(furthest[i], *known) if known else furthest[i]
    return SMALL if furthest[0] < SMALL[0] and furthest[1] < SMALL[1] else SHOWN
