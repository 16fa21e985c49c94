"""Scanpaths side by side: what may be compared, and columns of many paths padded into one array."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.gaze.compiled import compiled
from vlmattn.gaze.fixations import Scanpath

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Run = Callable[[Sequence[Scanpath], Index, Index], Array]
"""A measure of pairs: all scanpaths, and for each of p pairs the number of its first and of its second; (p, k)."""
CELLS = 1 << 14
"""Cells of one diagonal that are worked on at once; they stay in a core's cache."""


def check_paths(paths: Sequence[Any], *, durations: str | None = None) -> None:
    """Refuse what cannot be compared.

    Args:
        durations: the measure that needs them, for the message.

    Raises:
        SpecError: something that is no scanpath, pictures of two sizes, or missing durations.
    """
    for number, path in enumerate(paths):
        if not isinstance(path, Scanpath):
            raise SpecError(
                f"a scanpath must be a vlmattn.gaze.Scanpath, number {number} is {type(path).__name__}; "
                "Scanpath.from_points(points_xy, image_wh) makes one"
            )
        if path.image_wh != paths[0].image_wh:
            raise SpecError(
                f"scanpaths must be on pictures of one size, got {paths[0].image_wh} and {path.image_wh} (number "
                f"{number}); Scanpath.scaled_to(image_wh) brings them to one"
            )
        if durations is not None and path.duration is None:
            raise SpecError(f"{durations} needs durations, and scanpath {number} has none")


def one_pair(run: Run, one: Scanpath, other: Scanpath) -> Array:
    """(k,) what a measure of pairs gives for one pair."""
    zero = np.zeros(1, dtype=np.int64)
    return np.asarray(run([one, other], zero, zero + 1)[0])


def kernels() -> Any:
    """The compiled loops over pairs, or None where numba is not installed."""
    return compiled("vlmattn.gaze.scanpaths.kernels")


@dataclass(frozen=True)
class Strung:
    """Sequences one after the other.

    Attributes:
        flat: all their values. starts: (u,) where each begins. lengths: (u,) how many values each has.
    """

    flat: NDArray[Any]
    starts: Index
    lengths: Index

    @classmethod
    def of(cls, sequences: Sequence[NDArray[Any]], dtype: type = np.float64) -> Strung:
        """From one-dimensional arrays."""
        lengths = np.array([len(s) for s in sequences], dtype=np.int64)
        flat = np.concatenate(sequences) if len(sequences) else np.zeros(0)
        return cls(flat.astype(dtype, copy=False), np.cumsum(lengths) - lengths, lengths)

    def repeated(self, times: Index) -> Strung:
        """With each value of all sequences as often as ``times`` says."""
        ends = np.concatenate([[0], np.cumsum(times)])
        starts = ends[self.starts]
        return Strung(np.repeat(self.flat, times), starts, ends[self.starts + self.lengths] - starts)

    def padded(self, flat: NDArray[Any] | None = None) -> Padded:
        """The sequences side by side; of other values in the same places, if given."""
        rows = np.arange(int(self.lengths.max(initial=0)))[:, None]
        inside = rows < self.lengths
        values = (self.flat if flat is None else flat)[np.where(inside, self.starts + rows, 0)]
        return Padded(np.where(inside, values, 0), self.lengths)


def filled(lengths: Index, one: Index, other: Index) -> Index:
    """Numbers of the pairs in which none is empty."""
    return np.flatnonzero((lengths[one] > 0) & (lengths[other] > 0))


@dataclass(frozen=True)
class Padded:
    """Columns of u sequences of different lengths.

    Attributes:
        values: (n, u), n the longest; zeros where a sequence has ended. lengths: (u,).
    """

    values: NDArray[Any]
    lengths: Index


def chunks(one: Index, other: Index) -> Iterator[Index]:
    """Numbers of pairs whose lengths are ``one`` and ``other``, in groups of like lengths, none without a length."""
    filled = np.flatnonzero((one > 0) & (other > 0))
    order = filled[np.lexsort((other[filled], one[filled]))]
    start = 0
    while start < len(order):
        size = max(1, CELLS // int(max(one[order[start]], 1)))
        yield order[start : start + size]
        start += size


def each_pair(one: Index, other: Index, value: Callable[[int, int], float]) -> Array:
    """(p, 1) a plain function of two numbers of scanpaths, pair by pair."""
    return np.array([[value(int(i), int(j))] for i, j in zip(one, other, strict=True)], dtype=np.float64).reshape(-1, 1)
