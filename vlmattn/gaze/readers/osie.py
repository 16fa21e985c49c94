"""OSIE: 700 pictures of 800 x 600 freely viewed by 15 people for 3 seconds (Xu et al., Journal of Vision 2014)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vlmattn.core.errors import FileError
from vlmattn.gaze.fixations import Fixations, Scanpath
from vlmattn.gaze.readers.entries import column, scanpath
from vlmattn.gaze.readers.matlab import load_mat, struct_field
from vlmattn.gaze.screen import Screen
from vlmattn.gaze.units import Outside

IMAGE_WH = (800, 600)
PIXELS_PER_DEGREE = 24.0


def read_osie(path: str | Path, *, outside: Outside = "keep", drop_bad: bool = False) -> Fixations:
    """Scanpaths of OSIE's ``fixations.mat``; subjects are called ``1`` to ``15``.

    MATLAB counts pixels from 1, at their centres, so half a pixel is taken off: the first pixel's centre is at 0.5.
    Durations are kept; starts are not in the file. 24 pixels are one degree.

    Args:
        outside, drop_bad: as in :func:`~vlmattn.gaze.readers.read_coco_search18`.

    Raises:
        FileError: no such file, no MATLAB file, or another content.
    """
    entries = np.atleast_1d(load_mat(path, ["fixations"])["fixations"])
    paths: list[Scanpath] = []
    for number, entry in enumerate(entries):
        paths += _of_picture(entry, f"{path}, picture {number + 1}", outside=outside, drop_bad=drop_bad)
    return Fixations(tuple(paths))


def _of_picture(entry: Any, place: str, **options: Any) -> Iterator[Scanpath]:
    name = struct_field(entry, "img", place)
    if not isinstance(name, str):
        raise FileError(f"{place}: the picture's name must be text, got {type(name).__name__}")
    for number, subject in enumerate(np.atleast_1d(struct_field(entry, "subjects", place)), 1):
        where = f"{place} ({name}), subject {number}"
        x, y, ms = (struct_field(subject, f, where) for f in ("fix_x", "fix_y", "fix_duration"))
        yield scanpath(
            where,
            column(x) - 0.5,
            column(y) - 0.5,
            IMAGE_WH,
            ms=column(ms),
            image=name,
            subject=str(number),
            screen=Screen(PIXELS_PER_DEGREE),
            **options,
        )
