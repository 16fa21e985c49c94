"""What saccades of scanpaths are like as a whole, and how far two sets of scanpaths differ in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from vlmattn.core.errors import SpecError
from vlmattn.gaze.fixations import Scanpath
from vlmattn.gaze.scanpaths.curves import distances
from vlmattn.gaze.scanpaths.pairs import Array, check_paths

UNITS = {"amplitude": "px", "direction": "rad", "turn": "rad", "dwell": "s", "fixations": "count"}


@dataclass(frozen=True)
class SaccadeStatistics:
    """Values of all saccades (or fixations) of a set of scanpaths.

    Attributes:
        amplitude: lengths of saccades, pixels. direction: of saccades, radians from -pi to pi, 0 to the right, pi / 2
            down; saccades of no length are left out. turn: from one saccade to the next, the same way, 0 straight on.
            dwell: durations of fixations, seconds; empty if none are known. fixations: how many each scanpath has.
        returns: share of fixations (from the third on) that come back within the radius of an earlier one other than
            the one before; NaN if there is no third fixation.
    """

    amplitude: Array
    direction: Array
    turn: Array
    dwell: Array
    fixations: Array
    returns: float

    @classmethod
    def of(cls, paths: Iterable[Scanpath], *, radius_px: float = 50.0) -> SaccadeStatistics:
        """Of any set of scanpaths; what has too few fixations for a value gives none.

        Args:
            radius_px: how near a return is.

        Example:
            >>> told = SaccadeStatistics.of([Scanpath([0.0, 30, 30, 0], [0.0, 0, 40, 0], (100, 100))], radius_px=1)
            >>> told.amplitude.tolist(), told.turn.round(3).tolist(), told.returns
            ([30.0, 40.0, 50.0], [1.571, 2.498], 0.5)
        """
        held = list(paths)
        for number, path in enumerate(held):
            check_paths([path] if isinstance(path, Scanpath) else held[: number + 1])
        if not (np.isfinite(radius_px) and radius_px >= 0):
            raise SpecError(f"radius_px must be 0 or more, got {radius_px!r}")
        back = _joined(held, lambda p: _returns(p, radius_px))
        return cls(
            _joined(held, lambda p: np.hypot(np.diff(p.x), np.diff(p.y))),
            _joined(held, _directions),
            _joined(held, lambda p: (np.diff(_directions(p)) + np.pi) % (2 * np.pi) - np.pi),
            _joined(held, lambda p: np.zeros(0) if p.duration is None else p.duration),
            np.array([float(len(p)) for p in held]),
            float(back.mean()) if len(back) else float("nan"),
        )

    def distance(self, other: SaccadeStatistics) -> dict[str, float]:
        """How far two sets differ, by value; lower is better, from 0.

        Earth mover's distance of both distributions, in the values' own units (:data:`UNITS`); of directions and turns
        around the circle, at most pi. Of ``returns`` the difference. NaN where one set has no value. Symmetric.

        Example:
            >>> one = SaccadeStatistics.of([Scanpath([0.0, 30], [0.0, 0], (100, 100))])
            >>> other = SaccadeStatistics.of([Scanpath([0.0, 0], [0.0, 40], (100, 100))])
            >>> {k: round(v, 3) for k, v in one.distance(other).items() if k in ("amplitude", "direction")}
            {'amplitude': 10.0, 'direction': 1.571}
        """
        told = {}
        for name in UNITS:
            between = _around if name in ("direction", "turn") else _along
            a, b = getattr(self, name), getattr(other, name)
            told[name] = between(a, b) if len(a) and len(b) else float("nan")
        return {**told, "returns": abs(self.returns - other.returns)}


def _joined(paths: list[Scanpath], values: Callable[[Scanpath], Array]) -> Array:
    return np.concatenate([np.zeros(0), *(values(p) for p in paths)])


def _directions(path: Scanpath) -> Array:
    x, y = np.diff(path.x), np.diff(path.y)
    moved = (x != 0) | (y != 0)
    return np.asarray(np.arctan2(y[moved], x[moved]))


def _returns(path: Scanpath, radius_px: float) -> Array:
    near = distances(path.xy, path.xy) <= radius_px
    return np.array([float(near[i, : i - 1].any()) for i in range(2, len(path))])


def _along(one: Array, other: Array) -> float:
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(one, other))


def _around(one: Array, other: Array) -> float:
    """On a circle the cheapest transport leaves half of it with a surplus and half without: the difference of both
    cumulative shares about its median (Werman, Peleg and Melter, CVGIP 1986)."""
    places = np.sort(np.concatenate([one, other]))
    gaps = np.diff(np.append(places, places[0] + 2 * np.pi))
    surplus = np.searchsorted(np.sort(one), places, side="right") / len(one) - np.searchsorted(
        np.sort(other), places, side="right"
    ) / len(other)
    order = np.argsort(surplus, kind="stable")
    middle = surplus[order[np.searchsorted(np.cumsum(gaps[order]), np.pi)]]
    return float(np.abs(surplus - middle) @ gaps)
