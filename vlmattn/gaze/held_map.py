"""A map with what several measures need of it, worked out once; and the pixels that fixations lie on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmattn.core.errors import MapError
from vlmattn.gaze.fixations import Fixations, Scanpath
from vlmattn.gaze.units import inside
from vlmattn.grid import PixelMap

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Gaze = Scanpath | Fixations | ArrayLike
"""Fixations on one picture: a scanpath, several of the same picture, (n, 2) points x, y in pixels, or (n,) integers:
pixels counted row by row."""
_BUCKETS = 65535


@dataclass(frozen=True, eq=False)
class HeldMap:
    """A map of one value per pixel, and its sums, ranks and logarithms as they are asked for.

    Every measure takes one in place of an array; it saves work where several measures are taken of one map.

    Attributes:
        values: (H, W) float64, finite.

    Raises:
        MapError: another shape, no pixel, NaN or infinite values.
    """

    values: Array

    def __post_init__(self) -> None:
        values = np.ascontiguousarray(self.values, dtype=np.float64)
        if values.ndim != 2 or not values.size:
            raise MapError(f"a map must have shape (H, W), got {values.shape}")
        if not np.isfinite(values.sum()) and not np.isfinite(values).all():
            raise MapError("the map holds values that are no finite numbers: replace NaN and infinity first")
        object.__setattr__(self, "values", values)

    @property
    def image_wh(self) -> tuple[int, int]:
        """Width and height."""
        return self.values.shape[1], self.values.shape[0]

    @property
    def flat(self) -> Array:
        """(H * W,) values row by row."""
        return self.values.reshape(-1)

    @cached_property
    def low(self) -> float:
        """The smallest value."""
        return float(self.values.min())

    @cached_property
    def high(self) -> float:
        """The largest value."""
        return float(self.values.max())

    @property
    def is_constant(self) -> bool:
        """Whether all values are one."""
        return self.high == self.low

    @cached_property
    def centred(self) -> Array:
        """(H * W,) values less their mean."""
        return self.flat - self.flat.mean()

    @cached_property
    def mean(self) -> float:
        """Of all pixels."""
        return float(self.flat.mean())

    @cached_property
    def squares(self) -> float:
        """Sum of squared distances from the mean."""
        return 0.0 if self.is_constant else float(self.centred @ self.centred)

    @cached_property
    def density(self) -> Array:
        """(H * W,) values as shares of 1: moved up to 0 if any is negative; a map of zeros becomes uniform."""
        return shares(self.flat - self.low if self.low < 0 else self.flat)

    @cached_property
    def spread(self) -> Array:
        """(H * W,) values from 0 for the lowest to 1 for the highest; NaN for a constant map."""
        if self.is_constant:
            return np.full(self.flat.shape, np.nan)
        return (self.flat - self.low) / (self.high - self.low)

    def lifted(self, lift: float) -> Array:
        """(H * W,) shares of 1 after ``lift`` has been added to every pixel of :attr:`density`'s values."""
        return shares((self.flat - self.low if self.low < 0 else self.flat) + lift)

    def log_lifted(self, lift: float) -> Array:
        """Natural logarithms of :meth:`lifted`, kept."""
        held: dict[float, Array] = self.__dict__.setdefault("_logs", {})
        if lift not in held:
            held[lift] = np.log(self.lifted(lift))
        return held[lift]

    def ranks(self, levels: Array) -> tuple[Index, Index]:
        """For each of sorted distinct ``levels``, which occur in the map: how many pixels lie below it, and on it.

        Exact without sorting the map: pixels are counted in 65,536 buckets by value, which keep the order, and only
        those that share a bucket with a level are sorted.
        """
        if self.is_constant:
            return np.zeros(len(levels), np.int64), np.full(len(levels), self.flat.size)
        with np.errstate(over="ignore", divide="ignore"):
            scale = _BUCKETS / (self.high - self.low)
        if not 0 < scale < np.inf:
            return _among(np.sort(self.flat), levels)
        bucket = ((self.flat - self.low) * scale).astype(np.uint16)
        theirs = ((levels - self.low) * scale).astype(np.uint16)
        before = np.concatenate([[0], np.cumsum(np.bincount(bucket, minlength=_BUCKETS + 1))])
        shared = np.zeros(_BUCKETS + 1, np.bool_)
        shared[theirs] = True
        near = np.sort(self.flat[shared.take(bucket)])
        sizes = np.where(shared, np.diff(before), 0)
        earlier = np.concatenate([[0], np.cumsum(sizes)])[theirs]
        below, equal = _among(near, levels)
        return before[theirs] + below - earlier, equal


def held_map(map: HeldMap | PixelMap | ArrayLike) -> HeldMap:
    """The map with what measures need of it, from an array (H, W), a :class:`~vlmattn.grid.PixelMap`, or itself.

    Pixels of a :class:`~vlmattn.grid.PixelMap` that the model did not see get the lowest value that it has where the
    model saw something.

    Raises:
        MapError: see :class:`HeldMap`; or no pixel was seen.
    """
    if isinstance(map, HeldMap):
        return map
    if isinstance(map, PixelMap):
        if not map.seen.any():
            raise MapError("no pixel of the picture was seen by the model: there is no map")
        lowest = np.min(map.values, where=map.seen, initial=np.inf)
        return HeldMap(np.where(map.seen, map.values, lowest).astype(np.float64))
    try:
        return HeldMap(np.asarray(map, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise MapError(f"a map must be numbers of shape (H, W): {error}") from error


def points_of(gaze: Gaze, image_wh: tuple[int, int]) -> Array:
    """(n, 2) fixations on a picture of that size, those off it left out.

    Raises:
        MapError: fixations of a picture of another size, of several pictures, NaN, or another shape.
    """
    if isinstance(gaze, (Scanpath, Fixations)):
        paths = [gaze] if isinstance(gaze, Scanpath) else list(gaze)
        for path in paths:
            if path.image_wh != image_wh:
                raise MapError(
                    f"the map has {image_wh[0]}x{image_wh[1]} pixels, the picture that was looked at "
                    f"{path.image_wh[0]}x{path.image_wh[1]}: resize the map (resized_map), not the fixations"
                )
        if len({path.image for path in paths}) > 1:
            raise MapError("the fixations are of several pictures: select those of one picture")
        points = np.concatenate([path.xy for path in paths]) if paths else np.zeros((0, 2))
    else:
        points = np.asarray(gaze, dtype=np.float64)
        points = points.reshape(0, 2) if points.size == 0 else points
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise MapError(f"fixations must be finite points x, y of shape (n, 2), got {points.shape}")
    return points[inside(points[:, 0], points[:, 1], image_wh)]


def pixels_of(gaze: Gaze, image_wh: tuple[int, int]) -> Index:
    """(n,) the pixel of each fixation on the picture, counted row by row; several fixations may share one."""
    if isinstance(gaze, np.ndarray) and gaze.ndim == 1 and gaze.dtype.kind in "iu":
        if len(gaze) and not 0 <= gaze.min() <= gaze.max() < image_wh[0] * image_wh[1]:
            raise MapError(f"pixels counted row by row must be from 0 to {image_wh[0] * image_wh[1] - 1}")
        return gaze.astype(np.int64, copy=False)
    points = np.floor(points_of(gaze, image_wh)).astype(np.int64)
    return np.asarray(points[:, 1] * image_wh[0] + points[:, 0])


def resized_map(
    map: HeldMap | PixelMap | ArrayLike, image_wh: tuple[int, int], *, kernel: str = "linear"
) -> HeldMap:  # fmt: skip
    """The map at another size: corners stay at corners, a pixel's value belongs to its centre.

    Metrics depend on the kernel, and benchmarks differ in theirs, so it is to be said.

    Args:
        kernel: ``nearest``, ``linear``, or ``cubic`` (splines, which may overshoot below the lowest value).

    Raises:
        MapError: another kernel.
    """
    from scipy import ndimage

    orders = {"nearest": 0, "linear": 1, "cubic": 3}
    if kernel not in orders:
        raise MapError(f"kernel must be one of {sorted(orders)}, got {kernel!r}")
    held = held_map(map)
    if held.image_wh == tuple(image_wh):
        return held
    rows, columns = (
        (np.arange(new) + 0.5) * old / new - 0.5 for new, old in zip(image_wh[::-1], held.values.shape, strict=True)
    )
    grid = np.meshgrid(rows, columns, indexing="ij")
    return HeldMap(ndimage.map_coordinates(held.values, grid, order=orders[kernel], mode="nearest"))


def distinct(values: Array) -> tuple[Array, Index]:
    """Sorted distinct values and which of them each value is."""
    levels, inverse = np.unique(values, return_inverse=True)
    return levels, np.asarray(inverse, dtype=np.int64)


def _among(ordered: Array, levels: Array) -> tuple[Index, Index]:
    """How many of ordered values lie below each level, and on it."""
    below = np.searchsorted(ordered, levels, side="left")
    return below, np.searchsorted(ordered, levels, side="right") - below


def counts_below(values: Array, levels: Array, weights: Array | None = None) -> tuple[Any, Any]:
    """For each of sorted distinct ``levels``: how many of any values lie below it, and on it; or their weights."""
    places = np.searchsorted(levels, values, side="left")
    on = np.zeros(len(values), np.bool_)
    on[places < len(levels)] = levels[places[places < len(levels)]] == values[places < len(levels)]
    n = len(levels) + 1
    equal = np.bincount(places[on], weights=None if weights is None else weights[on], minlength=n)[:-1]
    under = np.bincount(places[~on], weights=None if weights is None else weights[~on], minlength=n)[:-1]
    # A value between two levels lies below the upper one; a value on a level lies below the next.
    return np.cumsum(under) + np.cumsum(equal) - equal, equal


def shares(values: Array) -> Array:
    """Values of 0 or more as shares of 1; uniform if all are 0."""
    total = values.sum()
    return np.asarray(values / total if total > 0 else np.full(values.shape, 1 / values.size))


def counted(pixels: Index, image_wh: tuple[int, int], weights: Array | None = None) -> Array:
    """(H, W) how many fixations lie on each pixel, or their weights."""
    counts = np.bincount(pixels, weights=weights, minlength=image_wh[0] * image_wh[1])
    return counts.astype(np.float64).reshape(image_wh[1], image_wh[0])
