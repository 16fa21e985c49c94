"""How many values lie below others, without sorting them all; and work on large arrays block by block."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vlmattn.gaze.compiled import compiled

Array = NDArray[np.float64]
Index = NDArray[np.int64]
_BUCKETS = 65535
_FEW = 8192
_COUNTED = 1 << 17
KERNELS = "vlmattn.gaze.map_kernels"
"""Compiled loops over pixels."""
BLOCK = 32768
"""Values at a time: they stay in the processor's cache, and no array of the map's size is made."""


def blocks(n: int) -> Iterator[tuple[slice, Array]]:
    """Slices over n values, each with an array of its length to work in; the same memory every time."""
    room = np.empty(min(n, BLOCK))
    for start in range(0, n, BLOCK):
        yield slice(start, start + BLOCK), room[: min(BLOCK, n - start)]


def counts_below(values: Array, levels: Array) -> tuple[Index, Index]:
    """For each of sorted distinct ``levels``: how many values lie below it, and on it.

    Exact: values are counted in 65,536 buckets, which keep the order, and only those that share a bucket with a level
    are sorted.
    """
    if len(values) <= _FEW or not len(levels):
        return _among(np.sort(values), levels)
    low, high = min(values.min(), levels[0]), max(values.max(), levels[-1])
    with np.errstate(over="ignore", divide="ignore"):
        scale = _BUCKETS / (high - low)
    if not 0 < scale < np.inf:
        return _among(np.sort(values), levels)
    theirs = ((levels - low) * scale).astype(np.uint16)
    shared = np.zeros(_BUCKETS + 1, np.bool_)
    shared[theirs] = True
    counts, near = _bucketed(values, low, scale, shared)
    before = np.cumsum(counts) - counts
    earlier = np.cumsum(np.where(shared, counts, 0)) - np.where(shared, counts, 0)
    below, equal = _among(np.sort(near), levels)
    return before[theirs] + below - earlier[theirs], equal


def _bucketed(values: Array, low: float, scale: float, shared: NDArray[np.bool_]) -> tuple[Index, Array]:
    """How many values lie in each bucket, and the values that lie in shared ones."""
    if loops := compiled(KERNELS):
        room = np.empty(len(values))
        counts, found = loops.bucketed(values, low, scale, shared, room)
        return counts, room[:found]
    counts, near = np.zeros(_BUCKETS + 1, np.int64), []
    bucket = np.empty(min(len(values), _COUNTED), np.int64)
    for first in range(0, len(values), _COUNTED):
        some = values[first : first + _COUNTED]
        for part, room in blocks(len(some)):
            np.subtract(some[part], low, out=room)
            place = bucket[part][: len(room)]
            np.multiply(room, scale, out=place, casting="unsafe")
            near.append(some[part][shared.take(place)])
        counts += np.bincount(bucket[: len(some)], minlength=_BUCKETS + 1)
    return counts, np.concatenate(near)


def _among(ordered: Array, levels: Array) -> tuple[Index, Index]:
    below = np.searchsorted(ordered, levels, side="left")
    return below, np.searchsorted(ordered, levels, side="right") - below


def distinct(values: Array) -> tuple[Array, Index]:
    """Sorted distinct values and which of them each value is."""
    levels, inverse = np.unique(values, return_inverse=True)
    return levels, np.asarray(inverse, dtype=np.int64)
