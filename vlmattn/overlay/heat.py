"""Paints a map over a picture at the picture's own size."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.optional import cv2
from vlmattn.core.provenance import Provenance
from vlmattn.overlay.colours import colour_table

Scale = tuple[float, float]
_ROWS = 64


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
        try:
            low, high = (float(end) for end in scale)
        except (TypeError, ValueError):
            low, high = float("nan"), float("nan")
        if not (np.isfinite([low, high]).all() and high > low):
            raise SpecError(f"scale must be (low, high) with low < high, got {scale}")
        return low, high
    ranges = [_seen_range(m) for m in maps if m.seen.any()]
    if not ranges:
        return 0.0, 0.0
    return min(0.0, *(low for low, _ in ranges)), max(high for _, high in ranges)


def is_flat(one: Drawable) -> bool:
    """Whether all seen values are equal (to float precision), so that nothing stands out."""
    if not one.seen.any():
        return True
    low, high = _seen_range(one)
    return high - low <= 1e-6 * max(abs(low), abs(high))


def _seen_range(one: Drawable) -> Scale:
    mask = None if one.seen.all() else one.seen.view(np.uint8)
    low, high, _, _ = cv2().minMaxLoc(one.values, mask=mask)
    return float(low), float(high)


def peak_xy(one: Drawable) -> tuple[float, float]:
    """The middle of the highest seen patch or pixel, in pixels; the place that ``PixelMap.peak_xy`` gives.

    Only for maps that are not flat.
    """
    low, high = _seen_range(one)
    _, _, _, (x, y) = cv2().minMaxLoc(one.values, mask=one.seen.view(np.uint8))
    floor = high - 1e-5 * (high - low)
    right = (one.values[y, x:] >= floor) & one.seen[y, x:]
    down = (one.values[y:, x] >= floor) & one.seen[y:, x]
    return x + _leading(right) / 2, y + _leading(down) / 2


def _leading(run: NDArray[np.bool_]) -> int:
    return len(run) if run.all() else int(run.argmin())


def check_fits(pixels: NDArray[np.uint8], one: Drawable) -> None:
    """Refuse a map of another size or with NaN.

    Raises:
        MapError: says both sizes.
    """
    if one.values.shape != pixels.shape[:2] or one.seen.shape != one.values.shape:
        raise MapError(
            f"the map has shape (H, W) = {one.values.shape} and its seen area {one.seen.shape}, but the picture has "
            f"{pixels.shape[:2]}: they do not belong together"
        )
    if not np.isfinite(one.values).all():
        raise MapError(f"the map {one.label!r} holds NaN or infinite values")


def painted(
    pixels: NDArray[np.uint8],
    one: Drawable,
    scale: Scale,
    *,
    cmap: str,
    alpha: float | str,
    alpha_max: float,
    flat: bool,
) -> NDArray[np.uint8]:
    """(H, W, 3) picture with the map over it; pixels that the model did not see are hatched in grey.

    Args:
        scale: values of the first and the last colour. alpha: ``value`` lets the picture through where the map is low;
            a number covers everything equally. alpha_max: strongest cover, 0 to 1. flat: draw no heat.

    Raises:
        SpecError: alpha outside 0 to 1.
    """
    lib, (low, high) = cv2(), scale
    table, cover = colour_table(cmap), cover_of(alpha, alpha_max)
    keep = 255 - cover
    added = np.round(table * (cover[:, None] / 255.0)).astype(np.uint8)[:, None, :]
    hot = high > low and not flat
    out = np.empty_like(pixels) if hot else pixels.copy()
    for first in range(0, pixels.shape[0] if hot else 0, _ROWS):
        rows = slice(first, first + _ROWS)
        level = _levels_of(one.values[rows], low, high)
        let_through = lib.cvtColor(lib.LUT(level, keep), lib.COLOR_GRAY2RGB)
        lib.multiply(pixels[rows], let_through, dst=out[rows], scale=1 / 255)
        lib.add(out[rows], lib.applyColorMap(level, added), dst=out[rows])
    if not one.seen.all():
        _hatch(out, pixels, ~one.seen)
    return out


def _levels_of(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    # convertScaleAbs takes the absolute value, so what lies below the scale has to be lifted to its foot first.
    lifted = np.maximum(values, low) - low if low or values.min() < low else values
    level: NDArray[np.uint8] = cv2().convertScaleAbs(lifted, alpha=255.0 / (high - low)).reshape(values.shape)
    return level


def cover_of(alpha: float | str, alpha_max: float) -> NDArray[np.uint8]:
    """(256,) how much of the picture each step of the scale covers, 0 to 255; see :func:`painted`.

    Raises:
        SpecError: alpha outside 0 to 1.
    """
    if not isinstance(alpha_max, (int, float, np.number)) or not 0 <= float(alpha_max) <= 1:
        raise SpecError(f"alpha_max must be a number from 0 to 1, got {alpha_max!r}")
    if isinstance(alpha, str) and alpha == "value":
        return np.round(255 * alpha_max * np.linspace(0, 1, 256) ** 0.6).astype(np.uint8)
    if not isinstance(alpha, (int, float, np.number)) or not 0 <= float(alpha) <= 1:
        raise SpecError(f"alpha must be 'value' or a number from 0 to 1, got {alpha!r}")
    return np.full(256, round(255 * float(alpha)), dtype=np.uint8)


def _period(pixels: NDArray[np.uint8]) -> int:
    return int(np.clip(round(np.sqrt(pixels.shape[0] * pixels.shape[1]) / 60), 4, 40))


def _hatch(out: NDArray[np.uint8], pixels: NDArray[np.uint8], unseen: NDArray[np.bool_]) -> None:
    lib, period, width = cv2(), _period(pixels), pixels.shape[1]
    stripes = np.where(np.arange(width + 2 * period) % (2 * period) < period, 90, 118).astype(np.uint8)
    diagonal = np.lib.stride_tricks.sliding_window_view(stripes, width)
    fade = np.full((1, 3), 0.35 / 3)
    for first in range(0, len(out), _ROWS):
        rows = slice(first, first + _ROWS)
        where = unseen[rows]
        if where.any():
            grey = lib.transform(pixels[rows], fade).reshape(where.shape)
            grey = lib.add(grey, diagonal[np.arange(first, first + len(where)) % (2 * period)])
            lib.copyTo(lib.cvtColor(grey, lib.COLOR_GRAY2RGB), where.view(np.uint8), out[rows])
