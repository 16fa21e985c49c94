"""Checks of coordinates and times, and what looks like another unit."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmattn.core.errors import SpecError

Outside = Literal["keep", "drop", "clip"]
Array = NDArray[np.float64]
_DEGREES = 45.0
_LARGE = 200
_LONG = 20.0


class GazeWarning(UserWarning):
    """Gaze data that can be used but look wrong; the message says how."""


def check_wh(image_wh: Any) -> tuple[int, int]:
    """Width and height in pixels. Raises SpecError."""
    try:
        width, height = image_wh
        wh = int(width), int(height)
        if wh == (width, height) and min(wh) > 0:
            return wh
    except (TypeError, ValueError, OverflowError):
        pass
    raise SpecError(f"image_wh must be the picture's (width, height) in whole pixels above 0, got {image_wh!r}")


def check_points(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """Coordinates as read-only arrays. Raises SpecError: not one-dimensional, of two lengths, or not finite."""
    across, down = as_column("x", x), as_column("y", y)
    if len(across) != len(down):
        raise SpecError(f"x and y must have one length (n,), got {len(across)} and {len(down)}")
    for name, values in (("x", across), ("y", down)):
        _finite(name, values)
    return across, down


def check_durations(duration: ArrayLike | None, n: int) -> Array | None:
    """Seconds above 0. Raises SpecError."""
    if duration is None:
        return None
    held = _of_length("duration", duration, n)
    bad = np.flatnonzero(held <= 0)
    if len(bad):
        raise SpecError(
            f"duration must be above 0 seconds, got {held[bad[0]]:g} for fixation {bad[0]} (counted from 0); "
            "Scanpath.of drops such fixations"
        )
    return held


def check_starts(start: ArrayLike | None, n: int) -> Array | None:
    """Seconds, strictly increasing. Raises SpecError."""
    if start is None:
        return None
    held = _of_length("start", start, n)
    bad = np.flatnonzero(np.diff(held) <= 0)
    if len(bad):
        at = int(bad[0])
        raise SpecError(
            f"start must increase from fixation to fixation, but fixation {at + 1} starts at {held[at + 1]:g} s, not "
            f"after fixation {at} at {held[at]:g} s; sort the fixations by time first"
        )
    return held


def warn_of_units(x: Array, y: Array, wh: tuple[int, int], duration: Array | None) -> None:
    """Warn where values look like shares or degrees instead of pixels, or milliseconds instead of seconds.

    Three or more fixations that all lie within 45 of the corner, or within 1, of a picture of 200 pixels or more a
    side hardly ever are pixels; nor is half a scanpath of fixations longer than 20 s.
    """
    if len(x) >= 3 and min(wh) >= _LARGE:
        largest = max(np.abs(x).max(), np.abs(y).max())
        unit = "shares of the picture" if largest <= 1.0 else "degrees" if largest <= _DEGREES else None
        if unit:
            told = (
                f"all {len(x)} fixations lie within {largest:.3g} of the corner of a picture of {wh[0]}x{wh[1]} pixels"
            )
            warnings.warn(f"{told}: are x and y {unit} instead of pixels?", GazeWarning, stacklevel=4)
    if duration is not None and len(duration) and np.median(duration) > _LONG:
        told = f"half of the durations are over {_LONG:g} seconds (median {np.median(duration):.4g})"
        warnings.warn(f"{told}: are they milliseconds?", GazeWarning, stacklevel=4)


def usable(columns: Mapping[str, ArrayLike]) -> dict[str, Array]:
    """The columns without rows that hold NaN or infinity, or whose ``duration`` is 0 or less. Raises SpecError."""
    held = {name: as_column(name, value) for name, value in columns.items()}
    if len({len(v) for v in held.values()}) > 1:
        raise SpecError(f"columns must have one length (n,), got { {name: len(v) for name, v in held.items()} }")
    keep = np.all([np.isfinite(v) for v in held.values()], axis=0)
    if "duration" in held:
        keep &= held["duration"] > 0
    return {name: v[keep] for name, v in held.items()}


def inside(x: Array, y: Array, wh: tuple[int, int]) -> NDArray[np.bool_]:
    """(n,) whether points lie on the picture."""
    return np.asarray((x >= 0) & (x < wh[0]) & (y >= 0) & (y < wh[1]))


def clip_to(x: Array, y: Array, wh: tuple[int, int]) -> tuple[Array, Array]:
    """The nearest points on the picture; its far edges are open, so the largest number below them."""
    return (
        np.clip(x, 0.0, np.nextafter(float(wh[0]), 0.0)),
        np.clip(y, 0.0, np.nextafter(float(wh[1]), 0.0)),
    )


def as_column(name: str, values: ArrayLike) -> Array:
    """(n,) float64, a read-only copy. Raises SpecError: not numbers, or another shape."""
    try:
        held = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SpecError(f"{name} must be numbers of shape (n,): {error}") from error
    if held.ndim != 1:
        raise SpecError(f"{name} must have shape (n,), got {held.shape}")
    held.flags.writeable = False
    return held


def _of_length(name: str, values: ArrayLike, n: int) -> Array:
    held = as_column(name, values)
    if len(held) != n:
        raise SpecError(f"{name} must have one value for each of the {n} fixations, got {len(held)}")
    _finite(name, held)
    return held


def _finite(name: str, values: Array) -> None:
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise SpecError(
            f"{name} must be finite, got {values[bad[0]]} for fixation {bad[0]} (counted from 0); Scanpath.of drops "
            "fixations with missing values"
        )
