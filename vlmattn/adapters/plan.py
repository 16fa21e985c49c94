"""The image tokens of one picture: how many, in which order, and where each sits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import LayoutError
from vlmattn.core.layout import ImageLayout

Place = tuple[int, int, int]
NOWHERE: Place = (-1, -1, -1)


@dataclass(frozen=True)
class ImagePlan:
    """What one picture becomes.

    Attributes:
        layout: its tiles, in original pixels.
        place: (T, 3) int32, tile, row and column of each image token in sequence order; -1 for tokens without a place.
        view_hw: height and width in pixels of each view that the vision tower gets.
        views: number of views.
    """

    layout: ImageLayout
    place: NDArray[np.int32]
    view_hw: tuple[int, int]
    views: int

    def __post_init__(self) -> None:
        if self.place.ndim != 2 or self.place.shape[1] != 3:
            raise LayoutError(f"place must have shape (T, 3), got {self.place.shape}")
        placed = int((self.place[:, 0] >= 0).sum())
        if placed != self.layout.cells:
            raise LayoutError(f"{placed} image tokens have a place, but the grids have {self.layout.cells} cells")

    def __len__(self) -> int:
        return len(self.place)


def places(parts: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Parts one after the other, (T, 3)."""
    return np.concatenate([p.reshape(-1, 3) for p in parts]).astype(np.int32)


def nowhere(count: int) -> NDArray[np.int32]:
    """``count`` tokens without a place."""
    return np.full((count, 3), -1, dtype=np.int32)


def raster(tile: int, grid_hw: tuple[int, int], *, newline: bool = False) -> NDArray[np.int32]:
    """A grid row by row, left to right; with ``newline``, a token without a place ends every row."""
    rows, cols = grid_hw
    place = np.full((rows, cols + int(newline), 3), -1, dtype=np.int32)
    place[:, :cols, 0] = tile
    place[:, :cols, 1] = np.arange(rows)[:, None]
    place[:, :cols, 2] = np.arange(cols)[None, :]
    return place.reshape(-1, 3)
