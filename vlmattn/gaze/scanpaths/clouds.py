"""Scanpaths as sets of points, whatever their order: Eyenalysis, Mannan, earth mover's distance, discs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from vlmattn.core.errors import SpecError
from vlmattn.gaze.fixations import Scanpath
from vlmattn.gaze.scanpaths.curves import distances
from vlmattn.gaze.scanpaths.pairs import Array, Index, check_paths, each_pair, one_pair

Eyenalysis = Literal["max", "sum", "squared", "means"]


def eyenalysis(one: Scanpath, other: Scanpath, *, variant: Eyenalysis = "max") -> float:
    """Distance of each fixation to the nearest of the other scanpath, both ways, in pixels; lower is better, from 0.

    Mathôt, Cristino, Gilchrist and Theeuwes, J. Eye Movement Research 2012. Symmetric; NaN if one has no fixation.

    Args:
        variant: the sum over both ways is divided by the larger number of fixations (``max``, as published) or by
            their sum (``sum``); ``squared``: squared distances over the larger number; ``means``: the mean of both
            ways' means.

    Example:
        >>> path = Scanpath([10.0, 50, 90], [20.0, 60, 10], (100, 100))
        >>> eyenalysis(path, Scanpath(path.x + 3, path.y + 4, (100, 100)))
        10.0
    """
    return float(one_pair(lambda *pairs: eyenalysis_pairs(*pairs, variant=variant), one, other)[0])


def eyenalysis_pairs(paths: Sequence[Scanpath], one: Index, other: Index, *, variant: Eyenalysis = "max") -> Array:
    """(p, 1) :func:`eyenalysis` of pairs, given as numbers (p,) of scanpaths."""
    if variant not in ("max", "sum", "squared", "means"):
        raise SpecError(f"variant must be 'max', 'sum', 'squared' or 'means', got {variant!r}")
    points = _points(paths)

    def value(i: int, j: int) -> float:
        near = _nearest(points[i], points[j])
        if near is None:
            return float("nan")
        a, b = (v**2 for v in near) if variant == "squared" else near
        if variant == "means":
            return float((a.mean() + b.mean()) / 2)
        return float((a.sum() + b.sum()) / (len(a) + len(b) if variant == "sum" else max(len(a), len(b))))

    return each_pair(one, other, value)


def mannan_distance(one: Scanpath, other: Scanpath) -> float:
    """Root mean square distance of fixations to the nearest of the other scanpath, over the picture's diagonal; lower
    is better, 0 to 1 on the picture.

    Mannan, Ruddock and Wooding, Spatial Vision 1995, as Fahimi and Bruce, Behavior Research Methods 2021, write it:
    each way's sum of squares is weighted with the other's number of fixations, so both ways count equally. Symmetric;
    NaN if one has no fixation.

    Example:
        >>> path = Scanpath([10.0, 50, 90], [20.0, 60, 10], (100, 100))
        >>> round(mannan_distance(path, Scanpath(path.x + 3, path.y + 4, (100, 100))), 6)
        0.035355
    """
    return float(one_pair(mannan_pairs, one, other)[0])


def mannan_pairs(paths: Sequence[Scanpath], one: Index, other: Index) -> Array:
    """(p, 1) :func:`mannan_distance` of pairs, given as numbers (p,) of scanpaths."""
    points = _points(paths)
    diagonal = float(np.hypot(*paths[0].image_wh)) if len(paths) else 1.0
    return each_pair(one, other, lambda i, j: _mannan(points[i], points[j]) / diagonal)


def mannan(one: Scanpath, other: Scanpath, *, draws: int = 1000, seed: int = 0) -> float:
    """Mannan's similarity: 100 (1 - D / D of random sets of the same sizes); higher is better, at most 100, 0 is
    chance. NaN if one has no fixation.

    Args:
        draws: pairs of random sets whose mean distance is chance. seed: of them.

    Example:
        >>> path = Scanpath([10.0, 50, 90], [20.0, 60, 10], (100, 100))
        >>> mannan(path, path)
        100.0
    """
    if draws < 1:
        raise SpecError(f"draws must be 1 or more, got {draws}")
    distance = mannan_distance(one, other)
    if np.isnan(distance):
        return distance
    rng, wh = np.random.default_rng(seed), np.array(one.image_wh)
    chance = np.mean([_mannan(rng.random((len(one), 2)) * wh, rng.random((len(other), 2)) * wh) for _ in range(draws)])
    return float(100 * (1 - distance * np.hypot(*wh) / chance))


def earth_mover(one: Scanpath, other: Scanpath, *, weights: Literal["fixations", "durations"] = "fixations") -> float:
    """Mean way that turning one scanpath's fixations into the other's needs, in pixels; lower is better, from 0.

    Rubner, Tomasi and Guibas, IJCV 2000, with the exact transport of scipy's linear program. Symmetric; NaN if one
    has no fixation.

    Args:
        weights: every fixation weighs the same, or as much as it lasts.

    Raises:
        SpecError: ``durations`` where there are none.

    Example:
        >>> path = Scanpath([10.0, 50, 90], [20.0, 60, 10], (100, 100))
        >>> round(earth_mover(path, Scanpath(path.x + 3, path.y + 4, (100, 100))), 6)
        5.0
    """
    return float(one_pair(lambda *pairs: earth_mover_pairs(*pairs, weights=weights), one, other)[0])


def earth_mover_pairs(
    paths: Sequence[Scanpath],
    one: Index,
    other: Index,
    *,
    weights: Literal["fixations", "durations"] = "fixations",
) -> Array:
    """(p, 1) :func:`earth_mover` of pairs, given as numbers (p,) of scanpaths."""
    if weights not in ("fixations", "durations"):
        raise SpecError(f"weights must be 'fixations' or 'durations', got {weights!r}")
    check_paths(paths, durations="the earth mover's distance by durations" if weights == "durations" else None)

    def value(i: int, j: int) -> float:
        a, b = paths[i], paths[j]
        if not (len(a) and len(b)):
            return float("nan")
        given = [p.duration if weights == "durations" and p.duration is not None else np.ones(len(p)) for p in (a, b)]
        return _transport(distances(a.xy, b.xy), given[0] / given[0].sum(), given[1] / given[1].sum())

    return each_pair(one, other, value)


class DiscAgreement(NamedTuple):
    """Shares of a scanpath's discs that the other covers: ``recall`` of the first's by the second, ``precision`` of
    the second's by the first, ``f1`` their harmonic mean; higher is better, 0 to 1."""

    precision: float
    recall: float
    f1: float


def disc_agreement(one: Scanpath, other: Scanpath, *, radius_px: float) -> DiscAgreement:
    """Overlap of discs around fixations, each with its best match: intersection over union (FDISS).

    Order does not count. NaN if one has no fixation.

    Args:
        one: the person's. other: the simulated one. radius_px: of the discs, usually one degree.

    Raises:
        SpecError: a radius that is not above 0.

    Example:
        >>> path = Scanpath([10.0, 50, 90], [20.0, 60, 10], (100, 100))
        >>> disc_agreement(path, path.take([0, 1]), radius_px=5).recall
        0.6666666666666666
    """
    if not (np.isfinite(radius_px) and radius_px > 0):
        raise SpecError(f"radius_px must be above 0, got {radius_px!r}")
    check_paths([one, other])
    if not (len(one) and len(other)):
        return DiscAgreement(*[float("nan")] * 3)
    half = np.minimum(distances(one.xy, other.xy) / (2 * radius_px), 1.0)
    shared = (2 / np.pi) * (np.arccos(half) - half * np.sqrt(1 - half**2))
    overlap = shared / (2 - shared)
    recall, precision = float(overlap.max(axis=1).mean()), float(overlap.max(axis=0).mean())
    total = precision + recall
    return DiscAgreement(precision, recall, 2 * precision * recall / total if total else 0.0)


def _points(paths: Sequence[Scanpath]) -> list[Array]:
    check_paths(paths)
    return [p.xy for p in paths]


def _nearest(one: Array, other: Array) -> tuple[Array, Array] | None:
    if not (len(one) and len(other)):
        return None
    apart = distances(one, other)
    return apart.min(axis=1), apart.min(axis=0)


def _mannan(one: Array, other: Array) -> float:
    near = _nearest(one, other)
    if near is None:
        return float("nan")
    return float(np.sqrt(((near[0] ** 2).mean() + (near[1] ** 2).mean()) / 2))


def _transport(cost: Array, one: Array, other: Array) -> float:
    from scipy.optimize import linear_sum_assignment, linprog
    from scipy.sparse import coo_matrix

    n, m = cost.shape
    if n == m and np.allclose(one, 1 / n, rtol=0, atol=1e-15) and np.allclose(other, 1 / n, rtol=0, atol=1e-15):
        return float(cost[linear_sum_assignment(cost)].mean())
    cell = np.arange(n * m)
    row, column = np.divmod(cell, m)
    sums = coo_matrix((np.ones(2 * n * m), (np.concatenate([row, n + column]), np.tile(cell, 2))), shape=(n + m, n * m))
    # One of the sums follows from the others; leaving it out spares the solver a contradiction by rounding.
    found = linprog(cost.ravel(), A_eq=sums.tocsr()[:-1], b_eq=np.concatenate([one, other])[:-1], method="highs")
    return float(max(found.fun, 0.0))
