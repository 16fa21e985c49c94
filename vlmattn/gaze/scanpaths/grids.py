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

    def cells(self, x: Array, y: Array, image_wh: tuple[int, int]) -> Index:
        """(n,) numbers of the cells of points; of the nearest cell if off the picture."""
        row = _along(y, self.rows, image_wh[1])
        return np.asarray(row * self.columns + _along(x, self.columns, image_wh[0]))

    def symbols(self, path: Scanpath) -> Index:
        """(n,) numbers of the cells of a scanpath's fixations."""
        return self.cells(path.x, path.y, path.image_wh)


def _along(values: Array, cells: int, length: int) -> Index:
    bounded = np.minimum(np.maximum(values * cells / length, 0.0), cells - 1)
    return np.asarray(bounded.astype(np.int64))
