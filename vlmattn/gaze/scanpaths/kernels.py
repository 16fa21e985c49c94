"""Compiled loops over pairs, where numba is there; :func:`kernels` says whether.

They give the same values as the array operations of :mod:`vlmattn.gaze.scanpaths.alignment`: the same sums in the same
order. Sequences come one after the other in one array, with where each starts and how long it is (u,). This module
imports numba: only :func:`~vlmattn.gaze.scanpaths.pairs.kernels` imports it.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def aligned(flat, starts, lengths, one, other, table, same, different, gap, anywhere):  # type: ignore[no-untyped-def]
    """(p,) scores of best alignments of symbols, by a table (s, s), or by two scores if it is empty."""
    scores = np.empty(len(one))
    by_table = len(table) > 0
    for pair in range(len(one)):
        a = flat[starts[one[pair]] : starts[one[pair]] + lengths[one[pair]]]
        b = flat[starts[other[pair]] : starts[other[pair]] + lengths[other[pair]]]
        extra = 1 if anywhere else 0
        row = gap * (np.arange(len(b) + 1) + extra)
        best = row.max()
        for i in range(len(a)):
            before, row[0] = row[0], gap * (i + 1 + extra)
            best = max(best, row[0])
            for j in range(len(b)):
                facing = table[a[i], b[j]] if by_table else (same if a[i] == b[j] else different)
                score = max(before + facing, max(row[j], row[j + 1]) + gap)
                before, row[j + 1] = row[j + 1], score
                best = max(best, score)
        scores[pair] = best if anywhere else row[-1]
    return scores


@njit(cache=True, nogil=True)
def warped(x, y, starts, lengths, one, other, largest):  # type: ignore[no-untyped-def]
    """(p,) cost of the cheapest warping of points: the sum of distances, or the largest."""
    totals = np.empty(len(one))
    for pair in range(len(one)):
        a, b = starts[one[pair]], starts[other[pair]]
        n, m = lengths[one[pair]], lengths[other[pair]]
        row = np.full(m + 1, np.inf)
        row[0] = 0.0
        for i in range(n):
            before, row[0] = row[0], np.inf
            for j in range(m):
                across, down = x[a + i] - x[b + j], y[a + i] - y[b + j]
                cost = np.sqrt(across * across + down * down)
                cheapest = min(min(before, row[j + 1]), row[j])
                before = row[j + 1]
                row[j + 1] = max(cheapest, cost) if largest else cheapest + cost
        totals[pair] = row[m]
    return totals


@njit(cache=True, nogil=True)
def way_through(dx, dy, a, b, n, m):  # type: ignore[no-untyped-def]
    """Positions on the cheapest way through two chains of vectors, from the end, and whether it is the only one."""
    moves = np.zeros((n, m), dtype=np.int8)
    row = np.full(m + 1, np.inf)
    row[0] = 0.0
    for i in range(n):
        before, row[0] = row[0], np.inf
        for j in range(m):
            both, above, left = before, row[j + 1], row[j]
            best = min(min(both, above), left)
            ways = (1 if both == best else 0) + (1 if above == best else 0) + (1 if left == best else 0)
            moves[i, j] = (0 if both == best else (1 if above == best else 2)) + (4 if ways > 1 else 0)
            before = row[j + 1]
            across, down = dx[a + i] - dx[b + j], dy[a + i] - dy[b + j]
            cost = np.sqrt(across * across + down * down) if i or j else 0.0
            row[j + 1] = best + cost
    rows, columns = np.empty(n + m, dtype=np.int64), np.empty(n + m, dtype=np.int64)
    i, j, length, unique = n - 1, m - 1, 0, True
    while True:
        rows[length], columns[length] = i, j
        length += 1
        if i == 0 and j == 0:
            return rows[:length], columns[:length], unique
        move = moves[i, j]
        unique = unique and move < 4
        move = move % 4
        if move != 2:
            i -= 1
        if move != 1:
            j -= 1


@njit(cache=True, nogil=True)
def medians(saccades, starts, lengths, one, other):  # type: ignore[no-untyped-def]
    """(p, 5) medians of differences of aligned saccades, and (p,) whether there is one cheapest alignment.

    ``saccades`` are (7, s): dx, dy, amplitude, angle, x, y, duration.
    """
    values, only = np.empty((len(one), 5)), np.empty(len(one), dtype=np.bool_)
    dx, dy, amplitude, angle, x, y, duration = saccades
    for pair in range(len(one)):
        a, b = starts[one[pair]], starts[other[pair]]
        n, m = lengths[one[pair]], lengths[other[pair]]
        rows, columns, only[pair] = way_through(dx, dy, a, b, n, m)
        apart = np.empty((5, len(rows)))
        for step in range(len(rows)):
            i, j = a + rows[step], b + columns[step]
            across, down = dx[i] - dx[j], dy[i] - dy[j]
            apart[0, step] = np.sqrt(across * across + down * down)
            turned = abs(angle[i] - angle[j])
            apart[1, step] = 2 * np.pi - turned if turned > np.pi else turned
            apart[2, step] = abs(amplitude[i] - amplitude[j])
            across, down = x[i] - x[j], y[i] - y[j]
            apart[3, step] = np.sqrt(across * across + down * down)
            longer = max(duration[i], duration[j])
            apart[4, step] = abs(duration[i] - duration[j]) / longer if longer > 0 else np.nan
        middle = len(rows) // 2
        for part in range(5):
            ranked = np.sort(apart[part])
            # NaN is ranked last.
            known = not np.isnan(ranked[-1])
            values[pair, part] = (ranked[(len(rows) - 1) // 2] + ranked[middle]) / 2 if known else np.nan
    return values, only
