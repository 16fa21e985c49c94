"""What scenes lie on: noise, clutter and photo-like pictures; training and held-out banks have nothing in common.

Everything is computed in whole numbers, so that a seed gives the same bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

CANVAS = 224
"""Side of a background, and the longest side of a scene, in pixels."""

BANKS = {"train": range(360), "held_out": range(10_000, 10_180)}
"""Numbers of the backgrounds of a bank; a third each are noise, clutter and photo-like."""

_OCTAVES = ((4, 26), (14, 16), (56, 9))
_SPREAD = 74  # standard deviation of a uniform byte
_BRIGHTEST = 165


@lru_cache(maxsize=600)
def background(bank: str, index: int) -> NDArray[np.uint8]:
    """(224, 224, 3) background ``index`` of a bank: ``train`` (360) or ``held_out`` (180); read-only."""
    number = BANKS[bank][index]
    rng = np.random.default_rng([7, number])
    pixels = _STYLES[number % len(_STYLES)](rng)
    pixels.setflags(write=False)
    return pixels


def _noise(rng: np.random.Generator) -> NDArray[np.uint8]:
    # Three octaves of coloured noise round one colour.
    return _textured(rng, np.broadcast_to(rng.integers(60, 136, 3), (CANVAS, CANVAS, 3)), 128)


def _clutter(rng: np.random.Generator) -> NDArray[np.uint8]:
    # Lines, outlines and patches of dull colours on weak noise; none of them has the colour of an object.
    canvas = Image.new("RGB", (CANVAS, CANVAS), _dull(rng))
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(25, 70))):
        x0, y0 = (int(v) for v in rng.integers(-20, CANVAS, 2))
        w, h = (int(v) for v in rng.integers(4, 70, 2))
        width, color = int(rng.integers(1, 6)), _dull(rng)
        kind = int(rng.integers(4))
        if kind == 0:
            draw.line((x0, y0, x0 + w, y0 + h), fill=color, width=width)
        elif kind == 1:
            draw.ellipse((x0, y0, x0 + w, y0 + h), outline=color, width=width)
        elif kind == 2:
            draw.rectangle((x0, y0, x0 + w, y0 + h), outline=color, width=width)
        else:
            draw.polygon([(x0, y0), (x0 + w, y0 + h // 2), (x0 + w // 3, y0 + h)], fill=color)
    return _textured(rng, np.asarray(canvas).astype(np.int64), 64)


def _photo(rng: np.random.Generator) -> NDArray[np.uint8]:
    # A wall or sky over a floor, things out of focus, light from one side, darker corners, grain.
    small = 40
    canvas = Image.new("RGB", (small, small), _natural(rng))
    draw = ImageDraw.Draw(canvas)
    left, right = (int(v) for v in rng.integers(12, 34, 2))
    draw.polygon([(0, left), (small, right), (small, small), (0, small)], fill=_natural(rng))
    for _ in range(int(rng.integers(4, 14))):
        x0, y0 = (int(v) for v in rng.integers(-6, small, 2))
        w, h = (int(v) for v in rng.integers(3, 18, 2))
        shape = draw.ellipse if rng.random() < 0.6 else draw.rectangle
        shape((x0, y0, x0 + w, y0 + h), fill=_natural(rng))
    soft = _enlarged(np.asarray(canvas)).astype(np.int64)
    side = np.arange(CANVAS) - CANVAS // 2
    slope = rng.integers(-40, 41, 2)
    light = 256 + (side[:, None] * slope[0] + side[None] * slope[1]) // (CANVAS // 2)
    light = light - (side[:, None] ** 2 + side[None] ** 2) * int(rng.integers(0, 70)) // (CANVAS // 2) ** 2 // 2
    return _textured(rng, soft * light[..., None] // 256, 44)


_STYLES: tuple[Callable[[np.random.Generator], NDArray[np.uint8]], ...] = (_noise, _clutter, _photo)


def _textured(rng: np.random.Generator, base: NDArray[np.int64], strength: int) -> NDArray[np.uint8]:
    # ``strength`` in 128ths of full noise.
    pixels = base.astype(np.int64)
    for cells, amplitude in _OCTAVES:
        grid = _enlarged(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)).astype(np.int64) - 128
        pixels = pixels + grid * rng.integers(64, 129, 3) * amplitude * strength // (_SPREAD * 128 * 128)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _dull(rng: np.random.Generator) -> tuple[int, int, int]:
    grey = int(rng.integers(45, 150))
    return tuple(int(v) for v in grey + rng.integers(-18, 19, 3))  # type: ignore[return-value]


def _natural(rng: np.random.Generator) -> tuple[int, int, int]:
    # Earth, leaf and sky: moderate saturation, never as bright as an object.
    tint = np.array(((70, 48, 26), (34, 54, 30), (30, 48, 72), (56, 54, 50))[int(rng.integers(4))])
    return tuple(int(v) for v in np.clip(tint + rng.integers(10, 90) + rng.integers(-8, 9, 3), 20, _BRIGHTEST))  # type: ignore[return-value]


def _enlarged(grid: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(grid).resize((CANVAS, CANVAS), Image.Resampling.BICUBIC))
