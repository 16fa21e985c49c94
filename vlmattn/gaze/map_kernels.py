"""Compiled loops over all pixels of maps, where numba is there (:func:`vlmattn.gaze.compiled.compiled`).

What :mod:`vlmattn.gaze.ranks` and :mod:`vlmattn.gaze.map_metrics` do in several passes over arrays, in one. Counts are
the same; sums are taken block by block, so they differ from those of arrays in the last digits. This module imports
numba: only ``compiled`` imports it.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

_LOG_2 = math.log(2)
_ROOT = int(np.float64(0.5**0.5).view(np.int64))
"""The bits of the root of 1/2."""


@njit(cache=True, nogil=True)
def bucketed(values, low, scale, shared, near):  # type: ignore[no-untyped-def]
    """(b,) how many values fall into each of b buckets, and how many fell into ``shared`` ones: written to ``near``."""
    counts, found = np.zeros(len(shared), dtype=np.int64), 0
    for value in values:
        bucket = int((value - low) * scale)
        counts[bucket] += 1
        if shared[bucket]:
            near[found] = value
            found += 1
    return counts, found


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def regularised(p, q, small, block):  # type: ignore[no-untyped-def]
    """Sum of q log(small + q / (p + small)); ``p`` and ``q`` are (map, what is taken off, what divides) each.

    Logarithms are what takes the time, and compilers make no vector code of the library's. So x = m 2**k with m from
    the root of 1/2 to that of 2, and log m = 2 (f + f**3 / 3 + f**5 / 5 + ...) of f = (m - 1) / (m + 1), whose square
    is below 0.03: twelve terms are all that doubles hold. ``small`` must be a normal number.
    """
    (mine, base, mass), (gold, gold_base, gold_mass) = p, q
    unit, gold_unit, total = 1 / mass, 1 / gold_mass, 0.0
    room = np.empty(block)
    bits = room.view(np.int64)
    for start in range(0, len(mine), block):
        looked, seen = gold[start : start + block], mine[start : start + block]
        for i in range(len(seen)):
            room[i] = small + (looked[i] - gold_base) * gold_unit / ((seen[i] - base) * unit + small)
        some = 0.0
        for i in range(len(seen)):
            k = (bits[i] - _ROOT) >> 52
            bits[i] -= k << 52
            f = (room[i] - 1) / (room[i] + 1)
            g = f * f
            y = 1 / 21 + g * (1 / 23)
            y = 1 / 15 + g * (1 / 17 + g * (1 / 19 + g * y))
            y = 1 / 9 + g * (1 / 11 + g * (1 / 13 + g * y))
            y = 1 + g * (1 / 3 + g * (1 / 5 + g * (1 / 7 + g * y)))
            some += (looked[i] - gold_base) * gold_unit * (k * _LOG_2 + 2 * f * y)
        total += some
    return total


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def product(one, mean, other, other_mean, block):  # type: ignore[no-untyped-def]
    """Sum of the products of two maps' distances from their means."""
    total = 0.0
    for start in range(0, len(one), block):
        some = 0.0
        for i in range(start, min(start + block, len(one))):
            some += (one[i] - mean) * (other[i] - other_mean)
        total += some
    return total


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def overlap(p, q, block):  # type: ignore[no-untyped-def]
    """Sum of the smaller of two maps' shares; ``p`` and ``q`` as in :func:`regularised`."""
    (mine, base, mass), (gold, gold_base, gold_mass) = p, q
    unit, gold_unit, total = 1 / mass, 1 / gold_mass, 0.0
    for start in range(0, len(mine), block):
        some = 0.0
        for i in range(start, min(start + block, len(mine))):
            some += min((mine[i] - base) * unit, (gold[i] - gold_base) * gold_unit)
        total += some
    return total
