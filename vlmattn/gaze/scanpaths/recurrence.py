"""Recurrence quantification: how often, and in which patterns, fixations come back to places.

Anderson, Bischof, Laidlaw, Risko and Kingstone, Behavior Research Methods 2013 (one scanpath); Anderson, Anderson,
Kingstone and Bischof, Behavior Research Methods 2015 (two). All values are descriptive: no direction is better;
compare them with those of people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.gaze.fixations import Scanpath
from vlmattn.gaze.scanpaths.curves import distances
from vlmattn.gaze.scanpaths.pairs import Array, Index, check_paths

Lines = Literal["unbroken", "fixatons"]


@dataclass(frozen=True)
class Recurrence:
    """Percentages; NaN where they are not defined.

    Attributes:
        recurrence: of pairs of fixations that recur (REC), 0 to 100; NaN below two fixations (below one each of two
            scanpaths). determinism: of recurrences on diagonal lines (DET), 0 to 100. laminarity: on horizontal and
            vertical lines (LAM), 0 to 100. corm: how far from the diagonal recurrences lie (CORM): 0 to 100 for one
            scanpath; -100 to 100 for two, above 0 where the first leads. The last three are NaN without recurrence.
        points: how many recurrences. variant: how they were counted.
    """

    recurrence: float
    determinism: float
    laminarity: float
    corm: float
    points: int
    variant: str

    @property
    def values(self) -> tuple[float, float, float, float]:
        """REC, DET, LAM, CORM."""
        return self.recurrence, self.determinism, self.laminarity, self.corm


def recurrence(path: Scanpath, *, radius_px: float, shortest: int = 2, variant: Lines = "unbroken") -> Recurrence:
    """Recurrence of one scanpath with itself: pairs of fixations at most ``radius_px`` apart, each once.

    Args:
        radius_px: 34 to 64 pixels, or one to two degrees, are common. shortest: points that make a line.
        variant: ``unbroken``: points of a line follow each other. ``fixatons``: all points of a diagonal, row or
            column count if it has ``shortest`` of them anywhere, as in FixaTons' code.

    Raises:
        SpecError: a radius below 0 or a line of fewer than two points.

    Example:
        >>> back = Scanpath([10.0, 90, 10, 90], [10.0, 90, 10, 90], (100, 100))
        >>> [round(v, 2) for v in recurrence(back, radius_px=5).values]
        [33.33, 100.0, 0.0, 66.67]
    """
    _check(radius_px, shortest, variant)
    check_paths([path])
    n = len(path)
    near = np.triu(distances(path.xy, path.xy) <= radius_px, 1)
    total = int(near.sum())
    rec = 100 * 2 * total / (n * (n - 1)) if n > 1 else float("nan")
    det, lam = _lines(near, total, shortest, variant)
    corm = 100 * _offset(near) / ((n - 1) * total) if total else float("nan")
    return Recurrence(rec, det, lam, corm, total, _named("recurrence", radius_px, shortest, variant))


def cross_recurrence(
    one: Scanpath, other: Scanpath, *, radius_px: float, shortest: int = 2, variant: Lines = "unbroken"
) -> Recurrence:
    """Recurrence of two scanpaths: pairs of a fixation of each, at most ``radius_px`` apart; the longer scanpath is
    cut to the shorter's length. The main diagonal counts. Swapping the scanpaths turns CORM's sign.

    Example:
        >>> path = Scanpath([10.0, 50, 90], [10.0, 50, 90], (100, 100))
        >>> [round(v, 2) for v in cross_recurrence(path, path, radius_px=5).values]
        [33.33, 100.0, 0.0, 0.0]
    """
    _check(radius_px, shortest, variant)
    check_paths([one, other])
    n = min(len(one), len(other))
    near = distances(one.xy[:n], other.xy[:n]) <= radius_px
    total = int(near.sum())
    rec = 100 * total / n**2 if n else float("nan")
    det, lam = _lines(near, total, shortest, variant)
    corm = 100 * _offset(near) / ((n - 1) * total) if total and n > 1 else float("nan")
    return Recurrence(rec, det, lam, corm, total, _named("cross_recurrence", radius_px, shortest, variant))


def cross_recurrence_pairs(
    paths: Sequence[Scanpath], one: Index, other: Index, *, radius_px: float, shortest: int = 2
) -> Array:
    """(p, 4) REC, DET, LAM, CORM of pairs, given as numbers (p,) of scanpaths."""
    check_paths(paths)
    told = [
        cross_recurrence(paths[i], paths[j], radius_px=radius_px, shortest=shortest).values
        for i, j in zip(one, other, strict=True)
    ]
    return np.array(told, dtype=np.float64).reshape(-1, 4)


def _named(measure: str, radius_px: float, shortest: int, variant: str) -> str:
    return f"{measure}[{radius_px:g} px, {variant} lines of {shortest}]"


def _check(radius_px: float, shortest: int, variant: str) -> None:
    if variant not in ("unbroken", "fixatons"):
        raise SpecError(f"variant must be 'unbroken' or 'fixatons', got {variant!r}")
    if not (np.isfinite(radius_px) and radius_px >= 0):
        raise SpecError(f"radius_px must be 0 or more, got {radius_px!r}")
    if isinstance(shortest, bool) or not isinstance(shortest, (int, np.integer)) or shortest < 2:
        raise SpecError(f"shortest must be a whole number of 2 or more, got {shortest!r}")


def _offset(near: NDArray[np.bool_]) -> float:
    i, j = np.nonzero(near)
    return float((j - i).sum())


def _lines(near: NDArray[np.bool_], total: int, shortest: int, variant: Lines) -> tuple[float, float]:
    if not total:
        return float("nan"), float("nan")
    n, count = len(near), _in_runs if variant == "unbroken" else _in_all
    diagonal = sum(count(np.diagonal(near, k), shortest) for k in range(1 - n, n))
    level = sum(count(row, shortest) for row in near)
    upright = sum(count(column, shortest) for column in near.T)
    return 100 * diagonal / total, 100 * (level + upright) / (2 * total)


def _in_all(line: NDArray[np.bool_], shortest: int) -> int:
    """How many points a line has, if ``shortest`` or more."""
    total = int(line.sum())
    return total if total >= shortest else 0


def _in_runs(line: NDArray[np.bool_], shortest: int) -> int:
    """How many points lie in unbroken runs of ``shortest`` or more."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
    runs = edges[1::2] - edges[::2]
    return int(runs[runs >= shortest].sum())
