"""Boxes, peaks and contours, visible on any background: a light line inside a dark one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.core.optional import cv2

Box = Sequence[float]
_FAR = 1e6
_DARK, _LIGHT = (0, 0, 0), (255, 255, 255)


def stroke(pixels: NDArray[np.uint8]) -> int:
    """Line width that suits a picture, in pixels."""
    return int(np.clip(round(np.sqrt(pixels.shape[0] * pixels.shape[1]) / 350), 1, 12))


def draw_box(pixels: NDArray[np.uint8], box_xyxy: Box) -> None:
    """Draw a box (x0, y0, x1, y1), ends exclusive, in place.

    Raises:
        SpecError: not four numbers, or no area.
    """
    try:
        x0, y0, x1, y1 = (float(v) for v in box_xyxy)
    except (TypeError, ValueError):
        x0 = y0 = x1 = y1 = float("nan")
    if not (np.isfinite([x0, y0, x1, y1]).all() and x1 > x0 and y1 > y0):
        raise SpecError(f"a box must be (x0, y0, x1, y1) with positive width and height, got {box_xyxy!r}")
    # Far outside the picture nothing is drawn, and the drawing counts in 32 bits.
    x0, y0, x1, y1 = (round(min(max(v, -_FAR), _FAR)) for v in (x0, y0, x1, y1))
    width = stroke(pixels)
    for colour, thick in ((_DARK, 2 * width + 1), (_LIGHT, width)):
        cv2().rectangle(pixels, (x0, y0), (x1 - 1, y1 - 1), colour, thick)


def draw_peak(pixels: NDArray[np.uint8], xy: tuple[float, float]) -> None:
    """Draw a ring with a dot at a point, in place."""
    width = stroke(pixels)
    center, radius = (int(xy[0]), int(xy[1])), 6 * width
    for colour, thick in ((_DARK, 2 * width + 1), (_LIGHT, width)):
        cv2().circle(pixels, center, radius, colour, thick, cv2().LINE_AA)
    cv2().circle(pixels, center, width, _LIGHT, -1, cv2().LINE_AA)


def draw_contours(pixels: NDArray[np.uint8], values: NDArray[np.float32], levels: Sequence[float]) -> None:
    """Draw the outlines of {values >= level} for each level, in place."""
    width = max(1, stroke(pixels) // 2)
    for level in levels:
        mask = (values >= level).astype(np.uint8)
        found, _ = cv2().findContours(mask, cv2().RETR_LIST, cv2().CHAIN_APPROX_NONE)
        for colour, thick in ((_DARK, width + 2), (_LIGHT, width)):
            cv2().drawContours(pixels, found, -1, colour, thick)
