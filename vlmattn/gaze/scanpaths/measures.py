"""Every measure of two scanpaths, by name and variant: which way is better, its range, what short scanpaths give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, Literal

import numpy as np

from vlmattn.core.errors import SpecError
from vlmattn.gaze.fixations import Scanpath
from vlmattn.gaze.scanpaths.clouds import earth_mover_pairs, eyenalysis_pairs, mannan_pairs
from vlmattn.gaze.scanpaths.curves import dtw_pairs, frechet_pairs, hausdorff_pairs
from vlmattn.gaze.scanpaths.embedding import scaled_time_delay_pairs, string_time_delay_pairs, time_delay_pairs
from vlmattn.gaze.scanpaths.multimatch import PARTS, multimatch_pairs
from vlmattn.gaze.scanpaths.pairs import Array, Index, one_pair
from vlmattn.gaze.scanpaths.recurrence import cross_recurrence_pairs
from vlmattn.gaze.scanpaths.scanmatch import ScanMatch
from vlmattn.gaze.scanpaths.strings import string_edit_pairs

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class ScanpathMetric:
    """A measure of two scanpaths in one variant.

    Attributes:
        name: with the variant in brackets. better: which way. lowest, highest: its range for fixations on the
            picture. short: what scanpaths with too few fixations get. source: who defined it, whose variant it is.
        run: values (p, k) of pairs: all scanpaths, and the numbers (p,) of each pair's first and second.
        parts: (k,) names of the values, if there are several. symmetric: whether the order of the two counts;
            where it does, the person's comes first.
    """

    name: str
    better: Better
    lowest: float
    highest: float
    short: str
    source: str
    run: Callable[[Sequence[Scanpath], Index, Index], Array]
    parts: tuple[str, ...] = ()
    symmetric: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its values."""
        return tuple(f"{self.name}.{part}" for part in self.parts) or (self.name,)

    def __call__(self, one: Scanpath, other: Scanpath) -> dict[str, float]:
        """Its values of one pair, by name."""
        return dict(zip(self.names, one_pair(self.run, one, other).tolist(), strict=True))


def scanmatch_metric(settings: ScanMatch) -> ScanpathMetric:
    """ScanMatch with settings of one's own, for :func:`compare` and :func:`scanpath_matrix`."""
    low = 0.0 if settings.gap == 0 else -inf
    return ScanpathMetric(
        settings.name, "higher", low, 1.0, "NaN without fixation", "Cristino et al., BRM 2010", settings.pairs
    )


def cross_recurrence_metric(*, radius_px: float, shortest: int = 2) -> ScanpathMetric:
    """Cross-recurrence, whose radius depends on the screen, for :func:`compare` and :func:`scanpath_matrix`."""
    run = partial(cross_recurrence_pairs, radius_px=radius_px, shortest=shortest)
    parts = ("rec", "det", "lam", "corm")
    name = f"cross_recurrence[{radius_px:g} px, lines of {shortest}]"
    source = "Anderson et al., BRM 2015"
    return ScanpathMetric(name, "neither", -100.0, 100.0, "NaN without recurrence", source, run, parts, symmetric=False)


_FIVE = partial(multimatch_pairs, ties="package")
_EMPTY = "NaN without fixation"
_WANG = "Wang et al., CVPR 2011"
_ALL = (
    ScanpathMetric(
        "multimatch[ties=diagonal]", "higher", 0.0, 1.0, "NaN below three fixations",
        "Jarodzka et al., ETRA 2010; Dewhurst et al., BRM 2012", multimatch_pairs, PARTS,
    ),
    ScanpathMetric(
        "multimatch[ties=package]", "higher", 0.0, 1.0, "NaN below three fixations",
        "the same, ties as multimatch_gaze 0.1.3", _FIVE, PARTS,
    ),
    scanmatch_metric(ScanMatch()),
    scanmatch_metric(ScanMatch(bin_s=0.05)),
    ScanpathMetric(
        "string_edit[grid 5x5]", "lower", 0.0, inf, "the other's length", "Brandt and Stark, JoCN 1997",
        string_edit_pairs,
    ),
    ScanpathMetric(
        "string_edit[vame 5x5]", "lower", 0.0, inf, "the other's length", "the same, cells of VAME's code",
        partial(string_edit_pairs, variant="vame"),
    ),
    ScanpathMetric(
        "string_edit[grid 5x5, similarity]", "higher", 0.0, 1.0, "0; NaN if both are empty",
        "the same, 1 - d / longer length", partial(string_edit_pairs, normalised=True),
    ),
    ScanpathMetric("dtw[sum, px]", "lower", 0.0, inf, _EMPTY, "Berndt and Clifford, KDD 1994", dtw_pairs),
    ScanpathMetric(
        "dtw[per step, px]", "lower", 0.0, inf, _EMPTY, "the same, over the longer length",
        partial(dtw_pairs, per_step=True),
    ),
    ScanpathMetric("frechet[discrete, px]", "lower", 0.0, inf, _EMPTY, "Eiter and Mannila, 1994", frechet_pairs),
    ScanpathMetric("hausdorff[px]", "lower", 0.0, inf, _EMPTY, "Hausdorff distance", hausdorff_pairs),
    ScanpathMetric(
        "time_delay[window 3, mean, px]", "lower", 0.0, inf, "NaN below three fixations", _WANG, time_delay_pairs,
        symmetric=False,
    ),
    ScanpathMetric(
        "scaled_time_delay[similarity]", "higher", 0.0, 1.0, _EMPTY, _WANG, scaled_time_delay_pairs, symmetric=False
    ),
    ScanpathMetric(
        "scaled_time_delay[distance]", "lower", 0.0, inf, _EMPTY, _WANG,
        partial(scaled_time_delay_pairs, form="distance"), symmetric=False,
    ),
    ScanpathMetric(
        "string_time_delay[4x4, window 3]", "lower", 0.0, 1.0, "NaN below three fixations", "FixaTons",
        string_time_delay_pairs, symmetric=False,
    ),
    *(
        ScanpathMetric(
            f"eyenalysis[{variant}]", "lower", 0.0, inf, _EMPTY, "Mathôt et al., JEMR 2012",
            partial(eyenalysis_pairs, variant=variant),
        )
        for variant in ("max", "sum", "squared", "means")
    ),
    ScanpathMetric(
        "mannan[distance]", "lower", 0.0, 1.0, _EMPTY, "Mannan et al., Spatial Vision 1995", mannan_pairs
    ),
    ScanpathMetric(
        "earth_mover[fixations, px]", "lower", 0.0, inf, _EMPTY, "Rubner et al., IJCV 2000", earth_mover_pairs
    ),
)  # fmt: skip
SCANPATH_METRICS: dict[str, ScanpathMetric] = {metric.name: metric for metric in _ALL}
"""Measures of two scanpaths, by name and variant. Those with a setting of the screen are made by functions."""
DEFAULT_SCANPATH_METRICS = (
    "multimatch[ties=diagonal]",
    "scanmatch[matlab, 16x12, T 3.5]",
    "string_edit[grid 5x5]",
    "dtw[per step, px]",
    "scaled_time_delay[similarity]",
    "eyenalysis[max]",
)
"""What :func:`compare` measures unless it is told otherwise; none of them needs durations."""


def scanpath_metric(metric: str | ScanpathMetric) -> ScanpathMetric:
    """The measure of that name.

    Raises:
        SpecError: there is none.
    """
    if isinstance(metric, ScanpathMetric):
        return metric
    if metric not in SCANPATH_METRICS:
        raise SpecError(f"there is no scanpath metric {metric!r}; there are {sorted(SCANPATH_METRICS)}")
    return SCANPATH_METRICS[metric]


def compare(
    one: Scanpath, other: Scanpath, metrics: Sequence[str | ScanpathMetric] = DEFAULT_SCANPATH_METRICS
) -> Mapping[str, float]:
    """Several measures of two scanpaths, by name and variant.

    Args:
        one: the person's, where the order counts. other: what is compared with it, on a picture of the same size.
        metrics: names in :data:`SCANPATH_METRICS`, or measures.

    Raises:
        SpecError: an unknown name, pictures of two sizes, or durations that are missing and needed.

    Example:
        >>> path = Scanpath([10.0, 50, 90], [20.0, 60, 10], (100, 100))
        >>> compare(path, path, ["dtw[sum, px]", "eyenalysis[max]"])
        {'dtw[sum, px]': 0.0, 'eyenalysis[max]': 0.0}
    """
    wanted = [scanpath_metric(m) for m in metrics]
    told: dict[str, Any] = {}
    for metric in wanted:
        told |= metric(one, other)
    return told


def values_of(metric: ScanpathMetric, paths: Sequence[Scanpath], one: Index, other: Index) -> Array:
    """(p, k) of pairs; checked to be what the measure promised."""
    values = np.asarray(metric.run(paths, one, other), dtype=np.float64)
    if values.shape != (len(one), len(metric.names)):
        raise SpecError(
            f"{metric.name} must give values of shape (p, k) = {(len(one), len(metric.names))}, gave {values.shape}"
        )
    return values
