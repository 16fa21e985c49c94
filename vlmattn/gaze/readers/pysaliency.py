"""Fixations that are held by pysaliency, taken by their attributes, without the library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.gaze.fixations import Fixations, Scanpath
from vlmattn.gaze.units import Outside

Array = NDArray[np.float64]


def from_pysaliency(
    fixations: Any, stimuli: Any, *, outside: Outside = "keep", duration_unit: float = 1.0
) -> Fixations:  # fmt: skip
    """Scanpaths of pysaliency's ``FixationTrains`` (0.2), ``ScanpathFixations``, ``Scanpaths`` (0.3) or ``Fixations``.

    Plain ``Fixations``, which hold no scanpaths, are parted by picture and subject and ordered by time. Pixels are
    pysaliency's: the pixel is the whole part of x and y, as it is here.

    Args:
        stimuli: with ``sizes`` (height, width), and ``filenames`` where there are any; else pictures are called by
            their number. duration_unit: seconds in one unit of the durations, which some data sets have in
            milliseconds; times are seconds.

    Raises:
        SpecError: another object, a picture's number without a stimulus, or a scanpath that is wrong.
    """
    sizes = [(int(size[1]), int(size[0])) for size in stimuli.sizes]
    files = getattr(stimuli, "filenames", None)
    names = [str(number) if files is None else str(files[number]).replace("\\", "/").rsplit("/", 1)[-1]
             for number in range(len(sizes))]  # fmt: skip
    paths = []
    for number, (held, n, subject) in enumerate(_trains(fixations)):
        if not 0 <= n < len(sizes):
            raise SpecError(f"scanpath {number} is on picture {n}, but there are {len(sizes)} stimuli")
        times = {"start": held.get("t"), "duration": _scaled(held.get("duration"), duration_unit)}
        named: dict[str, Any] = {"image": names[n], "subject": subject, **times}
        try:
            paths.append(Scanpath(held["x"], held["y"], sizes[n], **named).outside(outside))
        except SpecError as error:
            raise SpecError(f"scanpath {number} on picture {n}: {error}") from error
    return Fixations(tuple(paths))


def _trains(fixations: Any) -> Iterator[tuple[dict[str, Array], int, str | None]]:
    """Columns, the picture's number and the subject of each scanpath."""
    scanpaths = getattr(fixations, "scanpaths", fixations)
    if hasattr(scanpaths, "xs") and hasattr(scanpaths, "ys"):
        yield from _new(scanpaths)
    elif hasattr(fixations, "train_xs"):
        yield from _old(fixations)
    elif all(hasattr(fixations, name) for name in ("x", "y", "n")):
        yield from _loose(fixations)
    else:
        raise SpecError(f"expected fixations of pysaliency, got {type(fixations).__name__}")


def _old(trains: Any) -> Iterator[tuple[dict[str, Array], int, str | None]]:
    durations = _attribute(getattr(trains, "scanpath_fixation_attributes", {}))
    subjects = getattr(trains, "train_subjects", None)
    for row in range(len(trains.train_xs)):
        x = np.asarray(trains.train_xs[row], dtype=np.float64)
        length = int(np.isfinite(x).sum())  # rows are padded with NaN
        columns = {"x": x[:length], "y": np.asarray(trains.train_ys[row], dtype=np.float64)[:length]}
        yield (
            _whole(columns, trains.train_ts[row], durations, row, length),
            int(trains.train_ns[row]),
            _name(subjects, row),
        )


def _new(paths: Any) -> Iterator[tuple[dict[str, Array], int, str | None]]:
    held = getattr(paths, "fixation_attributes", {}) or {}
    durations, subjects = _attribute(held), (getattr(paths, "scanpath_attributes", {}) or {}).get("subject")
    times = getattr(paths, "ts", None)
    times = held.get("t", held.get("ts")) if times is None else times
    for row in range(len(paths.xs)):
        length = int(paths.length[row])
        columns = {n: np.asarray(v[row], dtype=np.float64)[:length] for n, v in (("x", paths.xs), ("y", paths.ys))}
        when = None if times is None else times[row]
        yield _whole(columns, when, durations, row, length), int(paths.n[row]), _name(subjects, row)


def _loose(fixations: Any) -> Iterator[tuple[dict[str, Array], int, str | None]]:
    subjects = getattr(fixations, "subjects", getattr(fixations, "subject", None))
    n = np.asarray(fixations.n)
    who = np.zeros(len(n), int) if subjects is None else np.asarray(subjects)
    t = np.asarray(getattr(fixations, "t", np.zeros(len(n))), dtype=np.float64)
    for picture, subject in dict.fromkeys(zip(n.tolist(), who.tolist(), strict=True)):
        rows = np.flatnonzero((n == picture) & (who == subject))
        rows = rows[np.argsort(t[rows], kind="stable")]
        columns = {name: np.asarray(getattr(fixations, name), dtype=np.float64)[rows] for name in ("x", "y")}
        yield _whole(columns, t[rows], None, 0, len(rows)), int(picture), None if subjects is None else str(subject)


def _whole(
    columns: dict[str, Array], times: Any, durations: Any, row: int, length: int
) -> dict[str, Array]:  # fmt: skip
    """Columns with times that tell an order (pysaliency numbers fixations where it knows none) and durations."""
    if times is not None:
        t = np.asarray(times, dtype=np.float64)[:length]
        if np.isfinite(t).all() and (np.diff(t) > 0).all() and not np.array_equal(t, np.arange(length)):
            columns["t"] = t
    if durations is not None:
        columns["duration"] = np.asarray(durations[row], dtype=np.float64)[:length]
    return columns


def _attribute(held: Mapping[str, Any]) -> Any:
    return next((held[name] for name in ("durations", "duration") if name in held), None)


def _name(subjects: Sequence[Any] | None, row: int) -> str | None:
    return None if subjects is None else str(subjects[row])


def _scaled(values: Array | None, unit: float) -> Array | None:
    return None if values is None else values * unit
