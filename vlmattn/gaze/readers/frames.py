"""Fixations that pymovements found: its event frames and gaze objects, taken as they are, without the library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.records import listed
from vlmattn.gaze.fixations import Fixations
from vlmattn.gaze.readers.tables import from_frame
from vlmattn.gaze.units import Outside


def from_pymovements(
    events: Any,
    image_wh: tuple[int, int],
    *,
    trials: Sequence[str] | None = None,
    image: str | None = None,
    subject: str | None = None,
    image_column: str | None = None,
    subject_column: str | None = None,
    time_unit: float = 0.001,
    outside: Outside = "keep",
    drop_bad: bool = False,
) -> Fixations:
    """Scanpaths of the fixation events of a pymovements gaze object, its events, or their data frame.

    Events are those whose name begins with ``fixation``; each needs a ``location`` (x, y) in pixels, which
    ``gaze.compute_event_properties("location")`` adds, or columns ``location_x`` and ``location_y``. Times are in
    milliseconds.

    Args:
        image_wh: of the picture that was shown, in whose pixels locations are. trials: columns whose values part
            scanpaths; the object's own trial columns if None. image, subject: of all. image_column, subject_column:
            columns with them. time_unit: seconds in one unit of time.

    Raises:
        FileError: a column is missing. SpecError: no events, or a scanpath that is wrong.
    """
    held = _columns(events)
    for name in ("name", "onset", "duration"):
        if name not in held:
            raise FileError(f"the events have no column {name!r}; they have {listed(list(held), 20)}")
    keep = [i for i, name in enumerate(held["name"]) if str(name).startswith("fixation")]
    held = {name: [values[i] for i in keep] for name, values in held.items()}
    frame: dict[str, list[Any]] = {"start": held["onset"], "duration": held["duration"], **_locations(held)}
    keys = list(trials if trials is not None else getattr(events, "trial_columns", None) or ())
    named = {"image": image_column, "subject": subject_column}
    for name in (*keys, *(column for column in named.values() if column)):
        if name not in held:
            raise FileError(f"the events have no column {name!r}; they have {listed(list(held), 20)}")
    for field, column in named.items():
        if column:
            frame[field] = held[column]
    frame["scanpath"] = [
        repr(tuple(held[n][i] for n in (*keys, *filter(None, named.values())))) for i in range(len(keep))
    ]
    options: dict[str, Any] = {"outside": outside, "drop_bad": drop_bad, "time_unit": time_unit}
    return from_frame(frame, sizes=image_wh, image=image, subject=subject, **options)


def _columns(events: Any) -> dict[str, list[Any]]:
    frame = events
    for name in ("events", "frame"):  # a gaze object has events, and those have a frame
        frame = getattr(frame, name, frame)
    if not hasattr(frame, "columns"):
        raise SpecError(f"expected pymovements' gaze, events or their data frame, got {type(events).__name__}")
    return {str(name): list(frame[name]) for name in frame.columns}


def _locations(held: dict[str, list[Any]]) -> dict[str, list[Any]]:
    if "location" in held:
        points = [(None, None) if point is None else tuple(point) for point in held["location"]]
        if any(len(point) != 2 for point in points):
            raise FileError("location must be x, y; a binocular recording needs the location of one eye")
        return {"x": [p[0] for p in points], "y": [p[1] for p in points]}
    if {"location_x", "location_y"} <= set(held):
        return {"x": held["location_x"], "y": held["location_y"]}
    raise FileError('the events have no location: add it with gaze.compute_event_properties("location")')
