"""How scanpaths find a target: Yang et al., CVPR 2020 (COCO-Search18)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmattn.core.errors import SpecError
from vlmattn.gaze.fixations import Scanpath
from vlmattn.gaze.scanpaths.pairs import Array

Box = tuple[float, float, float, float]


def first_hit(path: Scanpath, box_xyxy: Box) -> int | None:
    """Number (from 0) of the first fixation strictly inside the target's box, or None; None without fixations.

    Example:
        >>> path = Scanpath([50.0, 20.0, 80.0], [50.0, 20.0, 80.0], (100, 100))
        >>> first_hit(path, (70, 70, 90, 90)), first_hit(path, (0, 0, 9, 9))
        (2, None)
    """
    left, top, right, bottom = _box(box_xyxy)
    hit = np.flatnonzero((path.x > left) & (path.x < right) & (path.y > top) & (path.y < bottom))
    return int(hit[0]) if len(hit) else None


def target_hit(path: Scanpath, box_xyxy: Box) -> bool:
    """Whether a fixation lies strictly inside the target's box; False without fixations."""
    return first_hit(path, box_xyxy) is not None


def search_cdf(
    paths: Sequence[Scanpath], boxes_xyxy: Sequence[Box], *, steps: int = 6, groups: Sequence[str] | None = None
) -> Array:
    """(steps + 1,) share of scanpaths that have been on the target after 0, 1, ... saccades; higher is better, 0 to 1.

    Args:
        paths: with the first, central fixation. boxes_xyxy: the target of each. groups: name of each scanpath's
            category; shares are then averaged over categories, as published.

    Raises:
        SpecError: no scanpath, or lengths that differ.

    Example:
        >>> path = Scanpath([50.0, 20.0, 80.0], [50.0, 20.0, 80.0], (100, 100))
        >>> search_cdf([path, path], [(70, 70, 90, 90), (0, 0, 9, 9)], steps=3).tolist()
        [0.0, 0.0, 0.5, 0.5]
    """
    if not len(paths) or len(paths) != len(boxes_xyxy) or (groups is not None and len(groups) != len(paths)):
        raise SpecError(
            f"there must be one box (and one group) per scanpath and at least one, got {len(paths)} scanpaths, "
            f"{len(boxes_xyxy)} boxes" + ("" if groups is None else f" and {len(groups)} groups")
        )
    if steps < 0:
        raise SpecError(f"steps must be 0 or more, got {steps}")
    hits = [first_hit(p, box) for p, box in zip(paths, boxes_xyxy, strict=True)]
    found = np.array([[h is not None and h <= step for step in range(steps + 1)] for h in hits], dtype=np.float64)
    if groups is None:
        return np.asarray(found.mean(axis=0))
    names = np.array([str(g) for g in groups])
    return np.asarray(np.mean([found[names == name].mean(axis=0) for name in dict.fromkeys(names)], axis=0))


def tfp_auc(cdf: Array) -> float:
    """Area under a search CDF, its sum over steps; higher is better, 0 to the number of steps and one (7 as published).

    Example:
        >>> tfp_auc(np.array([0.0, 0.5, 1.0]))
        1.5
    """
    return float(np.asarray(cdf, dtype=np.float64).sum())


def probability_mismatch(cdf: Array, human: Array) -> float:
    """Sum of absolute differences of two search CDFs; lower is better, from 0.

    Raises:
        SpecError: CDFs of different lengths.

    Example:
        >>> probability_mismatch(np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.75, 1.0]))
        0.25
    """
    one, other = np.asarray(cdf, dtype=np.float64), np.asarray(human, dtype=np.float64)
    if one.shape != other.shape or one.ndim != 1:
        raise SpecError(f"both CDFs must have one shape (steps + 1,), got {one.shape} and {other.shape}")
    return float(np.abs(one - other).sum())


def scanpath_ratio(path: Scanpath, box_xyxy: Box) -> float:
    """Straight way from the first fixation to the target's middle over the way that was gone until the target was hit,
    at most 1; higher is better. NaN if it was not hit; 1 if the first fixation hit it.

    Example:
        >>> round(scanpath_ratio(Scanpath([50.0, 20.0, 80.0], [50.0, 20.0, 80.0], (100, 100)), (70, 70, 90, 90)), 3)
        0.333
    """
    hit = first_hit(path, box_xyxy)
    if hit is None:
        return float("nan")
    left, top, right, bottom = box_xyxy
    straight = float(np.hypot((left + right) / 2 - path.x[0], (top + bottom) / 2 - path.y[0]))
    gone = float(np.hypot(np.diff(path.x[: hit + 1]), np.diff(path.y[: hit + 1])).sum())
    return min(1.0, straight / gone) if gone else 1.0


def _box(box_xyxy: Box) -> Box:
    values = np.asarray(box_xyxy, dtype=np.float64)
    if values.shape != (4,) or not np.isfinite(values).all() or values[2] <= values[0] or values[3] <= values[1]:
        raise SpecError(f"box_xyxy must be (left, top, right, bottom), right > left, bottom > top; got {box_xyxy!r}")
    return float(values[0]), float(values[1]), float(values[2]), float(values[3])
