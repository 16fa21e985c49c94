"""Saccades of a scanpath, and the joining of short ones that MultiMatch does first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import acos, degrees, hypot

import numpy as np
from numpy.typing import ArrayLike

from vlmattn.gaze.scanpaths.pairs import Array

Row = tuple[float, float, float, float]
"""Start x, start y, and the way across and down."""


@dataclass(frozen=True)
class Saccades:
    """Ways from fixation to fixation.

    Attributes:
        x, y, dx, dy: (n,) where each starts and how far it goes, pixels. duration: (n + 1,) of the fixations between,
            seconds; NaN if not known. fixations: how many the scanpath had at first.
    """

    x: Array
    y: Array
    dx: Array
    dy: Array
    duration: Array
    fixations: int

    @classmethod
    def of(cls, x: ArrayLike, y: ArrayLike, duration: ArrayLike | None) -> Saccades:
        """From fixations (n,)."""
        across, down = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        n = len(across)
        lasting = np.full(n, np.nan) if duration is None else np.asarray(duration, dtype=np.float64)
        return cls(across[:-1], down[:-1], np.diff(across), np.diff(down), lasting, n)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.dx)

    def rows(self) -> list[Row]:
        """Each as start and way."""
        return list(zip(self.x.tolist(), self.y.tolist(), self.dx.tolist(), self.dy.tolist(), strict=True))


def simplified(saccades: Saccades, angle_deg: float, amplitude_px: float, duration: float) -> Saccades:
    """Saccades after joining, by direction and by length in turn, until nothing changes.

    Follows multimatch_gaze 0.1.3 in what it does with the last saccade (see :func:`_by_length`), so that numbers
    agree; where that package stops with an error, this does not: the cosine of an angle is clipped, and what has
    become a single saccade is left as it is.
    """
    rows, times = saccades.rows(), saccades.duration.tolist()
    before = -1
    while before != len(times):
        before = len(times)
        rows, times = _by_direction(rows, times, angle_deg, duration)
        rows, times = _by_length(rows, times, amplitude_px, duration)
    return _gathered(rows, times, saccades.fixations)


def _gathered(rows: Iterable[Row], times: list[float], fixations: int) -> Saccades:
    held = np.array(list(rows), dtype=np.float64).reshape(-1, 4)
    # The duration of a saccade is that of the fixation it starts at; a surplus entry of the last rule stays unused.
    x, y, dx, dy = held.T
    return Saccades(x, y, dx, dy, np.array(times, dtype=np.float64), fixations)


def _joined(one: Row, other: Row) -> Row:
    return one[0], one[1], one[2] + other[2], one[3] + other[3]


def _between(one: Row, other: Row) -> float:
    """Degrees between two saccades; infinite if one has no length."""
    lengths = hypot(*one[2:]) * hypot(*other[2:])
    if lengths == 0:
        return float("inf")
    return degrees(acos(min(1.0, max(-1.0, (one[2] * other[2] + one[3] * other[3]) / lengths))))


def _by_direction(rows: list[Row], times: list[float], angle: float, duration: float) -> tuple[list[Row], list[float]]:
    if len(rows) < 2:
        return rows, times
    kept, lasting, i = [], [], 0
    while i < len(rows):
        follows = i < len(rows) - 1
        join = follows and _between(rows[i], rows[i + 1]) < angle and times[i + 1] < duration
        kept.append(_joined(rows[i], rows[i + 1]) if join else rows[i])
        lasting.append(times[i])
        i += 2 if join else 1
    return kept, [*lasting, times[-1]]


def _by_length(rows: list[Row], times: list[float], amplitude: float, duration: float) -> tuple[list[Row], list[float]]:
    """Joining by length. A last saccade that is short takes the place of the one kept before it, as the sum of the
    last two that came in: if the one before was joined itself, a vector is lost and one duration is left over."""
    if len(rows) < 2:
        return rows, times
    kept: list[Row] = []
    lasting: list[float] = []
    i, last = 0, len(rows) - 1
    while i <= last:
        short = hypot(*rows[i][2:]) < amplitude
        if i == last and short and (times[-1] < duration or times[-2] < duration):
            kept[-1] = kept[-1][:2] + _joined(rows[i - 1], rows[i])[2:]
            lasting.append(times[i - 1])
            i += 1
        elif i < last and short and (times[i + 1] < duration or times[i] < duration):
            kept.append(_joined(rows[i], rows[i + 1]))
            lasting.append(times[i])
            i += 2
        else:
            kept.append(rows[i])
            lasting.append(times[i])
            i += 1
    return kept, [*lasting, times[-1]]
