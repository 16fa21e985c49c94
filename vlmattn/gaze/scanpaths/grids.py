"""Scanpaths as strings of the cells of a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlmattn.core.errors import SpecError
from vlmattn.gaze.fixations import Scanpath
from vlmattn.gaze.scanpaths.pairs import Array, Index


@dataclass(frozen=True)
class Grid:
    """Equal cells of a picture, numbered row by row.

    Example:
        >>> Grid(4, 3).symbols(Scanpath([0.0, 99.9, 150.0], [0.0, 99.9, 50.0], (100, 100))).tolist()
        [0, 11, 7]
    """

    columns: int
    rows: int

    def __post_init__(self) -> None:
        for name in ("columns", "rows"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise SpecError(f"{name} must be a whole number of 1 or more, got {value!r}")

    def cells(self, points: Array, image_wh: tuple[int, int]) -> Index:
        """(n,) numbers of the cells of (n, 2) points; of the nearest cell if off the picture."""
        width, height = image_wh
        column = np.clip(np.floor(points[:, 0] * self.columns / width), 0, self.columns - 1)
        row = np.clip(np.floor(points[:, 1] * self.rows / height), 0, self.rows - 1)
        return np.asarray(row * self.columns + column, dtype=np.int64)

    def symbols(self, path: Scanpath) -> Index:
        """(n,) numbers of the cells of a scanpath's fixations."""
        return self.cells(path.xy, path.image_wh)
