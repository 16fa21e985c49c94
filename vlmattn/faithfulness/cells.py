"""A map as regions of the original picture with one value each: what is removed, kept and compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError
from vlmattn.grid import PatchMap, to_pixels
from vlmattn.grid.overlap import cell_spans


@dataclass(frozen=True, eq=False)
class Cells:
    """Regions of a picture that do not overlap, and how much a map gives to each.

    Attributes:
        labels_hw: (H, W) int, which region a pixel of the original belongs to; -1 for pixels that the model never saw.
        values: (n,) value of each region.

    Raises:
        MapError: labels beyond the values, or a value that is no number.
    """

    labels_hw: NDArray[np.int64]
    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.labels_hw.ndim != 2 or self.values.ndim != 1:
            raise MapError(f"labels must be (H, W) and values (n,), got {self.labels_hw.shape}, {self.values.shape}")
        if (
            not len(self.values)
            or not self.labels_hw.size
            or self.labels_hw.max() >= len(self.values)
            or self.labels_hw.min() < -1
        ):
            raise MapError(f"labels must be -1 to {len(self.values) - 1}")
        if not np.isfinite(self.values).all():
            raise MapError("the map holds values that are no numbers")

    @property
    def is_flat(self) -> bool:
        """Whether no region has more than another, to float precision: an order of them means nothing."""
        return bool(np.ptp(self.values) <= 1e-6 * np.abs(self.values).max())

    def order(self) -> NDArray[np.int64]:
        """(n,) regions from the highest value to the lowest, the first of equals first."""
        return np.argsort(-self.values, kind="stable")

    def mask(self, regions: NDArray[np.integer]) -> NDArray[np.bool_]:
        """(H, W) pixels of some regions."""
        chosen = np.zeros(len(self.values) + 1, dtype=np.bool_)
        chosen[regions] = True
        chosen[-1] = False  # label -1: never seen
        return chosen[self.labels_hw]

    def pixels(self) -> NDArray[np.float64]:
        """(H, W) the value of each pixel's region; 0 where the model never saw it."""
        return np.append(self.values, 0.0)[self.labels_hw]


def cells_of(patch_map: PatchMap) -> Cells:
    """The regions of a map: its patches; where several tiles show a pixel, the smallest patch that holds it.

    Every region has the mean, over its pixels, of the map's density: all tiles are counted.

    Raises:
        MapError: no patch lies in the picture.
    """
    width, height = patch_map.layout.image_wh
    labels = np.full((height, width), -1, dtype=np.int64)
    tiles = sorted(enumerate(patch_map.layout.tiles), key=lambda one: -_area(one[1].source_box_xyxy, one[1].grid_hw))
    count = 0
    for index, tile in tiles:
        in_x, in_y = cell_spans(tile)
        col, row = _holders(in_x, width), _holders(in_y, height)
        inside = np.logical_and.outer(row >= 0, col >= 0)
        inside &= patch_map.visible_cells()[index][np.maximum(row, 0)[:, None], np.maximum(col, 0)[None]]
        numbers = count + row[:, None] * tile.grid_hw[1] + col[None]
        labels = np.where(inside, numbers, labels)
        count += tile.grid_hw[0] * tile.grid_hw[1]
    present = np.unique(labels[labels >= 0])
    if not len(present):
        raise MapError("no visible patch of this map holds the middle of a pixel of the picture")
    labels = np.where(labels >= 0, np.searchsorted(present, labels), -1)
    density = np.asarray(to_pixels(patch_map, kind="density").values, dtype=np.float64)
    flat, seen = labels.ravel(), labels.ravel() >= 0
    total = np.bincount(flat[seen], density.ravel()[seen], len(present))
    return Cells(labels, total / np.bincount(flat[seen], minlength=len(present)))


def _area(box: tuple[float, float, float, float], grid_hw: tuple[int, int]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1]) / (grid_hw[0] * grid_hw[1])


def _holders(spans: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    """(size,) which span holds the middle of each pixel; -1 for none."""
    middles = np.arange(size) + 0.5
    at = np.searchsorted(spans[:, 0], middles, side="right") - 1
    return np.where((at >= 0) & (middles < spans[np.maximum(at, 0), 1]), at, -1)
