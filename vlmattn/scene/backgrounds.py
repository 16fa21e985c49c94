"""Noise textures that scenes lie on; training and held-out banks have no texture in common."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CANVAS = 224
"""Side of a texture, and the longest side of a scene, in pixels."""

_BANKS = {"train": range(160), "held_out": range(10_000, 10_080)}
_OCTAVES = ((4, 26.0), (14, 16.0), (56, 9.0))


@lru_cache(maxsize=2)
def background_bank(name: str) -> NDArray[np.uint8]:
    """(K, 224, 224, 3) textures of a bank: ``train`` (160) or ``held_out`` (80); read-only."""
    bank = np.stack([_texture(seed) for seed in _BANKS[name]])
    bank.setflags(write=False)
    return bank


def _texture(seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng([7, seed])
    pixels = np.zeros((CANVAS, CANVAS, 3))
    base = rng.uniform(60, 135, 3)
    for cells, amplitude in _OCTAVES:
        grid = rng.normal(0, 1, (cells, cells, 3)) * rng.uniform(0.5, 1, 3) * amplitude
        pixels += np.stack([_enlarged(grid[..., c]) for c in range(3)], axis=-1)
    return np.clip(pixels + base, 0, 255).astype(np.uint8)


def _enlarged(grid: NDArray[np.float64]) -> NDArray[np.float32]:
    image = Image.fromarray(grid.astype(np.float32))
    return np.asarray(image.resize((CANVAS, CANVAS), Image.Resampling.BICUBIC))
