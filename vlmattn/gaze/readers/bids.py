"""Eye tracking in BIDS (BEP020): samples in a table without a head, described by a JSON file beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import FileError
from vlmattn.core.records import read_object, read_text
from vlmattn.gaze.event_detection import Samples, find_fixations
from vlmattn.gaze.fixations import Scanpath
from vlmattn.gaze.readers.entries import at
from vlmattn.gaze.screen import Screen

_COLUMNS = {"time": ("timestamp", "eye_timestamp"), "x": ("x_coordinate", "eye1_x_coordinate"),
            "y": ("y_coordinate", "eye1_y_coordinate")}  # fmt: skip


def read_bids_samples(path: str | Path) -> tuple[Samples, dict[str, Any]]:
    """Raw samples of ``…_physio.tsv.gz`` (or ``…_eyetrack.tsv.gz``), and what the JSON file beside it says.

    Times are in seconds from the first sample: stamps over the number of them in a second (``SamplingFrequency`` and
    the stamps' own steps say whether they are seconds, milliseconds or microseconds). Points are in pixels of the
    screen, from its top left corner. ``n/a`` is a lost eye.

    Raises:
        FileError: a file is missing, or another than its description says; names line or field.
    """
    target = Path(path)
    stem = target.name.removesuffix(".gz").removesuffix(".tsv")
    about = read_object(target.with_name(f"{stem}.json"))
    names = about.get("Columns")
    if not isinstance(names, list):
        raise FileError(f"{stem}.json must have a list of Columns, got {names!r}")
    units = str(about.get("SampleCoordinateUnits", about.get("SampleCoordinateUnit", "pixel")))
    if not units.startswith(("pixel", "px")):
        raise FileError(f"{stem}.json: SampleCoordinateUnits must be pixels, got {units!r}")
    table = _table(target, len(names))
    x, y = (table[:, _column(names, kind, stem)] for kind in ("x", "y"))
    with at(str(target)):
        return Samples(_seconds(table[:, _column(names, "time", stem)], about, stem), x, y), about


def read_bids(
    path: str | Path,
    image_wh: tuple[int, int],
    *,
    box_xyxy: tuple[float, float, float, float] | None = None,
    between: tuple[float, float] | None = None,
    method: Literal["ivt", "idt"] = "ivt",
    screen: Screen | None = None,
    **named: Any,
) -> Scanpath:
    """The fixations of one recording, or of a stretch of it, found in its samples.

    Args:
        path: of the samples, as in :func:`read_bids_samples`. image_wh: of the picture. box_xyxy: where it was on the
            screen; all of the screen (``ScreenResolution``) if None. between: seconds from the first sample between
            which the picture was shown; its starts count from the first of them.
        method: see :func:`~vlmattn.gaze.find_fixations`. screen: of the picture's pixels; made from ``ScreenSize`` and
            ``ScreenDistance`` if None and they are there. named: its other arguments.

    Raises:
        FileError: as in :func:`read_bids_samples`, or the screen is not described.
    """
    samples, about = read_bids_samples(path)
    resolution = _pair(about, "ScreenResolution")
    if box_xyxy is None:
        if resolution is None:
            raise FileError(f"{path}: the description has no ScreenResolution: give box_xyxy")
        box_xyxy = (0.0, 0.0, *resolution)
    across, down = image_wh[0] / (box_xyxy[2] - box_xyxy[0]), image_wh[1] / (box_xyxy[3] - box_xyxy[1])
    if screen is None and resolution is not None:
        shown = _screen(about, resolution)
        screen = None if shown is None else shown.scaled((across + down) / 2, (box_xyxy[0], box_xyxy[1]))
    start, end = between or (-np.inf, np.inf)
    kept = (samples.time >= start) & (samples.time < end)
    time = samples.time[kept] - (start if between else 0.0)
    x, y = (samples.x[kept] - box_xyxy[0]) * across, (samples.y[kept] - box_xyxy[1]) * down
    return find_fixations(Samples(time, x, y), image_wh, method=method, screen=screen, **named)


def _table(path: Path, columns: int) -> NDArray[np.float64]:
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        cells = line.rstrip("\r\n").split("\t")
        if len(cells) != columns:
            raise FileError(f"{path}, line {number}: {len(cells)} cells, but the description names {columns} columns")
        try:
            rows.append([np.nan if cell in ("n/a", "") else float(cell) for cell in cells])
        except ValueError as error:
            raise FileError(f"{path}, line {number}: {error}") from error
    if not rows:
        raise FileError(f"{path} is empty")
    return np.asarray(rows)


def _column(names: list[Any], kind: str, stem: str) -> int:
    for name in _COLUMNS[kind]:
        if name in names:
            return names.index(name)
    raise FileError(f"{stem}.json: Columns must have {' or '.join(_COLUMNS[kind])}, got {names}")


def _seconds(stamps: NDArray[np.float64], about: Mapping[str, Any], stem: str) -> NDArray[np.float64]:
    rate = about.get("SamplingFrequency")
    if not isinstance(rate, (int, float)) or rate <= 0:
        raise FileError(f"{stem}.json: SamplingFrequency must be a number above 0, got {rate!r}")
    if len(stamps) < 2:
        return stamps - stamps
    ratio = float(np.median(np.diff(stamps))) * rate
    unit = min((1.0, 1e3, 1e6, 1e9), key=lambda one: abs(np.log(max(ratio, 1e-12) / one)))
    if not 0.5 <= ratio / unit <= 2:
        raise FileError(
            f"{stem}.json: SamplingFrequency {rate} does not go with steps of {ratio / rate:g} in the table"
        )
    return (stamps - stamps[0]) / unit


def _pair(about: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    for place in (about, about.get("StimulusPresentation")):
        value = place.get(name) if isinstance(place, Mapping) else None
        if isinstance(value, list) and len(value) == 2 and all(isinstance(v, (int, float)) and v > 0 for v in value):
            return float(value[0]), float(value[1])
    return None


def _screen(about: Mapping[str, Any], resolution: tuple[float, float]) -> Screen | None:
    """From ScreenSize and ScreenDistance, which BIDS has in metres; earlier drafts in centimetres."""
    size, presented = _pair(about, "ScreenSize"), about.get("StimulusPresentation")
    distance = about.get("ScreenDistance", presented.get("ScreenDistance") if isinstance(presented, Mapping) else None)
    if size is None or not isinstance(distance, (int, float)) or distance <= 0:
        return None
    to_cm = 100.0 if distance < 5 else 1.0
    return Screen.from_geometry(
        size_px=resolution, size_cm=(size[0] * to_cm, size[1] * to_cm), distance_cm=distance * to_cm
    )
