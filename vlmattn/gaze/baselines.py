"""What a map is measured against: chance, the centre bias, and people among themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.gaze.density import smeared
from vlmattn.gaze.fixations import Fixations
from vlmattn.gaze.held_map import Gaze, pixels_of, points_of, shares
from vlmattn.gaze.units import check_wh, inside

Array = NDArray[np.float64]
Scored = TypeVar("Scored")
MapScore = Callable[[Array, Fixations], Scored]
"""A measure, or several, of a map (H, W) against fixations of one picture."""


def uniform_map(image_wh: tuple[int, int]) -> Array:
    """(H, W) every pixel alike, shares of 1."""
    width, height = check_wh(image_wh)
    return np.full((height, width), 1 / (width * height))


def centre_map(image_wh: tuple[int, int], *, width: float = 0.25) -> Array:
    """(H, W) a Gaussian round the middle, shares of 1, whose deviation is ``width`` of the picture's width across and
    of its height down.

    Raises:
        SpecError: a width that is not above 0.
    """
    columns, rows = check_wh(image_wh)
    if not (np.isfinite(width) and width > 0):
        raise SpecError(f"width must be a share of the picture above 0, got {width}")
    across, down = ((np.arange(n) + 0.5) / n - 0.5 for n in (columns, rows))
    values = np.exp(-0.5 * (across[None, :] ** 2 + down[:, None] ** 2) / width**2)
    return np.asarray(values / values.sum())


def other_points(fixations: Fixations, image: str | None, image_wh: tuple[int, int]) -> Array:
    """(m, 2) fixations on all other pictures, moved to this one's size; those off their pictures are left out.

    For :func:`~vlmattn.gaze.auc_shuffled`. Where sizes differ, x scales with the widths and y with the heights.
    """
    parts = []
    for path in fixations:
        if path.image != image:
            points = path.xy[inside(path.x, path.y, path.image_wh)]
            parts.append(points * (image_wh[0] / path.image_wh[0], image_wh[1] / path.image_wh[1]))
    return np.concatenate(parts) if parts else np.zeros((0, 2))


def centre_bias(
    fixations: Fixations, image: str | None, image_wh: tuple[int, int], *, sigma: float, share: float = 0.01
) -> Array:
    """(H, W) the density of fixations on all other pictures, shares of 1: what can be foretold without the picture.

    Args:
        sigma: of the Gaussian in pixels. share: of a uniform density mixed in, so that no pixel is impossible.

    Raises:
        SpecError: there is no other picture with fixations.
    """
    points = other_points(fixations, image, image_wh)
    if not len(points):
        raise SpecError(f"no other picture than {image!r} has fixations: a centre bias cannot be made")
    return _density(points, image_wh, sigma, share)


def leave_one_out(
    fixations: Fixations, score: MapScore[Scored], *, sigma: float, share: float = 0.01
) -> dict[str, Scored]:
    """For each subject of one picture, ``score`` of the density of all others at this one's fixations.

    Their mean is what people reach among themselves; as a ceiling it grows with their number.

    Args:
        fixations: of one picture. sigma, share: as in :func:`centre_bias`.

    Returns:
        By subject; subjects without fixations on the picture are left out, and so is everybody if only one has any.

    Raises:
        SpecError: fixations of several pictures, or subjects without names.
    """
    groups = _subjects(fixations)
    held = {name: points_of(group, group[0].image_wh) for name, group in groups.items()}
    scores = {}
    for name, group in groups.items():
        others = [points for other, points in held.items() if other != name and len(points)]
        if others and len(held[name]):
            scores[name] = score(_density(np.concatenate(others), group[0].image_wh, sigma, share), group)
    return scores


def split_half(
    fixations: Fixations,
    score: MapScore[float],
    *,
    sigma: float,
    share: float = 0.01,
    splits: int = 10,
    rng: np.random.Generator | None = None,
) -> Array:
    """(splits,) ``score`` of the density of a random half of one picture's subjects at the other half's fixations.

    Of an odd number of subjects the larger half makes the density. NaN for fewer than two subjects with fixations.
    ``rng``: a generator of seed 0 if None.
    """
    if splits < 1:
        raise SpecError(f"splits must be at least 1, got {splits}")
    groups = [group for group in _subjects(fixations).values() if len(points_of(group, group[0].image_wh))]
    if len(groups) < 2:
        return np.full(splits, np.nan)
    generator = np.random.default_rng(0) if rng is None else rng
    scores = []
    for _ in range(splits):
        order = generator.permutation(len(groups))
        cut = (len(groups) + 1) // 2
        first, second = (Fixations.concatenate(groups[i] for i in part) for part in (order[:cut], order[cut:]))
        wh = first[0].image_wh
        scores.append(score(_density(points_of(first, wh), wh, sigma, share), second))
    return np.asarray(scores, dtype=np.float64)


def normalised(value: float, *, floor: float, ceiling: float) -> float:
    """Where a value stands between a floor (chance, centre bias) and a ceiling (people): 0 to 1, and past both.

    Works for measures where lower is better too. NaN where floor and ceiling are one.

    Example:
        >>> normalised(0.75, floor=0.5, ceiling=1.0), normalised(2.0, floor=3.0, ceiling=1.0)
        (0.5, 0.5)
    """
    return float((value - floor) / (ceiling - floor)) if ceiling != floor else float("nan")


def normalised_scores(
    values: Mapping[str, float], floors: Mapping[str, float], ceilings: Mapping[str, float]
) -> dict[str, float]:
    """:func:`normalised` of each measure that has a floor and a ceiling."""
    return {
        name: normalised(value, floor=floors[name], ceiling=ceilings[name])
        for name, value in values.items()
        if name in floors and name in ceilings
    }


def _subjects(fixations: Fixations) -> dict[str, Fixations]:
    if len(fixations.images) > 1:
        raise SpecError("the fixations are of several pictures: select those of one picture")
    groups = fixations.by_subject()
    if None in groups and len(fixations) > 1:
        raise SpecError("scanpaths without subject: people cannot be told apart")
    return {str(name): group for name, group in groups.items()}


def _density(points: Gaze, image_wh: tuple[int, int], sigma: float, share: float) -> Array:
    if not 0 <= share < 1:
        raise SpecError(f"share must be from 0 to below 1, got {share}")
    blurred = smeared(pixels_of(points, image_wh), image_wh, sigma)
    return (1 - share) * shares(blurred) + share / blurred.size
