"""Paints a map over a picture at the picture's own size."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.optional import cv2
from vlmattn.core.provenance import Provenance
from vlmattn.overlay.colours import colour_table

Scale = tuple[float, float]
_ROWS = 256


class Drawable(Protocol):
    """A map in the pixels of a picture; :class:`vlmattn.grid.PixelMap` is one."""

    @property
    def values(self) -> NDArray[np.float32]:
        """(H, W) values."""
        ...

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(H, W) False where the model had no input."""
        ...

    @property
    def label(self) -> str:
        """What the map is of."""
        ...

    @property
    def provenance(self) -> Provenance:
        """Where it comes from."""
        ...


def scale_of(maps: list[Drawable], scale: Scale | None = None) -> Scale:
    """The values that the darkest and the lightest colour stand for.

    A given scale is taken as it is. Otherwise: from 0 (or the lowest value, if that is negative) to the highest seen
    value of all ``maps`` together, so that pictures side by side share one scale.

    Raises:
        SpecError: a scale that does not rise or is not finite.
    """
    if scale is not None:
        low, high = float(scale[0]), float(scale[1])
        if not (np.isfinite([low, high]).all() and high > low):
            raise SpecError(f"scale must be (low, high) with low < high, got {scale}")
        return low, high
    seen = [m.values[m.seen] if not m.seen.all() else m.values for m in maps]
    seen = [v for v in seen if v.size]
    if not seen:
        return 0.0, 0.0
    return min(0.0, *(float(v.min()) for v in seen)), max(float(v.max()) for v in seen)


def is_flat(one: Drawable) -> bool:
    """Whether all seen values are equal (to float precision), so that nothing stands out."""
    seen = one.values if one.seen.all() else one.values[one.seen]
    if not seen.size:
        return True
    low, high = float(seen.min()), float(seen.max())
    return high - low <= 1e-6 * max(abs(low), abs(high))


def check_fits(pixels: NDArray[np.uint8], one: Drawable) -> None:
    """Refuse a map of another size or with NaN.

    Raises:
        MapError: says both sizes.
    """
    if one.values.shape != pixels.shape[:2] or one.seen.shape != one.values.shape:
        h, w = one.values.shape
        raise MapError(
            f"the map has {w}x{h} pixels, the picture {pixels.shape[1]}x{pixels.shape[0]}: they do not belong together"
        )
    if not np.isfinite(one.values).all():
        raise MapError(f"the map {one.label!r} holds NaN or infinite values")


def painted(
    pixels: NDArray[np.uint8], one: Drawable, scale: Scale, *, cmap: str, alpha: float | str, alpha_max: float
) -> NDArray[np.uint8]:
    """(H, W, 3) picture with the map over it; pixels that the model did not see are hatched in grey.

    Args:
        scale: values of the first and the last colour. alpha: ``value`` lets the picture through where the map is low;
            a number covers everything equally. alpha_max: strongest cover, 0 to 1.

    Raises:
        SpecError: alpha outside 0 to 1.
    """
    lib = cv2()
    table, cover = colour_table(cmap), _cover(alpha, alpha_max)
    keep = np.repeat((255 - cover)[:, None], 3, axis=1)
    added = np.round(table * (cover[:, None] / 255.0)).astype(np.uint8)
    low, high = scale
    steps = 255.0 / (high - low) if high > low and not is_flat(one) else 0.0
    out = pixels.copy()
    for first in range(0, pixels.shape[0], _ROWS):
        rows = slice(first, min(first + _ROWS, pixels.shape[0]))
        if steps:
            level = lib.convertScaleAbs(np.maximum(one.values[rows] - low, 0), alpha=steps)
            level = np.repeat(level.reshape(*one.values[rows].shape, 1), 3, axis=2)
            let_through = lib.multiply(pixels[rows], lib.LUT(level, keep[:, None, :]), scale=1 / 255)
            out[rows] = lib.add(let_through, lib.LUT(level, added[:, None, :]))
        if not one.seen[rows].all():
            _hatch(out[rows], pixels[rows], ~one.seen[rows], first, _period(pixels))
    return out


def _cover(alpha: float | str, alpha_max: float) -> NDArray[np.uint8]:
    if not 0 <= alpha_max <= 1:
        raise SpecError(f"alpha_max must be 0 to 1, got {alpha_max}")
    if alpha == "value":
        return np.round(255 * alpha_max * np.linspace(0, 1, 256) ** 0.6).astype(np.uint8)
    if isinstance(alpha, str) or not 0 <= float(alpha) <= 1:
        raise SpecError(f"alpha must be 'value' or a number from 0 to 1, got {alpha!r}")
    return np.full(256, round(255 * float(alpha)), dtype=np.uint8)


def _period(pixels: NDArray[np.uint8]) -> int:
    return int(np.clip(round(np.sqrt(pixels.shape[0] * pixels.shape[1]) / 60), 4, 40))


def _hatch(out: NDArray[np.uint8], pixels: NDArray[np.uint8], where: NDArray[Any], first_row: int, period: int) -> None:
    grey = pixels.mean(axis=2, keepdims=True) * 0.35 + 90
    y, x = np.mgrid[first_row : first_row + out.shape[0], 0 : out.shape[1]]
    stripes = np.where((x + y) % (2 * period) < period, 0, 28)[..., None]
    out[where] = np.clip(grey + stripes, 0, 255).astype(np.uint8).repeat(3, axis=2)[where]
