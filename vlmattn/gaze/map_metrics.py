"""Measures of a map against fixations (NSS, information gain) and against a density of fixations (CC, SIM, KL).

Bylinskii et al., "What do different evaluation metrics tell us about saliency models?", TPAMI 2019, compares them. The
same word covers different formulas in the field, so every variant is named. Maps are (H, W) and finite; fixations are
as in :mod:`vlmattn.gaze.roc`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.gaze.compiled import compiled
from vlmattn.gaze.held_map import Gaze, HeldMap, held_map, pixels_of
from vlmattn.gaze.ranks import BLOCK, KERNELS, blocks
from vlmattn.gaze.roc import Map

Array = NDArray[np.float64]
EPSILON = 2.2204e-16
"""What MIT's and HAT's code adds before logarithms and divisions."""
_LOGGED = 1e-290
"""Above it, compiled logarithms hold."""


def nss(map: Map, fixations: Gaze, *, variant: Literal["pysaliency", "mit", "hat"] = "pysaliency") -> float:
    """Mean at fixations of the map in standard deviations from its mean; higher is better, 0 is chance.

    Peters, Iyer, Itti and Koch, Vision Research 2005 (normalised scanpath saliency). Range: at most sqrt(N - 1) of N
    pixels either way.

    Args:
        variant: ``pysaliency`` (also SALICON's and Gazeformer's): deviation over N, every fixation counts, a constant
            map gets 0. ``mit``: deviation over N - 1, fixations on one pixel count once, a constant map gets NaN.
            ``hat``: deviation over N - 1, every fixation counts, a constant map gets 0.

    Returns:
        NaN without fixations on the picture.

    Example:
        >>> round(nss([[0.0, 0.0], [0.0, 4.0]], [(1.5, 1.5)]), 6)
        1.732051
    """
    each = nss_each(map, fixations, variant=variant)
    return float(each.mean()) if len(each) else float("nan")


def nss_each(map: Map, fixations: Gaze, *, variant: Literal["pysaliency", "mit", "hat"] = "pysaliency") -> Array:
    """(n,) :func:`nss` of each fixation on the picture, or in ``mit`` of each distinct fixated pixel."""
    if variant not in ("pysaliency", "mit", "hat"):
        raise SpecError(f"variant must be 'pysaliency', 'mit' or 'hat', got {variant!r}")
    held = held_map(map)
    index = pixels_of(fixations, held.image_wh)
    index = np.unique(index) if variant == "mit" else index
    if held.is_constant:
        return np.full(len(index), np.nan if variant == "mit" else 0.0)
    size = held.flat.size
    deviation = np.sqrt(held.squares / (size if variant == "pysaliency" else size - 1))
    return np.asarray((held.flat[index] - held.mean) / deviation)


def cc(map: Map, density: Map, *, variant: Literal["pysaliency", "mit", "gazexplain"] = "pysaliency") -> float:
    """Pearson's correlation of two maps; higher is better, -1 to 1, 0 is chance.

    Args:
        variant: they agree but for constant maps. ``pysaliency``: 0 if only ``map`` is constant, else NaN. ``mit``:
            NaN if either is. ``gazexplain``: 1 if either is (its deviation at most 1e-8, both scaled to a largest
            value of 1).

    Example:
        >>> round(cc([[0.0, 1.0, 2.0]], [[1.0, 3.0, 5.0]]), 6)
        1.0
    """
    if variant not in ("pysaliency", "mit", "gazexplain"):
        raise SpecError(f"variant must be 'pysaliency', 'mit' or 'gazexplain', got {variant!r}")
    one, other = _pair(map, density)
    flat = [m.is_constant or (variant == "gazexplain" and _deviation(m) <= 1e-8) for m in (one, other)]
    if any(flat):
        return {"mit": float("nan"), "gazexplain": 1.0}.get(variant, 0.0 if flat == [True, False] else float("nan"))
    product = _product(one, other)
    return float(np.clip(product / np.sqrt(one.squares) / np.sqrt(other.squares), -1.0, 1.0))


def sim(map: Map, density: Map, *, variant: Literal["pysaliency", "mit"] = "pysaliency") -> float:
    """Sum of the smaller of both maps' shares, pixel by pixel; higher is better, 0 to 1, 1 for equal maps.

    Judd, Durand and Torralba, MIT TR 2012 (similarity, histogram intersection).

    Args:
        variant: ``pysaliency``: maps are made to sum to 1, and before that moved up to 0 if any value is negative; a
            map of zeros counts as uniform. ``mit``: maps are scaled from 0 to 1 first, which gives other numbers
            unless their lowest value is 0; a constant map gets NaN.

    Example:
        >>> sim([[1.0, 1.0]], [[1.0, 3.0]])
        0.75
    """
    if variant not in ("pysaliency", "mit"):
        raise SpecError(f"variant must be 'pysaliency' or 'mit', got {variant!r}")
    one, other = _pair(map, density)
    if variant == "mit" and (one.is_constant or other.is_constant):
        return float("nan")
    floors = [None if variant == "pysaliency" else held.low for held in (one, other)]
    if (loops := compiled(KERNELS)) and (scales := _scales(one, other, *floors)):
        return float(loops.overlap((one.flat, *scales[0]), (other.flat, *scales[1]), BLOCK))
    p, q = (held.shares(floor=floor) for held, floor in zip((one, other), floors, strict=True))
    total, theirs = 0.0, np.empty(min(BLOCK, one.flat.size))
    for part, room in blocks(one.flat.size):
        total += float(np.minimum(p(part, room), q(part, theirs[: len(room)]), out=room).sum())
    return total


def kl(
    map: Map,
    density: Map,
    *,
    variant: Literal["pysaliency", "mit"] = "pysaliency",
    epsilon: float | None = None,
    mix: float = 0.0,
) -> float:
    """Kullback-Leibler divergence of the map from the density of fixations, in nats; lower is better, from 0 on.

    The least stable of the measures: one zero of the map under fixations sends it to what ``epsilon`` allows.

    Args:
        variant: ``pysaliency``: sum of Q (log Q - log P) after 1e-20 has been added to both maps. ``mit``: sum of
            Q log(e + Q / (P + e)), e = 2.2204e-16 (MIT/Tübingen), which may lie below 0 by as much as e allows.
        epsilon: another number for 1e-20 or e. mix: share of a uniform map that is mixed into P first, against zeros.

    Example:
        >>> round(kl([[1.0, 1.0]], [[1.0, 0.0]]), 6), kl([[1.0, 3.0]], [[1.0, 3.0]])
        (0.693147, 0.0)
    """
    if variant not in ("pysaliency", "mit"):
        raise SpecError(f"variant must be 'pysaliency' or 'mit', got {variant!r}")
    small = (1e-20 if variant == "pysaliency" else EPSILON) if epsilon is None else epsilon
    if not (small > 0 and 0 <= mix < 1):
        raise SpecError(f"epsilon must be above 0 and mix from 0 to below 1, got {small} and {mix}")
    one, other = _pair(_mixed(held_map(map), mix), density)
    loops = compiled(KERNELS) if variant == "mit" and small > _LOGGED else None
    if loops and (scales := _scales(one, other)):
        return float(loops.regularised((one.flat, *scales[0]), (other.flat, *scales[1]), small, 1024))
    lift = small if variant == "pysaliency" else 0.0
    p, q = one.shares(lift=lift), other.shares(lift=lift)
    total, theirs = 0.0, np.empty(min(BLOCK, one.flat.size))
    for part, room in blocks(one.flat.size):
        mine, gold = p(part, room), q(part, theirs[: len(room)])
        if variant == "mit":
            total += _regularised(mine, gold, small)
        else:
            total += float(gold @ (np.log(gold) - np.log(mine, out=mine)))
    return total if variant == "mit" else max(0.0, total)


def _product(one: HeldMap, other: HeldMap) -> float:
    """Sum of products of distances from the means."""
    if loops := compiled(KERNELS):
        return float(loops.product(one.flat, one.mean, other.flat, other.mean, BLOCK))
    product, theirs = 0.0, np.empty(min(BLOCK, one.flat.size))
    for part, room in blocks(one.flat.size):
        np.subtract(one.flat[part], one.mean, out=room)
        product += float(room @ np.subtract(other.flat[part], other.mean, out=theirs[: len(room)]))
    return product


def _scales(
    one: HeldMap, other: HeldMap, floor: float | None = None, other_floor: float | None = None
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """How both maps become shares, unless one of them is uniform."""
    p, q = one.scale(floor=floor), other.scale(floor=other_floor)
    return None if p is None or q is None else (p, q)


def _regularised(p: Array, q: Array, small: float) -> float:
    """Sum of q log(small + q / (p + small)); p is overwritten."""
    p += small
    np.divide(q, p, out=p)
    p += small
    return float(q @ np.log(p, out=p))


def information_gain(
    map: Map,
    fixations: Gaze,
    baseline: Map | None = None,
    *,
    variant: Literal["pysaliency", "mit", "hat"] = "pysaliency",
    mix: float = 0.0,
) -> float:
    """Bits per fixation by which the map foretells fixations better than a baseline; higher is better.

    Kümmerer, Wallis and Bethge, PNAS 2015: the map is read as a density. The baseline itself gains 0.

    Args:
        baseline: a map; uniform if None. A density of other pictures' fixations (:func:`~vlmattn.gaze.centre_bias`)
            asks for more than the centre bias.
        variant: ``pysaliency``: mean of log2 P - log2 B, each made to sum to 1, minus infinity where P is 0. ``mit``:
            both maps are scaled from 0 to 1 first, fixations on one pixel count once, 2.2204e-16 is added before the
            logarithms. ``hat``: that is added, and nothing else done.
        mix: share of a uniform map that is mixed into the map first, against zeros.

    Returns:
        NaN without fixations; in ``mit`` also for a constant map.

    Raises:
        MapError: values below 0 in ``pysaliency`` or ``hat``: no density.

    Example:
        >>> round(information_gain([[1.0, 3.0]], [(1.5, 0.5)]), 6)
        0.584963
    """
    if variant not in ("pysaliency", "mit", "hat"):
        raise SpecError(f"variant must be 'pysaliency', 'mit' or 'hat', got {variant!r}")
    if not 0 <= mix < 1:
        raise SpecError(f"mix must be from 0 to below 1, got {mix}")
    held = _mixed(held_map(map), mix)
    index = pixels_of(fixations, held.image_wh)
    index = np.unique(index) if variant == "mit" else index
    if not len(index):
        return float("nan")
    return float(_gain(held, index, baseline, variant).mean())


def _gain(held: HeldMap, index: NDArray[np.int64], baseline: Map | None, variant: str) -> Array:
    base = None if baseline is None else _pair(held, baseline)[1]
    small = 0.0 if variant == "pysaliency" else EPSILON
    with np.errstate(divide="ignore"):
        mine = np.log2(_density_at(held, index, variant) + small)
        if base is None:
            return np.asarray(mine - np.log2(1 / held.flat.size + small))
        return np.asarray(mine - np.log2(_density_at(base, index, variant) + small))


def _density_at(held: HeldMap, index: NDArray[np.int64], variant: str) -> Array:
    if variant == "mit":
        return np.asarray(held.spread(index) / held.spread_total)
    if held.low < 0:
        raise MapError(f"information gain reads the map as a density, but its lowest value is {held.low:.3g}")
    return np.asarray(held.flat[index] / held.total) if held.total > 0 else np.full(len(index), 1 / held.flat.size)


def fixation_kl(
    maps: Sequence[Map],
    fixations: Sequence[Gaze],
    negatives: Sequence[Gaze] | Literal["uniform"] = "uniform",
    *,
    bins: int = 10,
    epsilon: float = 1e-20,
) -> float:
    """Divergence of the histogram of map values at fixations from that at other places, in nats; higher is better.

    Itti and Baldi, NIPS 2005, over several pictures together, as in pysaliency: even bins from the lowest to the
    highest value of all maps.

    Args:
        maps, fixations: one of each per picture. negatives: per picture, or ``uniform``: all its pixels.

    Returns:
        0 if both histograms agree, as for constant maps; NaN without fixations or negatives.
    """
    held = [held_map(m) for m in maps]
    if len(held) != len(fixations) or (not isinstance(negatives, str) and len(negatives) != len(held)) or not held:
        raise MapError("give one set of fixations, and of negatives, for each of one or more maps")
    looked = np.concatenate([m.flat[pixels_of(f, m.image_wh)] for m, f in zip(held, fixations, strict=True)])
    if isinstance(negatives, str):
        others = np.concatenate([m.flat for m in held])
    else:
        others = np.concatenate([m.flat[pixels_of(n, m.image_wh)] for m, n in zip(held, negatives, strict=True)])
    if not len(looked) or not len(others):
        return float("nan")
    span = min(m.low for m in held), max(m.high for m in held)
    shares = [np.histogram(v, bins=bins, range=span, density=True)[0] + epsilon for v in (looked, others)]
    p, q = (s / s.sum() for s in shares)
    return float(p @ (np.log(p) - np.log(q)))


def _pair(map: Map, density: Map) -> tuple[HeldMap, HeldMap]:
    one, other = held_map(map), held_map(density)
    if one.values.shape != other.values.shape:
        raise MapError(f"both maps must have one shape (H, W), got {one.values.shape} and {other.values.shape}")
    return one, other


def _mixed(held: HeldMap, mix: float) -> HeldMap:
    if not mix:
        return held
    return HeldMap((1 - mix) * held.density + mix / held.flat.size)


def _deviation(held: HeldMap) -> float:
    return float(np.sqrt(held.squares / held.flat.size) / held.high) if held.high > 0 else 0.0
