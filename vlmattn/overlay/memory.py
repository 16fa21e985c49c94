"""Pixels between Pillow and NumPy: what moves a large picture costs as much as what draws on it, so it is moved little.

Pillow keeps RGB as four bytes a pixel. An array of that layout becomes a picture as it is, without a copy; the other way
a picture is unpacked a few rows at a time, which stay in the processor's cache.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmattn.core.optional import cv2

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


def mounted(pixels: NDArray[np.uint8], size: tuple[int, int], at: tuple[int, int], paper: int = 255) -> Image.Image:
    """A picture of a size (width, height), grey all over, but for (H, W, 3) uint8 pixels whose corner is at (x, y)."""
    (height, width), (left, top) = pixels.shape[:2], at
    sheet = np.empty((size[1], size[0], 4), dtype=np.uint8)
    sheet[:top] = sheet[top + height :] = paper
    sheet[top : top + height, :left] = sheet[top : top + height, left + width :] = paper
    for first in range(0, height, _ROWS):
        part = np.ascontiguousarray(pixels[first : first + _ROWS])
        rows = sheet[top + first : top + first + len(part), left : left + width]
        rows[:] = cv2().cvtColor(part, cv2().COLOR_RGB2RGBA)
    image = Image.frombuffer("RGB", size, sheet, "raw", "RGBX", 0, 1)
    image.readonly = 0  # the memory is the picture's alone
    return image
