"""Paints a map over a picture at the picture's own size."""

from __future__ import annotations

from typing import NamedTuple, Protocol

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


class Extremes(NamedTuple):
    """Lowest and highest seen value, and the first pixel (x, y) that has the highest; of no seen pixel, zeros."""

    low: float
    high: float
    at_xy: tuple[int, int]

    @property
    def flat(self) -> bool:
        """Whether all seen values are equal (to float precision), so that nothing stands out."""
        return self.high - self.low <= 1e-6 * max(abs(self.low), abs(self.high))


def extremes_of(one: Drawable) -> Extremes:
    """What scale, flatness and peak of a map go by: one look at all its pixels."""
    if not one.seen.any():
        return Extremes(0.0, 0.0, (0, 0))
    mask = None if one.seen.all() else one.seen.view(np.uint8)
    low, high, _, (x, y) = cv2().minMaxLoc(one.values, mask=mask)
    return Extremes(float(low), float(high), (int(x), int(y)))


def scale_of(maps: list[Drawable], scale: Scale | None = None, *, known: Extremes | None = None) -> Scale:
    """The values that the darkest and the lightest colour stand for.

    A given scale is taken as it is. Otherwise: from 0 (or the lowest value, if that is negative) to the highest seen
    value of all ``maps`` together, so that pictures side by side share one scale.

    Args:
        known: of the one map.

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
    ranges = [known if known is not None else extremes_of(m) for m in maps if m.seen.any()]
    if not ranges:
        return 0.0, 0.0
    return min(0.0, *(one.low for one in ranges)), max(one.high for one in ranges)


def is_flat(one: Drawable) -> bool:
    """Whether all seen values are equal (to float precision), so that nothing stands out."""
    return extremes_of(one).flat


def peak_xy(one: Drawable, known: Extremes | None = None) -> tuple[float, float]:
    """The middle of the highest seen patch or pixel, in pixels; the place that ``PixelMap.peak_xy`` gives.

    Only for maps that are not flat.
    """
    low, high, (x, y) = known if known is not None else extremes_of(one)
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
        lines = diagonal[np.arange(first, min(first + _ROWS, len(out))) % (2 * period)]
        for columns in _runs(np.asarray(unseen[rows].any(axis=0))):
            part = np.ascontiguousarray(pixels[rows, columns])
            where = np.ascontiguousarray(unseen[rows, columns])
            grey = lib.add(lib.transform(part, fade).reshape(where.shape), np.ascontiguousarray(lines[:, columns]))
            lib.copyTo(lib.cvtColor(grey, lib.COLOR_GRAY2RGB), where.view(np.uint8), out[rows, columns])


def _runs(there: NDArray[np.bool_]) -> list[slice]:
    """Where there are stretches of True."""
    edges = np.flatnonzero(np.diff(there, prepend=False, append=False)).tolist()
    return [slice(first, last) for first, last in zip(edges[::2], edges[1::2], strict=True)]
