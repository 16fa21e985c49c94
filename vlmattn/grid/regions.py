"""Connected regions of a picture: the one place where scipy's labelling is used."""

from __future__ import annotations

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
