"""Scanpaths drawn on pictures: numbered circles as large as fixations are long, and lines between them."""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmattn.core.errors import MapError
from vlmattn.core.optional import cv2
from vlmattn.overlay.marks import stroke
from vlmattn.overlay.text import font

Colour = tuple[int, int, int]
PEOPLE, MODEL = (255, 196, 0), (0, 214, 255)
"""Colours of the circles of people and of models."""
_DARK, _LIGHT = (0, 0, 0), (255, 255, 255)
_SHORTEST, _USUAL, _LONGEST = 0.5, 0.25, 2.5


class Path(Protocol):
    """Fixations in order; :class:`vlmattn.gaze.Scanpath` is one."""

    @property
    def x(self) -> NDArray[np.float64]:
        """(n,) pixels."""
        ...

    @property
    def y(self) -> NDArray[np.float64]:
        """(n,) pixels."""
        ...

    @property
    def duration(self) -> NDArray[np.float64] | None:
        """(n,) seconds, or None."""
        ...

    @property
    def image_wh(self) -> tuple[int, int]:
        """Of the picture."""
        ...


def radii(path: Path, usual_px: float) -> NDArray[np.float64]:
    """(n,) radius of each fixation's circle: its area goes with the duration, a quarter of a second is ``usual_px``.

    It is between half and two and a half times as wide as that; all are alike where durations are not known.
    """
    if path.duration is None:
        return np.full(len(path.x), usual_px)
    return usual_px * np.clip(np.sqrt(np.asarray(path.duration) / _USUAL), _SHORTEST, _LONGEST)


def draw_scanpath(pixels: NDArray[np.uint8], path: Path, *, colour: Colour = PEOPLE, numbered: bool = True) -> None:
    """Draw a scanpath on a picture (H, W, 3), in place; the picture may be larger or smaller than that of the path.

    Saccades are light lines in dark ones; fixations are circles of ``colour`` with their numbers from 1, later ones
    above earlier ones. What is off the picture is not seen.

    Raises:
        MapError: the picture has another shape (over 2 % of aspect) than that of the path.
    """
    height, width = pixels.shape[:2]
    across, down = width / path.image_wh[0], height / path.image_wh[1]
    if not 0.98 <= across / down <= 1.02 and abs(height - path.image_wh[1] * across) > 1:
        raise MapError(f"a scanpath on {path.image_wh} pixels does not fit a picture of {width} x {height}")
    thick, lib = stroke(pixels), cv2()
    far = 1e6
    points = np.clip(np.column_stack([path.x * across, path.y * down]), -far, far).round().astype(int)
    sizes = radii(path, 5.0 * thick + 0.012 * np.sqrt(width * height)).round().astype(int)
    for ink, wide in ((_DARK, 2 * thick + 1), (_LIGHT, thick)):
        for one, other in pairwise(points):
            lib.line(pixels, _xy(one), _xy(other), ink, wide, lib.LINE_AA)
    for number, (point, radius) in enumerate(zip(points, sizes, strict=True), 1):
        lib.circle(pixels, _xy(point), int(radius), colour, -1, lib.LINE_AA)
        lib.circle(pixels, _xy(point), int(radius), _DARK, max(1, thick), lib.LINE_AA)
        if numbered:
            _write(pixels, str(number), point, int(radius))


def _xy(point: NDArray[np.int64]) -> tuple[int, int]:
    return int(point[0]), int(point[1])


def _write(pixels: NDArray[np.uint8], text: str, point: NDArray[np.int64], radius: int) -> None:
    """A number in the middle of a circle."""
    face = font(max(8, round(radius * (1.3 if len(text) == 1 else 1.0))))
    left, top, right, bottom = (int(v) for v in face.getbbox(text))
    mask = Image.new("L", (right - left, bottom - top))
    mask.paste(Image.frombytes("L", face.getmask(text).size, bytes(face.getmask(text))), (0, 0))
    ink = np.asarray(mask)
    y0, x0 = int(point[1]) - ink.shape[0] // 2, int(point[0]) - ink.shape[1] // 2
    y1, x1 = min(y0 + ink.shape[0], pixels.shape[0]), min(x0 + ink.shape[1], pixels.shape[1])
    top, left = max(y0, 0), max(x0, 0)
    if top >= y1 or left >= x1:
        return
    share = 1 - ink[top - y0 : y1 - y0, left - x0 : x1 - x0, None] / 255
    pixels[top:y1, left:x1] = (pixels[top:y1, left:x1] * share).astype(np.uint8)
