"""Pixels between Pillow and NumPy: what moves a large picture costs as much as what draws on it.

Both ways a few rows go at a time, which stay in the processor's cache; a whole picture at once would be written to
fresh memory several times.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_ROWS = 64


def array_of(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of a picture in RGB; equal to ``np.asarray(image)``."""
    width, height = image.size
    if height <= _ROWS:
        return np.asarray(image)
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    for first in range(0, height, _ROWS):
        last = min(first + _ROWS, height)
        pixels[first:last] = np.asarray(image.crop((0, first, width, last)))
    return pixels


def image_of(pixels: NDArray[np.uint8]) -> Image.Image:
    """A picture of (H, W, 3) uint8; equal to ``Image.fromarray(pixels)``."""
    height, width = pixels.shape[:2]
    return mounted(pixels, (width, height), (0, 0))


def mounted(
    pixels: NDArray[np.uint8], size: tuple[int, int], at: tuple[int, int], paper: tuple[int, int, int] = (255, 255, 255)
) -> Image.Image:
    """A picture of a size (width, height), all paper, but for (H, W, 3) uint8 pixels whose corner is at (x, y)."""
    (height, width), (left, top), (right, bottom) = pixels.shape[:2], at, size
    image = Image.new("RGB", size, None)  # nothing is written yet
    beside = ((0, top, left, top + height), (left + width, top, right, top + height))
    for box in ((0, 0, right, top), (0, top + height, right, bottom), *beside):
        if box[2] > box[0] and box[3] > box[1]:
            image.paste(paper, box)
    for first in range(0, height, _ROWS):
        image.paste(Image.fromarray(pixels[first : first + _ROWS]), (left, top + first))
    return image
