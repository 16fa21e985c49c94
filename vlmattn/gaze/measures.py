"""Every measure of a map against fixations, by name: what it needs, which way is better, what nothing gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, log
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.gaze.held_map import HeldMap
from vlmattn.gaze.map_metrics import cc, information_gain, kl, nss, sim
from vlmattn.gaze.roc import auc, auc_borji, auc_judd, auc_salicon, auc_shuffled

Need = Literal["density", "baseline", "others"]


@dataclass(frozen=True)
class MapCase:
    """One picture's map and what it is measured against.

    Attributes:
        map: of the model. pixels: (n,) fixated pixels, counted row by row. seed: of measures that draw.
        density: where people looked, for CC, SIM, KL. baseline: what information gain is over; uniform if None.
        others: (m,) pixels of this picture where people looked on other pictures.
    """

    map: HeldMap
    pixels: NDArray[np.int64]
    seed: tuple[int, ...] = (0,)
    density: HeldMap | None = None
    baseline: HeldMap | None = None
    others: NDArray[np.int64] | None = None

    @property
    def rng(self) -> np.random.Generator:
        """A new generator each time, so that no measure depends on which others are taken."""
        return np.random.default_rng(self.seed)


@dataclass(frozen=True)
class MapMetric:
    """A measure in one variant. Without fixations every one of them is NaN.

    Attributes:
        name: with the variant in brackets. better: which way. lowest, highest: its range. chance: what a map that
            knows nothing gets on average, or None where that depends. constant: what a constant map gets.
        needs: what of a :class:`MapCase` must be there. source: who defined it, and whose variant it is.
    """

    name: str
    better: Literal["higher", "lower"]
    lowest: float
    highest: float
    chance: float | None
    constant: str
    source: str
    run: Callable[[MapCase], float]
    needs: tuple[Need, ...] = ()

    def __call__(self, case: MapCase) -> float:
        """The measure of one picture. Raises SpecError if something it needs is not there."""
        return self.run(case) if len(case.pixels) else float("nan")


def _density(case: MapCase) -> HeldMap:
    if case.density is None:
        raise SpecError("the measure needs a density of fixations")
    return case.density


def _others(case: MapCase) -> NDArray[np.int64]:
    if case.others is None:
        raise SpecError("the measure needs fixations of other pictures")
    return case.others


Facts = tuple[Literal["higher", "lower"], float, float, float | None]
_AUC: Facts = ("higher", 0.0, 1.0, 0.5)
_NSS: Facts = ("higher", -inf, inf, 0.0)
_IG: Facts = ("higher", -inf, inf, None)
_ALL = (
    MapMetric(
        "auc[uniform]", *_AUC, "0.5", "exact; Kümmerer et al., ECCV 2018; pysaliency",
        lambda c: auc(c.map, c.pixels),
    ),
    MapMetric(
        "auc[unfixated]", *_AUC, "0.5", "exact, against pixels without fixation; pysaliency",
        lambda c: auc(c.map, c.pixels, negatives="unfixated"),
    ),
    MapMetric(
        "auc[salicon]", *_AUC, "NaN", "SALICON evaluation: 100,000 random pixels, steps of 0.01",
        lambda c: auc_salicon(c.map, c.pixels, rng=c.rng),
    ),
    MapMetric(
        "auc_judd[mit]", *_AUC, "below 0.5", "Judd et al., ICCV 2009; MIT benchmark, no jitter",
        lambda c: auc_judd(c.map, c.pixels),
    ),
    MapMetric(
        "auc_judd[mit, jitter]", *_AUC, "about 0.5", "Judd et al., ICCV 2009; MIT benchmark, uniform jitter",
        lambda c: auc_judd(c.map, c.pixels, jitter=c.rng),
    ),
    MapMetric(
        "auc_judd[pysaliency]", *_AUC, "0.5", "Judd et al., ICCV 2009; pysaliency, no jitter",
        lambda c: auc_judd(c.map, c.pixels, variant="pysaliency"),
    ),
    MapMetric(
        "auc_borji[mit]", *_AUC, "NaN", "Borji et al., IEEE TIP 2013; MIT benchmark, 100 splits, steps of 0.1",
        lambda c: auc_borji(c.map, c.pixels, rng=c.rng),
    ),
    MapMetric(
        "sauc[exact]", *_AUC, "0.5", "Zhang et al., JoV 2008; exact; pysaliency, MIT/Tübingen",
        lambda c: auc_shuffled(c.map, c.pixels, _others(c)), ("others",),
    ),
    MapMetric(
        "sauc[mit]", *_AUC, "NaN", "Zhang et al., JoV 2008; MIT benchmark, 100 splits, steps of 0.1",
        lambda c: auc_shuffled(c.map, c.pixels, _others(c), variant="mit", rng=c.rng), ("others",),
    ),
    MapMetric(
        "sauc[salicon]", *_AUC, "NaN", "Zhang et al., JoV 2008; SALICON evaluation, by count, steps of 0.01",
        lambda c: auc_shuffled(c.map, c.pixels, _others(c), variant="salicon"), ("others",),
    ),
    MapMetric(
        "sauc[gazexplain]", *_AUC, "NaN", "Zhang et al., JoV 2008; GazeXplain, once per pixel, steps of 0.01",
        lambda c: auc_shuffled(c.map, c.pixels, _others(c), variant="gazexplain"), ("others",),
    ),
    MapMetric(
        "nss[pysaliency]", *_NSS, "0", "Peters et al., Vision Research 2005; over N, every fixation",
        lambda c: nss(c.map, c.pixels),
    ),
    MapMetric(
        "nss[mit]", *_NSS, "NaN", "Peters et al., Vision Research 2005; over N - 1, once per pixel",
        lambda c: nss(c.map, c.pixels, variant="mit"),
    ),
    MapMetric(
        "nss[hat]", *_NSS, "0", "Peters et al., Vision Research 2005; over N - 1, every fixation",
        lambda c: nss(c.map, c.pixels, variant="hat"),
    ),
    MapMetric(
        "cc[pysaliency]", "higher", -1.0, 1.0, 0.0, "0", "Pearson's correlation",
        lambda c: cc(c.map, _density(c)), ("density",),
    ),
    MapMetric(
        "sim[pysaliency]", "higher", 0.0, 1.0, None, "its own value", "Judd et al., MIT TR 2012; maps as shares",
        lambda c: sim(c.map, _density(c)), ("density",),
    ),
    MapMetric(
        "sim[mit]", "higher", 0.0, 1.0, None, "NaN", "Judd et al., MIT TR 2012; maps from 0 to 1 first",
        lambda c: sim(c.map, _density(c), variant="mit"), ("density",),
    ),
    MapMetric(
        "kl[pysaliency]", "lower", 0.0, inf, None, "its own value", "1e-20 added to both maps",
        lambda c: kl(c.map, _density(c)), ("density",),
    ),
    MapMetric(
        "kl[mit]", "lower", -1e-9, log(1 / 2.2204e-16), None, "its own value", "MIT/Tübingen, 2.2204e-16",
        lambda c: kl(c.map, _density(c), variant="mit"), ("density",),
    ),
    MapMetric(
        "kl[mit, 1% uniform]", "lower", -1e-9, inf, None, "its own value", "the same, 1 % uniform mixed into the map",
        lambda c: kl(c.map, _density(c), variant="mit", mix=0.01), ("density",),
    ),
    MapMetric(
        "ig[pysaliency]", *_IG, "its own value", "Kümmerer et al., PNAS 2015; the map is a density",
        lambda c: information_gain(c.map, c.pixels, c.baseline), ("baseline",),
    ),
    MapMetric(
        "ig[mit]", *_IG, "NaN", "Kümmerer et al., PNAS 2015; MIT benchmark, maps from 0 to 1 first",
        lambda c: information_gain(c.map, c.pixels, c.baseline, variant="mit"), ("baseline",),
    ),
    MapMetric(
        "ig[1% uniform]", *_IG, "its own value", "Kümmerer et al., PNAS 2015; 1 % uniform mixed into the map",
        lambda c: information_gain(c.map, c.pixels, c.baseline, mix=0.01), ("baseline",),
    ),
)  # fmt: skip
MAP_METRICS: dict[str, MapMetric] = {metric.name: metric for metric in _ALL}
"""Measures of a map against one picture's fixations, by name and variant."""
DEFAULT_METRICS = (
    "auc[uniform]",
    "auc_judd[mit]",
    "sauc[exact]",
    "nss[pysaliency]",
    "cc[pysaliency]",
    "sim[pysaliency]",
    "kl[mit]",
    "ig[1% uniform]",
)
"""What :func:`~vlmattn.gaze.score_maps` measures unless it is told otherwise."""
