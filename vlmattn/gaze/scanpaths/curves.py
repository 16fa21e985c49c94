"""Scanpaths as curves: dynamic time warping, discrete Fréchet distance, Hausdorff distance; all in pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vlmattn.core.errors import SpecError
from vlmattn.gaze.fixations import Scanpath
from vlmattn.gaze.scanpaths.alignment import apart, warp
from vlmattn.gaze.scanpaths.pairs import (
    Array,
    Index,
    Strung,
    check_paths,
    chunks,
    each_pair,
    filled,
    kernels,
    one_pair,
)


def dtw(one: Scanpath, other: Scanpath, *, per_step: bool = False) -> float:
    """Sum of distances along the best warping of one scanpath onto the other, in pixels; lower is better, from 0.

    Berndt and Clifford, KDD workshop 1994; exact, by dynamic programming. Symmetric; moving both scanpaths changes
    nothing, scaling both scales it. NaN if one has no fixation; with one fixation, the sum of distances to it.

    Args:
        per_step: divide by the larger number of fixations, so that long scanpaths compare with short ones.

    Example:
        >>> path = Scanpath([10.0, 50, 90], [20.0, 60, 10], (100, 100))
        >>> dtw(path, Scanpath(path.x + 3, path.y + 4, (100, 100))), dtw(path, path.take([0, 1, 1, 2]))
        (15.0, 0.0)
    """
    return float(one_pair(lambda *pairs: dtw_pairs(*pairs, per_step=per_step), one, other)[0])


def dtw_pairs(paths: Sequence[Scanpath], one: Index, other: Index, *, per_step: bool = False) -> Array:
    """(p, 1) :func:`dtw` of pairs, given as numbers (p,) of scanpaths."""
    return _warped(paths, one, other, np.add, per_step)


def frechet(one: Scanpath, other: Scanpath) -> float:
    """The longest leash that walking both scanpaths from fixation to fixation needs, in pixels; lower is better,
    from 0 (discrete Fréchet distance).

    Eiter and Mannila, TU Vienna CD-TR 94/64, 1994. Symmetric. NaN if one has no fixation.

    Example:
        >>> path = Scanpath([10.0, 50, 90], [20.0, 60, 10], (100, 100))
        >>> frechet(path, Scanpath(path.x + 3, path.y + 4, (100, 100)))
        5.0
    """
    return float(one_pair(frechet_pairs, one, other)[0])


def frechet_pairs(paths: Sequence[Scanpath], one: Index, other: Index) -> Array:
    """(p, 1) :func:`frechet` of pairs, given as numbers (p,) of scanpaths."""
    return _warped(paths, one, other, np.maximum, False)


def hausdorff(one: Scanpath, other: Scanpath) -> float:
    """How far the fixation that is farthest from the other scanpath lies from it, in pixels; lower is better, from 0.

    Order does not count. Symmetric. NaN if one has no fixation.

    Example:
        >>> path = Scanpath([10.0, 50, 90], [20.0, 60, 10], (100, 100))
        >>> round(hausdorff(path, Scanpath([10.0, 93], [20.0, 14], (100, 100))), 6)
        56.568542
    """
    return float(one_pair(hausdorff_pairs, one, other)[0])


def hausdorff_pairs(paths: Sequence[Scanpath], one: Index, other: Index) -> Array:
    """(p, 1) :func:`hausdorff` of pairs, given as numbers (p,) of scanpaths."""
    check_paths(paths)
    points = [p.xy for p in paths]

    def farthest(i: int, j: int) -> float:
        if not (len(points[i]) and len(points[j])):
            return float("nan")
        apart = distances(points[i], points[j])
        return float(max(apart.min(axis=0).max(), apart.min(axis=1).max()))

    return each_pair(one, other, farthest)


def distances(one: Array, other: Array) -> Array:
    """(n, m) Euclidean distances of points (n, d) and (m, d)."""
    between = one[:, None, :] - other[None, :, :]
    return np.asarray(np.sqrt((between * between).sum(axis=2)))


def _warped(paths: Sequence[Scanpath], one: Index, other: Index, join: Callable[..., Array], per_step: bool) -> Array:
    check_paths(paths)
    if not isinstance(per_step, bool):
        raise SpecError(f"per_step must be True or False, got {per_step!r}")
    values = np.full((len(one), 1), np.nan)
    across = Strung.of([p.x for p in paths])
    down = Strung.of([p.y for p in paths]).flat
    lengths = across.lengths
    if compiled := kernels():
        pairs = filled(lengths, one, other)
        a, b = one[pairs], other[pairs]
        total = compiled.warped(across.flat, down, across.starts, lengths, a, b, join is np.maximum)
        values[pairs, 0] = total / np.maximum(lengths[a], lengths[b]) if per_step else total
        return values
    x, y = across.padded(), across.padded(down)
    for chunk in chunks(x.lengths[one], x.lengths[other]):
        a, b = one[chunk], other[chunk]
        ends = x.lengths[a], x.lengths[b]
        n, m = int(ends[0].max()), int(ends[1].max())
        local = apart((x.values[:n, a], y.values[:n, a]), (x.values[:m, b], y.values[:m, b]))
        total = warp(local, *ends, join=join).total
        values[chunk, 0] = total / np.maximum(*ends) if per_step else total
    return values
