"""Does a map lie on the thing? Measures of a map against a mask of the thing, in pixels of the original.

All take (H, W) arrays; masks are bool. An empty mask, or one that is everything, is a question without an answer: it
gives NaN, which means are to leave out, and not a hit or a miss.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmattn.core.errors import MapError, SpecError

Threshold = float | Literal["otsu"]


def box_mask(image_wh: tuple[int, int], box_xyxy: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    """(H, W) pixels whose middle lies in a box.

    Raises:
        MapError: a box without area, or wholly outside the picture.

    Example:
        >>> box_mask((4, 2), (0, 0, 2, 1)).astype(int).tolist()
        [[1, 1, 0, 0], [0, 0, 0, 0]]
    """
    width, height = image_wh
    x0, y0, x1, y1 = box_xyxy
    if not (x1 > x0 and y1 > y0):
        raise MapError(f"a box must have positive width and height (x0, y0, x1, y1), got {box_xyxy}")
    across, down = np.arange(width) + 0.5, np.arange(height) + 0.5
    mask = np.logical_and.outer((down >= y0) & (down < y1), (across >= x0) & (across < x1))
    if not mask.any():
        raise MapError(f"the box {box_xyxy} holds no pixel of a picture of {width} x {height}")
    return np.asarray(mask)


def pointing(values: ArrayLike, mask: ArrayLike, *, tolerance: float = 0.0) -> float:
    """Whether the highest point lies on the thing; higher is better, 0 to 1.

    Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016 (pointing game). Of several highest
    points, the share of them on the thing: a flat map gets the share of the picture that the thing takes, which is
    chance.

    Args:
        tolerance: pixels round the mask that count as hits (the paper's code: 15).

    Example:
        >>> pointing([[0, 1], [0, 0]], [[False, True], [False, False]]), pointing([[1, 1]], [[True, False]])
        (1.0, 0.5)
    """
    heat, inside = _pair(values, mask)
    if tolerance < 0:
        raise SpecError(f"tolerance must be 0 pixels or more, got {tolerance}")
    if inside.all() or not inside.any():
        return float("nan")
    if tolerance > 0:
        from scipy import ndimage

        inside = ndimage.distance_transform_edt(~inside) <= tolerance
    highest = heat == heat.max()
    return float((highest & inside).sum() / highest.sum())


def energy_inside(values: ArrayLike, mask: ArrayLike, *, negative: Literal["clip", "shift"] = "clip") -> float:
    """Share of the map on the thing; higher is better, 0 to 1; a flat map gets the thing's share of the picture.

    Wang et al., "Score-CAM", CVPR workshops 2020 (energy-based pointing game).

    Args:
        negative: ``clip`` counts values below 0 as 0; ``shift`` takes the smallest value off all first, as min-max
            normalisation does, which gives other numbers. NaN where nothing is left.

    Example:
        >>> energy_inside([[1, 3]], [[False, True]]), energy_inside([[1, 3]], [[False, True]], negative="shift")
        (0.75, 1.0)
    """
    heat, inside = _pair(values, mask)
    if negative not in ("clip", "shift"):
        raise SpecError(f"negative must be 'clip' or 'shift', got {negative!r}")
    if inside.all() or not inside.any():
        return float("nan")
    heat = np.maximum(heat, 0) if negative == "clip" else heat - heat.min()
    total = heat.sum()
    return float(heat[inside].sum() / total) if total > 0 else float("nan")


def iou_at(values: ArrayLike, mask: ArrayLike, threshold: Threshold = 0.5) -> float:
    """Intersection over union of the thing and where the map is high; higher is better, 0 to 1.

    Args:
        threshold: of the span from the map's lowest to its highest value (0.2 is common for class activation maps),
            from 0 to 1; or ``otsu`` (Otsu, 1979). A flat map is nowhere high and gets 0.

    Example:
        >>> iou_at([[0, 1, 4, 4]], [[False, False, True, False]])
        0.5
    """
    heat, inside = _pair(values, mask)
    if inside.all() or not inside.any():
        return float("nan")
    level = _level(heat, threshold)
    if np.ptp(heat) <= 1e-6 * np.abs(heat).max():
        return 0.0
    return _iou(heat >= level, inside)


def best_iou(values: ArrayLike, mask: ArrayLike) -> tuple[float, float]:
    """The highest :func:`iou_at` of any threshold, and the value it stands at; an upper bound, chosen in hindsight.

    Example:
        >>> best_iou([[0, 1, 4, 3]], [[False, False, True, True]])
        (1.0, 3.0)
    """
    heat, inside = _pair(values, mask)
    if inside.all() or not inside.any():
        return float("nan"), float("nan")
    order = np.argsort(-heat, axis=None, kind="stable")
    levels, hits = heat.ravel()[order], np.cumsum(inside.ravel()[order])
    taken = np.arange(1, len(levels) + 1)
    iou = hits / (taken + inside.sum() - hits)
    ends = np.append(levels[1:] < levels[:-1], True)
    at = int(np.argmax(np.where(ends, iou, -1)))
    return float(iou[at]), float(levels[at])


def pixel_auc(values: ArrayLike, mask: ArrayLike) -> float:
    """Chance that a pixel of the thing has a higher value than another one, ties counted half; 0.5 for a flat map.

    The area under the ROC curve of the map as a detector of the thing's pixels.

    Example:
        >>> pixel_auc([[0, 1, 2]], [[False, False, True]]), pixel_auc([[1, 1]], [[True, False]])
        (1.0, 0.5)
    """
    from scipy.stats import rankdata

    heat, inside = _pair(values, mask)
    count, others = int(inside.sum()), int((~inside).sum())
    if not count or not others:
        return float("nan")
    ranks = rankdata(heat, axis=None).reshape(heat.shape)
    return float((ranks[inside].sum() - count * (count + 1) / 2) / (count * others))


def _pair(values: ArrayLike, mask: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    heat, inside = np.asarray(values, dtype=np.float64), np.asarray(mask, dtype=np.bool_)
    if heat.ndim != 2 or heat.shape != inside.shape or not heat.size:
        raise MapError(f"map and mask must have one shape (H, W), got {heat.shape} and {inside.shape}")
    if not np.isfinite(heat).all():
        raise MapError("the map holds values that are no numbers")
    return heat, inside


def _level(heat: NDArray[np.float64], threshold: Threshold) -> float:
    low, high = float(heat.min()), float(heat.max())
    if threshold == "otsu":
        return _otsu(heat, low, high) if high - low > 1e-6 * np.abs(heat).max() else high
    if isinstance(threshold, str) or not 0 <= threshold <= 1:
        raise SpecError(f"threshold must be 'otsu' or a share from 0 to 1, got {threshold!r}")
    return min(low + threshold * (high - low), high)  # rounding must not carry it above the highest


def _otsu(heat: NDArray[np.float64], low: float, high: float) -> float:
    """The lower edge of the upper class that differs most from the lower one, of 256 bins."""
    counts, edges = np.histogram(heat, bins=256, range=(low, high))
    middles = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = heat.size - below
    sums = np.cumsum(counts * middles)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return float(edges[1 + int(np.nanargmax(between))])


def _iou(found: NDArray[np.bool_], inside: NDArray[np.bool_]) -> float:
    return float((found & inside).sum() / (found | inside).sum())
