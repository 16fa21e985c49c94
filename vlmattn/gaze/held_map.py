"""A map with what several measures need of it, worked out once; and the pixels that fixations lie on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmattn.core.errors import MapError
from vlmattn.gaze.compiled import compiled
from vlmattn.gaze.fixations import Fixations, Scanpath
from vlmattn.gaze.ranks import BLOCK, KERNELS, blocks, counts_below
from vlmattn.gaze.units import inside
from vlmattn.grid import PixelMap

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Gaze = Scanpath | Fixations | ArrayLike
"""Fixations on one picture: a scanpath, several of the same picture, (n, 2) points x, y in pixels, or (n,) integers:
pixels counted row by row."""


@dataclass(frozen=True, eq=False)
class HeldMap:
    """A map of one value per pixel, and its sums, ranks and logarithms as they are asked for.

    Every measure takes one in place of an array; it saves work where several measures are taken of one map.

    Attributes:
        values: (H, W) float64, finite. flat: (H * W,) the same, row by row. total, low, high: their sum, lowest and
            highest.

    Raises:
        MapError: another shape, no pixel, NaN or infinite values.
    """

    values: Array
    flat: Array = field(init=False, repr=False)
    total: float = field(init=False, repr=False)
    low: float = field(init=False, repr=False)
    high: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        values = np.ascontiguousarray(self.values, dtype=np.float64)
        if values.ndim != 2 or not values.size:
            raise MapError(f"a map must have shape (H, W), got {values.shape}")
        flat = values.reshape(-1)
        parts = [(one.sum(), one.min(), one.max()) for one in (flat[part] for part, _ in blocks(flat.size))]
        total, low, high = (float(np.sum([p[0] for p in parts])), min(p[1] for p in parts), max(p[2] for p in parts))
        # The smallest of numbers of which one is NaN is NaN in numpy, but not in Python.
        if not np.isfinite([p[1:] for p in parts]).all():
            raise MapError("the map holds values that are no finite numbers: replace NaN and infinity first")
        held = {"values": values, "flat": flat, "total": total, "low": float(low), "high": float(high)}
        for name, value in held.items():
            object.__setattr__(self, name, value)

    @property
    def image_wh(self) -> tuple[int, int]:
        """Width and height."""
        return self.values.shape[1], self.values.shape[0]

    @property
    def is_constant(self) -> bool:
        """Whether all values are one."""
        return self.high == self.low

    @property
    def mean(self) -> float:
        """Of all pixels."""
        return self.total / self.flat.size

    @cached_property
    def squares(self) -> float:
        """Sum of squared distances from the mean."""
        if self.is_constant:
            return 0.0
        held, mean = 0.0, self.mean
        if loops := compiled(KERNELS):
            return float(loops.product(self.flat, mean, self.flat, mean, BLOCK))
        for part, room in blocks(self.flat.size):
            np.subtract(self.flat[part], mean, out=room)
            held += float(room @ room)
        return held

    def scale(self, *, floor: float | None = None, lift: float = 0.0) -> tuple[float, float] | None:
        """What is taken off every value, and what divides it after ``lift`` was added, to make shares of 1.

        Args:
            floor: what is taken off; if None, the lowest value where that is negative, else 0.

        Returns:
            None if they are uniform: a constant map, or one of which nothing is left.
        """
        base = min(self.low, 0.0) if floor is None else floor
        mass = self.total - (base - lift) * self.flat.size
        return None if self.is_constant or mass <= 0 else (base, mass)

    def shares(self, *, floor: float | None = None, lift: float = 0.0) -> Callable[[slice, Array], Array]:
        """A function that writes a part of the map, read as shares of 1, to an array, which it gives back.

        ``floor`` and ``lift`` as in :meth:`scale`.
        """
        flat, scale = self.flat, self.scale(floor=floor, lift=lift)

        def write(part: slice, out: Array) -> Array:
            if scale is None:
                out[:] = 1 / flat.size
            elif not scale[0] and not lift:
                np.divide(flat[part], scale[1], out=out)
            else:
                np.subtract(flat[part], scale[0], out=out)
                out += lift
                out /= scale[1]
            return out

        return write

    @property
    def density(self) -> Array:
        """(H, W) the map as shares of 1."""
        return self.shares()(slice(None), np.empty(self.flat.shape)).reshape(self.values.shape)

    @cached_property
    def spread_total(self) -> float:
        """Sum of the values from 0 for the lowest to 1 for the highest; NaN for a constant map."""
        if self.is_constant:
            return float("nan")
        return float(((self.flat - self.low) / (self.high - self.low)).sum())

    def spread(self, pixels: Index) -> Array:
        """(n,) values of pixels, from 0 for the lowest of the map to 1 for the highest; NaN for a constant map."""
        if self.is_constant:
            return np.full(len(pixels), np.nan)
        return (self.flat[pixels] - self.low) / (self.high - self.low)

    def ranks(self, levels: Array) -> tuple[Index, Index]:
        """For each of sorted distinct ``levels``: how many pixels lie below it, and on it. The last answer is kept."""
        asked = levels.tobytes()
        kept: tuple[bytes, tuple[Index, Index]] | None = self.__dict__.get("_ranks")
        if kept is None or kept[0] != asked:
            kept = asked, counts_below(self.flat, levels)
            self.__dict__["_ranks"] = kept
        return kept[1]


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


def shares(values: Array) -> Array:
    """Values of 0 or more as shares of 1; uniform if all are 0."""
    total = values.sum()
    return np.asarray(values / total if total > 0 else np.full(values.shape, 1 / values.size))


def counted(pixels: Index, image_wh: tuple[int, int], weights: Array | None = None) -> Array:
    """(H, W) how many fixations lie on each pixel, or their weights."""
    counts = np.bincount(pixels, weights=weights, minlength=image_wh[0] * image_wh[1])
    return counts.astype(np.float64).reshape(image_wh[1], image_wh[0])
