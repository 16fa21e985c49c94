"""Connected regions of a picture: the one place where scipy's labelling is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


def largest_region(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """The box (x0, y0, x1, y1), ends exclusive, of the largest 8-connected region of True; None if there is none.

    Largest means most pixels; of equals, the first in reading order.
    """
    from scipy import ndimage

    labels, count = ndimage.label(mask, structure=np.ones((3, 3), dtype=bool))
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel())[1:]
    rows, cols = ndimage.find_objects(labels)[int(sizes.argmax())]
    return int(cols.start), int(rows.start), int(cols.stop), int(rows.stop)


@dataclass(frozen=True)
class Region:
    """One connected region. ``number``: its label. ``box_xyxy``: tight, ends exclusive. ``area``: pixels. ``total``:
    sum of the values inside."""

    number: int
    box_xyxy: tuple[int, int, int, int]
    area: int
    total: float


def ranked_regions(
    mask: NDArray[np.bool_],
    values: NDArray[np.floating],
    *,
    neighbours: Literal[4, 8] = 8,
    rank: Literal["sum", "area"] = "sum",
) -> tuple[NDArray[np.int32], tuple[Region, ...]]:
    """Labels (H, W), 0 outside, and the connected regions of True, the best first; equals in reading order.

    Args:
        mask, values: (H, W). neighbours: 4 (sides) or 8 (corners too). rank: by ``sum`` of the values or ``area``.
    """
    from scipy import ndimage

    labels, count = ndimage.label(mask, structure=ndimage.generate_binary_structure(2, 1 if neighbours == 4 else 2))
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    totals = np.bincount(labels.ravel(), weights=values.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-(totals if rank == "sum" else areas), kind="stable").tolist()
    boxes = [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labels)]
    return labels, tuple(Region(n + 1, boxes[n], int(areas[n]), float(totals[n])) for n in order)
