"""Degrees of visual angle and pixels."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, radians, tan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmattn.core.errors import SpecError


@dataclass(frozen=True)
class Screen:
    """How large a degree of visual angle is, in pixels of the picture as it was shown.

    Where the picture was shown larger or smaller than it is, these are the picture's pixels, not the screen's:
    :meth:`scaled` converts.

    Attributes:
        pixels_per_degree: at the point straight ahead.
        distance_px: from the eye to the screen, in the same pixels; with ``centre_xy`` it makes :meth:`angle` exact.
        centre_xy: the point straight ahead, in pixels of the picture.

    Raises:
        SpecError: a size or distance that is not above 0, or only one of ``distance_px`` and ``centre_xy``.

    Example:
        >>> screen = Screen.from_geometry(size_px=(1680, 1050), size_cm=(47.4, 29.7), distance_cm=60)
        >>> round(screen.pixels_per_degree, 2), round(float(screen.to_degrees(100)), 3)
        (37.07, 2.698)
    """

    pixels_per_degree: float
    distance_px: float | None = None
    centre_xy: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _positive("pixels_per_degree", self.pixels_per_degree)
        if (self.distance_px is None) != (self.centre_xy is None):
            raise SpecError("distance_px and centre_xy are given together or not at all")
        if self.distance_px is not None:
            _positive("distance_px", self.distance_px)

    @classmethod
    def from_geometry(cls, *, size_px: tuple[float, float], size_cm: tuple[float, float], distance_cm: float) -> Screen:
        """From the screen's width and height in pixels and in centimetres and the eye's distance from its middle.

        ``pixels_per_degree`` is ``2 d tan(0.5 degrees)`` in pixels; the point straight ahead is the screen's middle.

        Raises:
            SpecError: a value that is not above 0, or pixels that are over 10 % wider than high or the other way
                (sizes in the wrong order, or of the box instead of the picture).
        """
        for name, value in (("size_px", size_px), ("size_cm", size_cm), ("distance_cm", (distance_cm,))):
            for one in value:
                _positive(name, one)
        across, down = size_px[0] / size_cm[0], size_px[1] / size_cm[1]
        if not 1 / 1.1 <= across / down <= 1.1:
            raise SpecError(f"pixels per cm must agree across and down within 10 %, got {across:.3g} and {down:.3g}")
        distance = distance_cm * (across + down) / 2
        return cls(2 * distance * tan(radians(0.5)), distance, (size_px[0] / 2, size_px[1] / 2))

    def to_degrees(self, length_px: ArrayLike) -> Any:
        """Degrees of a length in pixels by the one ratio ``pixels_per_degree``, as papers do; an array for an array."""
        return np.asarray(length_px, dtype=np.float64)[()] / self.pixels_per_degree

    def to_pixels(self, degrees: ArrayLike) -> Any:
        """Pixels of a length in degrees: the inverse of :meth:`to_degrees`."""
        return np.asarray(degrees, dtype=np.float64)[()] * self.pixels_per_degree

    def angle(self, from_xy: ArrayLike, to_xy: ArrayLike) -> NDArray[np.float64]:
        """(...) degrees between the lines from the eye to points (..., 2): exact on a flat screen, at any eccentricity.

        Raises:
            SpecError: the distance of the eye is not known.

        Example:
            >>> screen = Screen(1.0, distance_px=100.0, centre_xy=(0.0, 0.0))
            >>> float(screen.angle((0, 0), (100, 0)).round(6))
            45.0
        """
        if self.distance_px is None or self.centre_xy is None:
            raise SpecError("the exact angle needs distance_px and centre_xy: use Screen.from_geometry, or to_degrees")
        a, b = (self._rays(points) for points in (from_xy, to_xy))
        across = np.linalg.norm(np.cross(a, b), axis=-1)
        return np.degrees(np.arctan2(across, (a * b).sum(axis=-1)))

    def scaled(self, factor: float, offset_xy: tuple[float, float] = (0.0, 0.0)) -> Screen:
        """The same screen in pixels of a picture that has ``factor`` pixels for each of these; ``offset_xy`` is where
        that picture's corner lies in these pixels."""
        _positive("factor", factor)
        if self.distance_px is None or self.centre_xy is None:
            return Screen(self.pixels_per_degree * factor)
        x, y = ((c - o) * factor for c, o in zip(self.centre_xy, offset_xy, strict=True))
        return Screen(self.pixels_per_degree * factor, self.distance_px * factor, (x, y))

    def _rays(self, points: ArrayLike) -> NDArray[np.float64]:
        flat = np.asarray(points, dtype=np.float64) - np.asarray(self.centre_xy)
        return np.concatenate([flat, np.full((*flat.shape[:-1], 1), self.distance_px)], axis=-1)


def _positive(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not isfinite(value) or value <= 0:
        raise SpecError(f"{name} must be a number above 0, got {value!r}")
