"""Time-delay embedding: windows of a scanpath against the most alike windows of another.

Wang et al., CVPR 2011 (Simulating human saccadic scanpaths on natural images). Argument order: the person's scanpath,
then the simulated one; the measures are not symmetric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from vlmattn.core.errors import SpecError
from vlmattn.gaze.fixations import Scanpath
from vlmattn.gaze.scanpaths.curves import distances
from vlmattn.gaze.scanpaths.grids import Grid
from vlmattn.gaze.scanpaths.pairs import Array, Index, Strung, check_paths, each_pair, one_pair
from vlmattn.gaze.scanpaths.strings import edits

Over = Literal["mean", "hausdorff"]


def time_delay(human: Scanpath, simulated: Scanpath, *, window: int = 3, over: Over = "mean") -> float:
    """How far windows of the simulated scanpath are from the nearest window of the person's, in pixels per fixation;
    lower is better, from 0.

    Two windows are as far apart as the sum of their fixations' distances; that of the nearest is divided by ``window``
    and averaged over the simulated windows (``mean``), or the largest is taken (``hausdorff``). NaN if a scanpath is
    shorter than the window (code that circulates has 0 there).

    Args:
        window: fixations, 1 or more.

    Raises:
        SpecError: pictures of two sizes, or a wrong option.

    Example:
        >>> path = Scanpath([10.0, 50, 90], [20.0, 60, 10], (100, 100))
        >>> time_delay(path, Scanpath(path.x + 3, path.y + 4, (100, 100)), window=2)
        5.0
    """
    return float(one_pair(lambda *pairs: time_delay_pairs(*pairs, window=window, over=over), human, simulated)[0])


def time_delay_pairs(
    paths: Sequence[Scanpath], one: Index, other: Index, *, window: int = 3, over: Over = "mean"
) -> Array:
    """(p, 1) :func:`time_delay` of pairs, given as numbers (p,) of scanpaths; the first is the person's."""
    _check_window(window)
    if over not in ("mean", "hausdorff"):
        raise SpecError(f"over must be 'mean' or 'hausdorff', got {over!r}")
    check_paths(paths)
    points = [p.xy for p in paths]

    def value(i: int, j: int) -> float:
        if min(len(points[i]), len(points[j])) < window:
            return float("nan")
        nearest = _windows(distances(points[i], points[j]), window) / window
        return float(nearest.mean() if over == "mean" else nearest.max())

    return each_pair(one, other, value)


def scaled_time_delay(
    human: Scanpath, simulated: Scanpath, *, form: Literal["similarity", "distance"] = "similarity"
) -> float:
    """:func:`time_delay` for all windows from 1 to the shorter length, as shares of the picture's longer side.

    Args:
        form: ``similarity``: the mean of exp(-distance): 0 to 1, higher is better, 1 for equal scanpaths. ``distance``:
            the mean distance: lower is better, from 0. Code that circulates calls the first a distance, too.

    Returns:
        NaN if a scanpath has no fixation.

    Example:
        >>> path = Scanpath([10.0, 50, 90], [20.0, 60, 10], (100, 100))
        >>> scaled_time_delay(path, path), round(scaled_time_delay(path, path.take([0, 2])), 3)
        (1.0, 0.877)
    """
    return float(one_pair(lambda *pairs: scaled_time_delay_pairs(*pairs, form=form), human, simulated)[0])


def scaled_time_delay_pairs(
    paths: Sequence[Scanpath],
    one: Index,
    other: Index,
    *,
    form: Literal["similarity", "distance"] = "similarity",
) -> Array:
    """(p, 1) :func:`scaled_time_delay` of pairs, given as numbers (p,) of scanpaths; the first is the person's."""
    if form not in ("similarity", "distance"):
        raise SpecError(f"form must be 'similarity' or 'distance', got {form!r}")
    check_paths(paths)
    points = [p.xy / max(p.image_wh) for p in paths]

    def value(i: int, j: int) -> float:
        shorter = min(len(points[i]), len(points[j]))
        if not shorter:
            return float("nan")
        table = distances(points[i], points[j])
        each = np.array([(_windows(table, k) / k).mean() for k in range(1, shorter + 1)])
        return float(np.exp(-each).mean() if form == "similarity" else each.mean())

    return each_pair(one, other, value)


def string_time_delay(human: Scanpath, simulated: Scanpath, *, grid: Grid | None = None, window: int = 3) -> float:
    """:func:`time_delay` on strings of grid cells, windows compared by edit distance; lower is better, 0 to 1.

    D'Amelio's and Zanca's FixaTons; the measure under scanpath plausibility (:func:`plausibility`). NaN if a
    scanpath is shorter than the window.

    Args:
        grid: 4x4 cells if None. window: fixations.

    Example:
        >>> path = Scanpath([10.0, 50, 90], [20.0, 60, 10], (100, 100))
        >>> string_time_delay(path, path)
        0.0
    """
    return float(one_pair(lambda *p: string_time_delay_pairs(*p, grid=grid, window=window), human, simulated)[0])


def string_time_delay_pairs(
    paths: Sequence[Scanpath], one: Index, other: Index, *, grid: Grid | None = None, window: int = 3
) -> Array:
    """(p, 1) :func:`string_time_delay` of pairs, given as numbers (p,) of scanpaths; the first is the person's."""
    _check_window(window)
    check_paths(paths)
    strings = [(grid or Grid(4, 4)).symbols(p) for p in paths]
    return each_pair(one, other, lambda i, j: _string_windows(strings[i], strings[j], window))


def plausibility(
    humans: Sequence[Scanpath], simulated: Scanpath, *, grid: Grid | None = None, windows: Sequence[int] | None = None
) -> float:
    """Scanpath plausibility of NeVA: the similarity 1 - :func:`string_time_delay`, averaged over windows, to that
    person's scanpath which is most alike; higher is better, 0 to 1.

    Schwinn et al., 2022 (Behind the machine's gaze). The papers leave open which windows are averaged over; the
    lengths from 1 to the shorter scanpath's are taken here unless others are given.

    Args:
        humans: of one picture. windows: lengths; those longer than a scanpath are left out for it.

    Returns:
        NaN if there is no pair of scanpaths with a fixation (or with a window's length).

    Example:
        >>> path = Scanpath([10.0, 50, 90], [20.0, 60, 10], (100, 100))
        >>> plausibility([path.take([0, 2]), path], path)
        1.0
    """
    for length in windows or ():
        _check_window(length)
    check_paths([*humans, simulated])
    cells = grid or Grid(4, 4)
    mine = cells.symbols(simulated)
    scores = [_alike(cells.symbols(h), mine, windows) for h in humans]
    known = [s for s in scores if not np.isnan(s)]
    return max(known) if known else float("nan")


def _alike(human: Index, simulated: Index, windows: Sequence[int] | None) -> float:
    shorter = min(len(human), len(simulated))
    lengths = [k for k in (windows or range(1, shorter + 1)) if k <= shorter]
    if not lengths:
        return float("nan")
    return float(np.mean([1 - _string_windows(human, simulated, k) for k in lengths]))


def _windows(table: Array, window: int) -> Array:
    """(m - k + 1,) sum of distances to the nearest of the first's windows, for each of the second's windows."""
    n, m = table.shape
    total = np.zeros((n - window + 1, m - window + 1))
    for step in range(window):
        total += table[step : n - window + 1 + step, step : m - window + 1 + step]
    return np.asarray(total.min(axis=0))


def _string_windows(human: Index, simulated: Index, window: int) -> float:
    if min(len(human), len(simulated)) < window:
        return float("nan")
    theirs, mine = (np.unique(sliding_window_view(s, window), axis=0, return_counts=True) for s in (human, simulated))
    a, b = theirs[0], mine[0]
    one, other = (v.ravel() for v in np.indices((len(a), len(b))))
    distance = edits(Strung.of([*a, *b], np.int64), one, other + len(a)).reshape(len(a), len(b))
    return float((distance.min(axis=0) * mine[1]).sum() / mine[1].sum() / window)


def _check_window(window: int) -> None:
    if isinstance(window, bool) or not isinstance(window, (int, np.integer)) or window < 1:
        raise SpecError(f"window must be a whole number of fixations, 1 or more, got {window!r}")
