"""Boxes, peaks and contours, visible on any background: a light line, whole or dashed, inside a dark one."""

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


def draw_box(pixels: NDArray[np.uint8], box_xyxy: Box, factor: int = 1) -> None:
    """Draw a box (x0, y0, x1, y1), ends exclusive, in place; ``factor`` times as large on a picture that is.

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
    x0, y0, x1, y1 = (round(min(max(v * factor, -_FAR), _FAR)) for v in (x0, y0, x1, y1))
    width, (height_px, width_px) = stroke(pixels), pixels.shape[:2]
    left, right = (_inwards(x, width_px, width + 1) for x in (x0, x1 - 1))
    top, bottom = (_inwards(y, height_px, width + 1) for y in (y0, y1 - 1))
    for colour, thick in ((_DARK, 2 * width + 1), (_LIGHT, width)):
        cv2().rectangle(pixels, (left, top), (right, bottom), colour, thick)


def _inwards(at: int, side: int, half: int) -> int:
    """The middle of a line at the picture's border, moved so that the whole line is on the picture."""
    room = min(half, (side - 1) // 2)
    return min(max(at, room), side - 1 - room) if 0 <= at < side else at


def draw_peak(pixels: NDArray[np.uint8], xy: tuple[float, float]) -> None:
    """Draw a ring with a dot at a point, in place."""
    width = stroke(pixels)
    center, radius = (int(xy[0]), int(xy[1])), 6 * width
    for colour, thick in ((_DARK, 2 * width + 1), (_LIGHT, width)):
        cv2().circle(pixels, center, radius, colour, thick, cv2().LINE_AA)
    cv2().circle(pixels, center, width, _LIGHT, -1, cv2().LINE_AA)


def draw_contours(pixels: NDArray[np.uint8], values: NDArray[np.float32], levels: Sequence[float]) -> None:
    """Draw the outlines of {values >= level} for each level, in place: dashed, unlike boxes."""
    width = max(1, stroke(pixels) // 2)
    dash = 5 * width + 3
    side_xy = np.array(pixels.shape[1::-1])
    room = np.minimum(width // 2 + 1, (side_xy - 1) // 2)
    for level in levels:
        mask = (values >= level).astype(np.uint8)
        found, _ = cv2().findContours(mask, cv2().RETR_LIST, cv2().CHAIN_APPROX_NONE)
        lines = [np.clip(line, room, side_xy - 1 - room).astype(np.int32) for line in found]
        dashes = [line[first : first + dash] for line in lines for first in range(0, len(line), 2 * dash)]
        cv2().polylines(pixels, lines, True, _DARK, width + 2)
        cv2().polylines(pixels, dashes, False, _LIGHT, width)
