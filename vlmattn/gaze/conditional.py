"""Measures of models that foretell each next fixation from those before: one map per fixation.

Fixation i is scored on map i alone, and means go over all fixations, not over pictures or scanpaths (Kümmerer and
Bethge, "State-of-the-art in human scanpath prediction", 2021; HAT, CVPR 2024). All take maps (n, H, W), or any iterable
of n maps, and n points x, y; a fixation off the picture gives NaN, which means leave out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.gaze.fixations import Scanpath
from vlmattn.gaze.held_map import HeldMap, held_map
from vlmattn.gaze.map_metrics import information_gain, nss
from vlmattn.gaze.roc import Map, auc
from vlmattn.gaze.units import inside

Array = NDArray[np.float64]


def conditional_ig(
    maps: Iterable[Map],
    fixations: Scanpath | ArrayLike,
    baseline: Map | None = None,
    *,
    variant: Literal["hat", "pysaliency"] = "hat",
) -> Array:
    """(n,) bits by which each map foretells its fixation better than the baseline; higher is better, 0 is chance.

    Args:
        baseline: one map for all, uniform if None. HAT's is the prior of the task: the density of training fixations
            but the first of each scanpath. variant: see :func:`~vlmattn.gaze.information_gain`.
    """
    base = None if baseline is None else held_map(baseline)
    return _each(maps, fixations, lambda held, at: information_gain(held, at, base, variant=variant))


def conditional_nss(
    maps: Iterable[Map], fixations: Scanpath | ArrayLike, *, variant: Literal["hat", "pysaliency"] = "hat"
) -> Array:
    """(n,) each map at its fixation, in standard deviations from its mean; higher is better, 0 is chance.

    Args:
        variant: ``hat`` divides by N - 1, ``pysaliency`` by N.
    """
    return _each(maps, fixations, lambda held, at: nss(held, at, variant=variant))


def conditional_auc(
    maps: Iterable[Map], fixations: Scanpath | ArrayLike, *, variant: Literal["hat", "pysaliency"] = "pysaliency"
) -> Array:
    """(n,) how many pixels each map puts below its fixation; higher is better.

    Args:
        variant: ``pysaliency``: the exact area against all pixels, from 0 to 1, chance 0.5. ``hat``: 1 - fp / 2, where
            fp is the share of the other pixels at or above the fixated one: from 0.5 to 1, **chance 0.75**; without
            ties (1 + the former) / 2.
    """
    if variant not in ("hat", "pysaliency"):
        raise SpecError(f"variant must be 'hat' or 'pysaliency', got {variant!r}")
    return _each(maps, fixations, auc if variant == "pysaliency" else _hat)


def _hat(held: HeldMap, at: ArrayLike) -> float:
    if held.flat.size == 1:
        return float("nan")
    column, row = np.floor(np.asarray(at)[0]).astype(int)
    higher = int((held.values >= held.values[row, column]).sum()) - 1
    return 1 - higher / (held.flat.size - 1) / 2


def _each(maps: Iterable[Map], fixations: Scanpath | ArrayLike, score: Callable[[HeldMap, Array], float]) -> Array:
    points = fixations.xy if isinstance(fixations, Scanpath) else np.asarray(fixations, dtype=np.float64)
    points = points.reshape(0, 2) if points.size == 0 else points
    if points.ndim != 2 or points.shape[1] != 2:
        raise MapError(f"fixations must be points x, y of shape (n, 2), got {points.shape}")
    scores: list[float] = []
    for held in map(held_map, maps):
        if len(scores) == len(points):
            raise MapError(f"there are more maps than fixations ({len(points)})")
        if isinstance(fixations, Scanpath) and held.image_wh != fixations.image_wh:
            raise MapError(f"a map has {held.image_wh} pixels, the picture {fixations.image_wh}: resize the map")
        at = points[len(scores)][None]
        scores.append(score(held, at) if inside(at[:, 0], at[:, 1], held.image_wh)[0] else float("nan"))
    if len(scores) != len(points):
        raise MapError(f"there must be a map for each of the {len(points)} fixations, got {len(scores)}")
    return np.asarray(scores, dtype=np.float64)
