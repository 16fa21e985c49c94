"""Where people looked at the same picture: from a table of theirs, or by synthetic observers on a drawn scene."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmattn.app.asking import Asked
from vlmattn.core.errors import FileError, SpecError

if TYPE_CHECKING:
    from vlmattn.gaze import Fixations
    from vlmattn.grid import PixelMap

COLUMNS = ("x", "y", "duration", "subject", "image")
"""Columns of a table that can be told."""
UNITS = {"seconds": 1.0, "milliseconds": 0.001}
MOST_PATHS = 12
_USUAL = {
    "x": ("x", "fix_x", "fixation_x", "current_fix_x", "x_px", "pos_x", "gaze_x"),
    "y": ("y", "fix_y", "fixation_y", "current_fix_y", "y_px", "pos_y", "gaze_y"),
    "duration": ("duration", "dur", "current_fix_duration", "fixation_duration", "duration_ms", "t", "ms"),
    "subject": ("subject", "participant", "subject_id", "participant_id", "observer", "recording_session_label", "who"),
    "image": ("image", "picture", "image_name", "name", "filename", "stimulus", "img"),
}


@dataclass(frozen=True, eq=False)
class Gaze:
    """Fixations on the picture. ``told``: where they come from, in one sentence; ``synthetic``: by no people."""

    fixations: Fixations
    told: str
    synthetic: bool = False


def header_of(path: str | Path | None) -> tuple[str, ...]:
    """The columns of a table.

    Raises:
        FileError: no table, or one without a row.
    """
    from vlmattn.core.records import read_rows

    if not path:
        raise FileError("there is no table yet: choose a CSV or TSV file with one row per fixation")
    _check_ending(Path(path))
    rows = read_rows(path)
    if not rows:
        raise FileError(f"{Path(path).name} has no row")
    return tuple(str(name) for name in rows[0])


def guessed(header: tuple[str, ...]) -> dict[str, str]:
    """Which column is likely which of :data:`COLUMNS`, by usual names; empty text where none is."""
    plain = {re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"): name for name in reversed(header)}
    return {field: next((plain[n] for n in names if n in plain), "") for field, names in _USUAL.items()}


def from_table(
    asked: Asked, path: str | Path | None, columns: Mapping[str, str], unit: str = "seconds", named: str = ""
) -> Asked:
    """With the fixations of a table drawn on the picture.

    Args:
        columns: which column is which of :data:`COLUMNS`; empty ones are left out. unit: of durations, one of
            :data:`UNITS`. named: the picture's name in the table, where it holds several; default: its file's name.

    Raises:
        FileError: the table cannot be read, or holds other pictures only. SpecError: no column of x or y, no such unit.
    """
    from vlmattn.gaze import GazeWarning, read_table

    if unit not in UNITS:
        raise SpecError(f"durations are in {' or '.join(UNITS)}, got {unit!r}")
    header_of(path)
    given = {name: column for name, column in columns.items() if column}
    if missing := [name for name in ("x", "y") if name not in given]:
        raise SpecError(f"say which column of the table is {' and which is '.join(missing)}")
    name = asked.picture.name
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GazeWarning)
        try:
            found = read_table(
                path or "", given, sizes=asked.picture.wh, time_unit=UNITS[unit], drop_bad=True,
                image=None if "image" in given else name,
            )  # fmt: skip
        except FileError as error:
            raise FileError(str(error).replace(str(path), Path(str(path)).name)) from error
    chosen = _on_this_picture(found, named.strip() or name) if "image" in given else found
    told = [f"{chosen.count} fixations of {len(chosen)} scanpaths from {Path(str(path)).name}"]
    told += [str(w.message) for w in caught if issubclass(w.category, GazeWarning)][:1]
    return replace(asked, gaze=Gaze(chosen, "; ".join(told)))


def synthetic(asked: Asked, subjects: int = 3) -> Asked:
    """With synthetic observers of a drawn scene: they look for what the question names, or else look freely.

    Raises:
        SpecError: the picture is no drawn example.
    """
    from vlmattn.gaze.observers import synthetic_fixations

    if asked.scene is None:
        raise SpecError("synthetic observers look at drawn scenes only: take one of the examples, or give a table")
    question = asked.run.question.lower()
    target = next((o.name for o in asked.scene.objects if o.name in question), None)
    found = synthetic_fixations(asked.scene, image=asked.picture.name, target=target, subjects=int(subjects))
    doing = f"looking for the {target}" if target else "looking freely"
    told = f"{found.count} fixations of {len(found)} synthetic observers, who are no people, {doing}"
    return replace(asked, gaze=Gaze(found, told, True))


def no_gaze(asked: Asked) -> Asked:
    """Without fixations."""
    return replace(asked, gaze=None)


def gaze_scores(gaze: Gaze, pixels: PixelMap) -> dict[str, Any]:
    """NSS and AUC of a map at the fixations on it; None where there is no fixation on the picture."""
    from vlmattn.gaze import auc, nss

    scores = {"nss": nss(pixels, gaze.fixations), "auc": auc(pixels, gaze.fixations)}
    return {name: None if value != value else float(value) for name, value in scores.items()}


def _on_this_picture(found: Fixations, name: str) -> Fixations:
    from vlmattn.core.records import listed
    from vlmattn.gaze import Fixations

    groups = found.by_image()
    wanted = [n for n in groups if n is not None and (n == name or Path(n).stem == Path(name).stem)]
    if not wanted:
        raise FileError(
            f"the table has no row of {name!r}; its pictures are {listed([str(n) for n in groups])}: write the "
            "picture's name as the table has it"
        )
    return Fixations(tuple(path for n in wanted for path in groups[n]))


def _check_ending(path: Path) -> None:
    if not path.name.lower().removesuffix(".gz").endswith((".csv", ".tsv")):
        raise FileError(f"{path.name} is no table: give a CSV or TSV file with one row per fixation")
