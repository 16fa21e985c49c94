"""Areas under ROC curves: how well a map's values tell fixated places from others.

All take a map (H, W) and the fixations of one picture: a :class:`~vlmattn.gaze.Scanpath`, several of one picture, or
(n, 2) points x, y. A fixation takes the value of the pixel that it lies in; fixations off the picture are left out.
Higher is better, from 0 to 1; without fixations the area is NaN. The same name covers different numbers in the field,
so every variant is named.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmattn.core.errors import SpecError
from vlmattn.gaze.held_map import Gaze, HeldMap, held_map, pixels_of
from vlmattn.gaze.ranks import counts_below, distinct
from vlmattn.grid import PixelMap

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Map = HeldMap | PixelMap | ArrayLike
Negatives = Literal["uniform", "unfixated"] | Gaze
JITTER = 1e-7
"""How much noise breaks ties: in MIT's program uniform from 0 to this, in pysaliency's Gaussian of this deviation."""


def auc(
    map: Map, fixations: Gaze, *, negatives: Negatives = "uniform", thresholds: Literal["all", "fixated"] = "all"
) -> float:
    """Chance that a fixated place has a higher value than another one, ties counted half; 0.5 for a constant map.

    The exact area (Mann-Whitney). Every fixation counts, also several on one pixel. Kümmerer, Wallis and Bethge, ECCV
    2018, report this one.

    Args:
        negatives: the other places: ``uniform``: all pixels, fixated ones too; ``unfixated``: pixels without a
            fixation; or points (m, 2), each of which counts (:func:`auc_shuffled` takes those of other pictures).
        thresholds: ``all``, or only values at fixations (``fixated``), joined by straight lines: where map values tie
            that is larger (pysaliency's ``thresholds='fixations'``).

    Returns:
        NaN without fixations, or without negatives.

    Example:
        >>> auc([[0.0, 1.0, 2.0, 2.0]], [(2.5, 0.5)]), auc([[1.0, 1.0]], [(0.5, 0.5)])
        (0.75, 0.5)
    """
    held, index = _given(map, fixations)
    if thresholds not in ("all", "fixated"):
        raise SpecError(f"thresholds must be 'all' or 'fixated', got {thresholds!r}")
    if thresholds == "all":
        each = _each(held, index, negatives)
        return float(each.mean()) if len(each) else float("nan")
    levels, inverse = distinct(held.flat[index])
    below, _, total = _negative(held, index, negatives, levels)
    if not len(index) or not total:
        return float("nan")
    at = np.bincount(inverse, minlength=len(levels))
    hits = np.cumsum(at[::-1]) / len(index)
    return _area(hits, 1 - below[::-1] / total)


def auc_each(map: Map, fixations: Gaze, *, negatives: Negatives = "uniform") -> Array:
    """(n,) :func:`auc` of each fixation on the picture by itself; their mean is that of all."""
    held, index = _given(map, fixations)
    return _each(held, index, negatives)


def auc_judd(
    map: Map,
    fixations: Gaze,
    *,
    variant: Literal["mit", "pysaliency"] = "mit",
    jitter: np.random.Generator | None = None,
) -> float:
    """The area with thresholds at fixated values only (Judd, Ehinger, Durand and Torralba, ICCV 2009).

    Without ties this is the exact area against unfixated pixels plus half a step, ``fp / (2 n)``: too high by up to
    1/(2n). A constant map gets 0.5 in ``pysaliency``; ``mit`` reads ties against the map, so that a constant one gets
    far less, which jitter repairs at random.

    Args:
        variant: ``mit``: fixations on one pixel count once, each threshold counts pixels at or above it (the MATLAB
            benchmark code). ``pysaliency``: every fixation counts, thresholds are sets of equal values.
        jitter: adds :data:`JITTER` noise to the map first, as both programs do by default; None leaves it alone.

    Returns:
        NaN without fixations, or if every pixel is fixated.
    """
    if variant not in ("mit", "pysaliency"):
        raise SpecError(f"variant must be 'mit' or 'pysaliency', got {variant!r}")
    held, index = _given(map, fixations)
    if jitter is not None:
        shape = held.values.shape
        noise = jitter.random(shape) if variant == "mit" else jitter.standard_normal(shape)
        held = HeldMap(held.values + JITTER * noise)
    pixels = np.unique(index)
    if not len(index) or len(pixels) == held.flat.size:
        return float("nan")
    if variant == "pysaliency":
        levels, inverse = distinct(held.flat[index])
        below, _, total = _negative(held, index, "unfixated", levels)
        hits = np.cumsum(np.bincount(inverse, minlength=len(levels))[::-1]) / len(index)
        return _area(hits, 1 - below[::-1] / total)
    levels, inverse = distinct(held.flat[pixels])
    at_least = (held.flat.size - held.ranks(levels)[0])[inverse]
    order = np.argsort(at_least, kind="stable")
    nth = np.arange(1, len(pixels) + 1)
    return _area(nth / len(pixels), (at_least[order] - nth) / (held.flat.size - len(pixels)))


def auc_borji(
    map: Map,
    fixations: Gaze,
    *,
    splits: int = 100,
    step: float = 0.1,
    rng: np.random.Generator | None = None,
    drawn: ArrayLike | None = None,
) -> float:
    """The area against random pixels, mean over draws, with thresholds in even steps of the map's range.

    Borji, Sihite and Itti, IEEE TIP 2013, as MIT's MATLAB code has it: fixations on one pixel count once, as many
    random pixels as those per split. The step makes it depend on the map's histogram, which the exact area does not.

    Args:
        rng: where draws come from; a generator of seed 0 if None. drawn: (splits, n) pixels counted row by row
            instead of draws.

    Returns:
        NaN with fewer than two distinct fixated pixels, or for a constant map.
    """
    _check_steps(splits, step)
    held, index = _given(map, fixations)
    pixels = np.unique(index)
    if len(pixels) <= 1 or held.is_constant:
        return float("nan")
    if drawn is None:
        places = _generator(rng).integers(held.flat.size, size=(splits, len(pixels)))
    else:
        places = _drawn(drawn, held)
    positives = held.spread(pixels)
    return float(np.mean([_stepped(positives, held.spread(one), step) for one in places]))


def auc_shuffled(
    map: Map,
    fixations: Gaze,
    others: Gaze,
    *,
    variant: Literal["exact", "mit", "salicon", "gazexplain"] = "exact",
    splits: int = 100,
    rng: np.random.Generator | None = None,
    drawn: ArrayLike | None = None,
) -> float:
    """The area against fixations of other pictures, which takes the centre bias away (Zhang et al., JoV 2008).

    Args:
        others: fixations of other pictures, in pixels of this one: see :func:`~vlmattn.gaze.other_points`.
        variant: ``exact``: the exact area with every one of them (pysaliency; MIT/Tübingen). ``mit``: distinct pixels,
            as many as there are fixated ones drawn without replacement per split, thresholds in steps of 0.1, mean
            over ``splits``. ``salicon``: all of them that are not fixated, weighted by count, steps of 0.01, the
            highest left out. ``gazexplain``: the same, each pixel counted once.
        rng, drawn: of ``mit``, as in :func:`auc_borji`.

    Returns:
        NaN without fixations or without others; for a constant map 0.5 in ``exact``, NaN in the rest.
    """
    if variant not in ("exact", "mit", "salicon", "gazexplain"):
        raise SpecError(f"variant must be 'exact', 'mit', 'salicon' or 'gazexplain', got {variant!r}")
    held, index = _given(map, fixations)
    elsewhere = pixels_of(others, held.image_wh)
    if not len(index) or not len(elsewhere):
        return float("nan")
    if variant == "exact":
        return auc(held, fixations, negatives=others)
    if held.is_constant:
        return float("nan")
    if variant == "mit":
        _check_steps(splits, 0.1)
        pixels, pool = np.unique(index), np.unique(elsewhere)
        generator, size = _generator(rng), min(len(pixels), len(pool))
        given = None if drawn is None else _drawn(drawn, held)
        draws = given if given is not None else [generator.permutation(pool)[:size] for _ in range(splits)]
        return float(np.mean([_stepped(held.spread(pixels), held.spread(one), 0.1) for one in draws]))
    pool, counts = np.unique(elsewhere, return_counts=True)
    free = ~np.isin(pool, index)
    if not free.any():
        return float("nan")
    weights = counts[free].astype(np.float64) if variant == "salicon" else np.ones(int(free.sum()))
    return _stepped(held.spread(index), held.spread(pool[free]), 0.01, weights, top=False)


def auc_salicon(map: Map, fixations: Gaze, *, draws: int = 100_000, rng: np.random.Generator | None = None) -> float:
    """The area of SALICON's evaluation: every fixation against ``draws`` random pixels, thresholds in steps of 0.01,
    the highest left out. NaN without fixations or for a constant map."""
    _check_steps(draws, 0.01)
    held, index = _given(map, fixations)
    if not len(index) or held.is_constant:
        return float("nan")
    random = _generator(rng).integers(held.flat.size, size=draws)
    return _stepped(held.spread(index), held.spread(random), 0.01, top=False)


def _given(map: Map, fixations: Gaze) -> tuple[HeldMap, NDArray[np.int64]]:
    held = held_map(map)
    return held, pixels_of(fixations, held.image_wh)


def _each(held: HeldMap, index: NDArray[np.int64], negatives: Negatives) -> Array:
    levels, inverse = distinct(held.flat[index])
    below, equal, total = _negative(held, index, negatives, levels)
    if not total:
        return np.full(len(index), np.nan)
    return np.asarray(((below + 0.5 * equal) / total)[inverse])


def _negative(held: HeldMap, index: NDArray[np.int64], negatives: Negatives, levels: Array) -> tuple[Index, Index, int]:
    """How many negatives lie below each level, on it, and how many there are."""
    if isinstance(negatives, str):
        if negatives not in ("uniform", "unfixated"):
            raise SpecError(f"negatives must be 'uniform', 'unfixated' or points (m, 2), got {negatives!r}")
        below, equal = held.ranks(levels)
        if negatives == "uniform":
            return below, equal, held.flat.size
        pixels = np.unique(index)
        less, same = counts_below(held.flat[pixels], levels)
        return below - less, equal - same, held.flat.size - len(pixels)
    places = pixels_of(negatives, held.image_wh)
    below, equal = counts_below(held.flat[places], levels)
    return below, equal, len(places)


def _area(hits: Array, false_alarms: Array) -> float:
    """Under the straight lines from (0, 0) over the points, in order, to (1, 1)."""
    return float(np.trapezoid([0.0, *hits, 1.0], [0.0, *false_alarms, 1.0]))


def _stepped(positives: Array, negatives: Array, step: float, weights: Array | None = None, top: bool = True) -> float:
    """With thresholds 0, step, 2 step ... up to the highest value; ``top`` says whether that itself may be one."""
    highest = max(positives.max(), negatives.max())
    count = int(np.floor(highest / step + 1e-9)) + 1 if top else int(np.ceil(highest / step))
    levels = np.arange(count) * step
    hits = 1 - np.searchsorted(np.sort(positives), levels) / len(positives)
    order = np.argsort(negatives)
    mass = np.ones(len(negatives)) if weights is None else weights[order]
    under = np.concatenate([[0.0], np.cumsum(mass)])[np.searchsorted(negatives[order], levels)]
    return _area(hits[::-1], 1 - under[::-1] / mass.sum())


def _generator(rng: np.random.Generator | None) -> np.random.Generator:
    return np.random.default_rng(0) if rng is None else rng


def _drawn(drawn: ArrayLike, held: HeldMap) -> NDArray[np.int64]:
    places = np.asarray(drawn)
    if places.ndim != 2 or not places.size or places.dtype.kind not in "iu":
        raise SpecError(f"drawn must be pixels counted row by row, of shape (splits, n), got {places.shape}")
    if places.min() < 0 or places.max() >= held.flat.size:
        raise SpecError(f"drawn must be pixels from 0 to {held.flat.size - 1}")
    return places.astype(np.int64)


def _check_steps(splits: int, step: float) -> None:
    if splits < 1 or not 0 < step <= 1:
        raise SpecError(f"splits must be at least 1 and step above 0 and at most 1, got {splits} and {step}")
