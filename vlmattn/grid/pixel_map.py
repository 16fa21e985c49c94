"""A map in the pixels of the picture that the user gave."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.provenance import Provenance
from vlmattn.grid.regions import largest_region


@dataclass(frozen=True, eq=False)
class PixelMap:
    """One value per pixel of the original.

    Attributes:
        values: (H, W) float32.
        seen: (H, W) bool, False where no visible part of the model's input covers the pixel (cut off by a centre
            crop, dropped between stitched tiles); ``values`` is 0 there and means nothing.
        outside: mass of the map that fell on padding, outside the picture.
        label: the word or phrase the map belongs to. ``provenance``: where it comes from.

    Example:
        >>> import numpy as np
        >>> pixels = PixelMap(np.eye(3)[::-1] * [0, 1, 2], np.ones((3, 3), bool))
        >>> pixels.peak_xy, pixels.box_xyxy(threshold=1)
        ((2.5, 0.5), (1, 0, 3, 2))
    """

    values: NDArray[np.float32]
    seen: NDArray[np.bool_]
    outside: float = 0.0
    label: str = ""
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        values, seen = np.asarray(self.values, dtype=np.float32), np.asarray(self.seen, dtype=np.bool_)
        if values.ndim != 2 or 0 in values.shape:
            raise MapError(f"values must have shape (H, W), got {values.shape}")
        if seen.shape != values.shape:
            raise MapError(f"seen must have the shape of values, {values.shape}, got {seen.shape}")
        if not np.isfinite(values).all():
            raise MapError("values must be finite, got NaN or infinity")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "seen", seen)

    @property
    def image_wh(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.values.shape[1], self.values.shape[0]

    @property
    def total(self) -> float:
        """Sum over the picture's pixels."""
        return float(self.values.sum(dtype=np.float64))

    @property
    def is_flat(self) -> bool:
        """Whether all seen pixels have one value (to float precision): there is no peak then."""
        if not self.seen.any():
            return True
        low, high = self._range()
        return high - low <= 1e-6 * max(abs(low), abs(high))

    @property
    def peak_xy(self) -> tuple[float, float]:
        """The middle of the highest seen patch or pixel, in pixels (a pixel's centre is at +0.5).

        Raises MapError if the map is flat or no pixel is seen.
        """
        if not self.seen.any():
            raise MapError("no pixel of the picture was seen by the model: there is no peak")
        if self.is_flat:
            raise MapError("the map is flat: every seen pixel has the same value, so there is no peak")
        masked = np.where(self.seen, self.values, -np.inf)
        y, x = np.unravel_index(int(masked.argmax()), masked.shape)
        low, high = self._range()
        floor = high - 1e-5 * (high - low)
        return float(x) + _run(masked[y, x:] >= floor) / 2, float(y) + _run(masked[y:, x] >= floor) / 2

    def box_xyxy(self, *, quantile: float | None = None, threshold: float | None = None) -> tuple[int, int, int, int]:
        """The tight box of the largest connected region of seen pixels at or above a threshold, ends exclusive.

        Args:
            quantile: threshold as a quantile of the seen values, 0 to 1; 0.9 if neither is given; see :meth:`level`.
            threshold: threshold as a value.

        Raises:
            SpecError: both given, or a quantile outside 0 to 1.
            MapError: no seen pixel reaches the threshold, or the map is flat.
        """
        if quantile is not None and threshold is not None:
            raise SpecError("give quantile or threshold, not both")
        if self.is_flat:
            raise MapError("the map is flat: every pixel has the same value, so no region stands out")
        if threshold is None:
            threshold = self.level(0.9 if quantile is None else quantile)
        box = largest_region(self.seen & (self.values >= threshold))
        if box is None:
            raise MapError(f"no pixel reaches {threshold:.4g}: the highest value is {self._range()[1]:.4g}")
        return box

    def level(self, quantile: float) -> float:
        """The seen value that a share of all seen values does not exceed.

        Where that is the lowest of all, as in a map that is zero nearly everywhere, the next higher one: what stands
        out is above the rest. A quantile of 0 is the lowest value.

        Raises:
            SpecError: a quantile outside 0 to 1.
        """
        if not 0 <= quantile <= 1:
            raise SpecError(f"quantile must be 0 to 1, got {quantile}")
        seen = self.values[self.seen]
        found = np.quantile(seen, quantile, method="lower")
        above = seen[seen > found] if quantile > 0 and found == seen.min() else seen[:0]
        return float(above.min() if above.size else found)

    def _range(self) -> tuple[float, float]:
        low = float(np.min(self.values, where=self.seen, initial=np.inf))
        return low, float(np.max(self.values, where=self.seen, initial=-np.inf))

    def to_dict(self) -> dict[str, Any]:
        """A summary in plain values: size, total, outside, share of pixels seen, peak, provenance. No pixels.

        The peak of a flat map is None.
        """
        return {
            "label": self.label,
            "image_wh": list(self.image_wh),
            "total": self.total,
            "outside": self.outside,
            "seen_share": float(self.seen.mean()),
            "flat": self.is_flat,
            "peak_xy": None if self.is_flat else list(self.peak_xy),
            "provenance": self.provenance.to_dict(),
        }

    def to_json(self) -> str:
        """:meth:`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)

    def __repr__(self) -> str:
        w, h = self.image_wh
        return f"PixelMap({self.label!r}, {w}x{h}, total={self.total:.4g}, seen={self.seen.mean():.0%})"


def _run(high: NDArray[np.bool_]) -> int:
    """Length of the run of True at the start."""
    return int(len(high) if high.all() else high.argmin())
