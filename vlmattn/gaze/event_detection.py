"""Fixations from raw samples of the eye: by velocity (I-VT) and by dispersion (I-DT).

Salvucci and Goldberg, "Identifying fixations and saccades in eye-tracking protocols", ETRA 2000. A fixation starts at
the time of its first sample, lasts until its last one, and lies at their mean. A missing sample (NaN) ends it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.gaze.fixations import Scanpath
from vlmattn.gaze.screen import Screen
from vlmattn.gaze.units import as_column

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Samples:
    """Where one eye pointed, sample by sample.

    Attributes:
        time: (n,) seconds, strictly increasing. x, y: (n,) pixels; NaN in either where the eye was lost.

    Raises:
        SpecError: lengths that differ, or times that do not increase or are missing.
    """

    time: Array
    x: Array
    y: Array

    def __post_init__(self) -> None:
        held = {name: as_column(name, getattr(self, name)) for name in ("time", "x", "y")}
        if len({len(v) for v in held.values()}) > 1:
            raise SpecError(f"time, x and y must have one length, got { {n: len(v) for n, v in held.items()} }")
        steps = np.diff(held["time"])
        if not np.isfinite(held["time"]).all() or (steps <= 0).any():
            at = int(np.flatnonzero(~(steps > 0))[0]) + 1 if len(steps) else 0
            raise SpecError(f"times must increase from sample to sample, not so at sample {at} (counted from 0)")
        for name, values in held.items():
            object.__setattr__(self, name, values)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(n,) whether the eye was found."""
        return np.isfinite(self.x) & np.isfinite(self.y)

    def __len__(self) -> int:
        return len(self.time)


def ivt(samples: Samples, *, velocity: float, min_duration: float = 0.06) -> list[slice]:
    """Runs of samples slower than ``velocity`` pixels per second that last ``min_duration`` seconds or more.

    The velocity of a sample is its distance from the sample before over the time between them; the first one, and one
    after a gap, take that of the next sample. A sample without a neighbour has none and belongs to no fixation.

    Example:
        >>> still = Samples([0.0, 0.1, 0.2, 0.3], [5.0, 5.0, 90.0, 90.0], [5.0, 5.0, 5.0, 5.0])
        >>> ivt(still, velocity=100.0)
        [slice(0, 2, None)]
    """
    _above("velocity", velocity)
    _above("min_duration", min_duration)
    n = len(samples)
    if n < 2:
        return []
    speed = np.hypot(np.diff(samples.x), np.diff(samples.y)) / np.diff(samples.time)
    before, after = np.concatenate([[np.nan], speed]), np.concatenate([speed, [np.nan]])
    slow = np.where(np.isnan(before), after, before) < velocity  # False for NaN
    edges = np.flatnonzero(np.diff(np.concatenate([[False], slow & samples.seen, [False]])))
    runs = [slice(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]
    return [run for run in runs if _lasts(samples, run) >= min_duration]


def idt(samples: Samples, *, dispersion: float, min_duration: float = 0.1) -> list[slice]:
    """Longest runs of samples that spread over at most ``dispersion`` pixels and last ``min_duration`` seconds or more.

    Spread is (max x - min x) + (max y - min y). From the left: a window of ``min_duration`` that is within the spread
    grows while it stays so, else its first sample is dropped.

    Example:
        >>> still = Samples([0.0, 0.1, 0.2, 0.3], [5.0, 6.0, 90.0, 90.0], [5.0, 5.0, 5.0, 5.0])
        >>> idt(still, dispersion=2.0)
        [slice(0, 2, None), slice(2, 4, None)]
    """
    _above("dispersion", dispersion)
    _above("min_duration", min_duration)
    runs, start, n = [], 0, len(samples)
    gaps = np.append(np.flatnonzero(~samples.seen), n)
    while start < n:
        stop = int(gaps[np.searchsorted(gaps, start)])
        first = int(np.searchsorted(samples.time[start:stop], samples.time[start] + min_duration - 1e-9)) + start
        if first >= stop:  # too little is left before the gap
            start = stop + 1
            continue
        end = _grown(samples, start, stop, dispersion)
        if end <= first:
            start += 1
            continue
        runs.append(slice(start, end))
        start = end
    return runs


def find_fixations(
    samples: Samples,
    image_wh: tuple[int, int],
    *,
    method: Literal["ivt", "idt"] = "ivt",
    velocity: float = 30.0,
    dispersion: float = 1.0,
    min_duration: float | None = None,
    screen: Screen | None = None,
    **named: Any,
) -> Scanpath:
    """The fixations in raw samples, as a scanpath.

    Args:
        samples: in pixels of the picture, times in seconds since it appeared.
        velocity: of ``ivt``, dispersion: of ``idt``: in degrees (per second) of visual angle if ``screen`` is given,
            else in pixels (per second), where the defaults make no sense and must be replaced.
        min_duration: seconds; 0.06 for ``ivt``, 0.1 for ``idt`` if None. named: other attributes of the scanpath.

    Raises:
        SpecError: another method, a threshold of 0 or less, or pixels without a threshold of your own.

    Example:
        >>> samples = Samples([0.0, 0.1, 0.2], [5.0, 5.0, 5.0], [7.0, 7.0, 7.0])
        >>> find_fixations(samples, (10, 10), screen=Screen(30.0)).duration.tolist()
        [0.2]
    """
    if method not in ("ivt", "idt"):
        raise SpecError(f"method must be 'ivt' or 'idt', got {method!r}")
    given = velocity if method == "ivt" else dispersion
    if screen is None and given == (30.0 if method == "ivt" else 1.0):
        raise SpecError("without a screen the threshold is in pixels: give your own, or the pixels per degree")
    limit = given * (1.0 if screen is None else screen.pixels_per_degree)
    if method == "ivt":
        runs = ivt(samples, velocity=limit, min_duration=0.06 if min_duration is None else min_duration)
    else:
        runs = idt(samples, dispersion=limit, min_duration=0.1 if min_duration is None else min_duration)
    x, y = ([float(values[run].mean()) for run in runs] for values in (samples.x, samples.y))
    start, duration = [samples.time[run.start] for run in runs], [_lasts(samples, run) for run in runs]
    return Scanpath.of(x, y, image_wh, start=start, duration=duration, screen=screen, **named)


def _grown(samples: Samples, start: int, stop: int, dispersion: float) -> int:
    """Where the window from ``start`` first spreads too far, looked for in pieces that double."""
    size, low, high = 64, np.full(2, np.inf), np.full(2, -np.inf)
    at = start
    while at < stop:
        part = np.stack([samples.x[at : min(at + size, stop)], samples.y[at : min(at + size, stop)]])
        lows = np.minimum(np.minimum.accumulate(part, axis=1), low[:, None])
        highs = np.maximum(np.maximum.accumulate(part, axis=1), high[:, None])
        wide = np.flatnonzero((highs - lows).sum(axis=0) > dispersion)
        if len(wide):
            return at + int(wide[0])
        low, high = lows[:, -1], highs[:, -1]
        at, size = at + part.shape[1], size * 2
    return stop


def _lasts(samples: Samples, run: slice) -> float:
    return float(samples.time[run.stop - 1] - samples.time[run.start])


def _above(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise SpecError(f"{name} must be above 0, got {value}")
