"""Sequence score: scanpaths as strings of what was looked at, by clusters of fixations or by labels of a segmentation.

Yang et al., CVPR 2020 (Predicting goal-directed human attention), for the clusters; Yang et al., ECCV 2022, for labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmattn.core.errors import SpecError
from vlmattn.core.optional import require
from vlmattn.gaze.fixations import Fixations, Scanpath
from vlmattn.gaze.scanpaths.pairs import Array, Index, check_paths
from vlmattn.gaze.scanpaths.strings import common_share, edit_distance

FACTORS = (0.2, 0.5, 0.8, 1.0, 1.2, 1.5, 1.8)
"""What the estimated bandwidth is multiplied with, to choose from."""


@dataclass(frozen=True)
class FixationClusters:
    """Where people looked on one picture, as clusters of their fixations.

    Attributes:
        centres: (c, 2) pixels. image_wh: the picture's size. bandwidth: of the mean shift, pixels. rate: how much more
            often people go from one cluster to another than they stay, per cluster.
    """

    centres: Array
    image_wh: tuple[int, int]
    bandwidth: float
    rate: float

    @classmethod
    def fit(cls, humans: Fixations | Sequence[Scanpath], factors: Sequence[float] = FACTORS) -> FixationClusters:
        """Mean-shift clusters of all fixations of people on one picture (and task).

        The bandwidth is scikit-learn's estimate (quantile 0.3) times that factor for which (moves between clusters -
        moves within) / clusters over all scanpaths is largest, the first of equals. Takes seconds: keep what you fit.

        Raises:
            SpecError: no fixation, pictures of two sizes, or fixations that all lie on one point.
            DependencyMissing: scikit-learn is not installed.
        """
        paths = list(humans)
        check_paths(paths)
        points = np.concatenate([p.xy for p in paths]) if paths else np.zeros((0, 2))
        if not len(points) or not len(factors):
            raise SpecError("clusters need at least one fixation and one factor of the bandwidth")
        cluster: Any = require("sklearn.cluster", extra="gaze")
        bandwidth = float(cluster.estimate_bandwidth(points)) if len(points) > 1 else 0.0
        if bandwidth <= 0:
            raise SpecError("the fixations are too few or too close together to estimate a bandwidth from")
        tried = []
        for factor in factors:
            fitted = cluster.MeanShift(bandwidth=factor * bandwidth).fit(points)
            found = cls(np.asarray(fitted.cluster_centers_), paths[0].image_wh, factor * bandwidth, 0.0)
            tried.append(cls(found.centres, found.image_wh, found.bandwidth, found.moves(paths)))
        return max(tried, key=lambda c: c.rate)

    def moves(self, paths: Sequence[Scanpath]) -> float:
        """Moves between clusters less moves within, per cluster."""
        steps = [np.diff(self.symbols(p)) != 0 for p in paths if len(p)]
        moved = np.concatenate(steps) if steps else np.zeros(0, dtype=bool)
        return float((2 * moved.sum() - moved.size) / len(self.centres))

    def symbols(self, path: Scanpath) -> Index:
        """(n,) number of the cluster whose centre is nearest to each fixation."""
        if path.image_wh != self.image_wh:
            raise SpecError(f"the clusters are of a picture of {self.image_wh}, the scanpath of {path.image_wh}")
        squares = ((path.xy[:, None] - self.centres[None]) ** 2).sum(axis=2)
        return np.asarray(squares.argmin(axis=1), dtype=np.int64)


def sequence_score(
    human: Scanpath,
    simulated: Scanpath,
    clusters: FixationClusters,
    *,
    first: int | None = None,
    bin_s: float | None = None,
) -> float:
    """Longest common subsequence of both scanpaths' clusters over the longer length (SS); higher is better, 0 to 1.

    Symmetric; NaN if a scanpath has no fixation. Papers differ in whether a person is compared with himself and in
    ``first``; say both. The edit distance on the same strings (FED) is :func:`sequence_edits`.

    Args:
        clusters: of the people's fixations on this picture. first: only so many fixations of each. bin_s: repeat each
            symbol once per so many seconds, rounded down (0.05 in GazeXplain).

    Raises:
        SpecError: pictures of two sizes, a wrong option, or durations that are missing and needed.
    """
    return common_share(*(_shown(p, clusters.symbols(p), first, bin_s) for p in (human, simulated)))


def sequence_edits(
    human: Scanpath, simulated: Scanpath, clusters: FixationClusters, *, first: int | None = None
) -> float:
    """Edit distance of both scanpaths' clusters (Gazeformer's FED); lower is better, from 0 to the longer length."""
    return edit_distance(*(_shown(p, clusters.symbols(p), first, None) for p in (human, simulated)))


def semantic_score(
    human: Scanpath,
    simulated: Scanpath,
    labels: ArrayLike,
    *,
    measure: Literal["share", "edits"] = "share",
    first: int | None = None,
    bin_s: float | None = None,
) -> float:
    """As :func:`sequence_score`, with the label under each fixation as symbol (SemSS; Gazeformer's SED with ``edits``).

    Args:
        labels: (H, W) whole numbers, a segmentation of the whole picture at any size. Fixations off the picture get
            the label at its edge. measure: ``share`` of the common subsequence, 0 to 1, higher is better; or
            ``edits``, their distance, lower is better.

    Raises:
        SpecError: labels that are not whole numbers (H, W), pictures of two sizes, or a wrong option.

    Example:
        >>> path = Scanpath([10.0, 90.0], [10.0, 10.0], (100, 100))
        >>> semantic_score(path, path.take([0]), [[1, 2], [1, 2]])
        0.5
    """
    if measure not in ("share", "edits"):
        raise SpecError(f"measure must be 'share' or 'edits', got {measure!r}")
    check_paths([human, simulated])
    table = np.asarray(labels)
    if table.ndim != 2 or not table.size or table.dtype.kind not in "iub":
        raise SpecError(f"labels must be whole numbers (H, W), got {table.dtype} of shape {table.shape}")
    strings = [_shown(p, _labels(p, table), first, bin_s) for p in (human, simulated)]
    return (common_share if measure == "share" else edit_distance)(*strings)


def _labels(path: Scanpath, table: NDArray[Any]) -> Index:
    rows, columns = table.shape
    column = np.clip(np.floor(path.x * columns / path.image_wh[0]), 0, columns - 1).astype(np.int64)
    row = np.clip(np.floor(path.y * rows / path.image_wh[1]), 0, rows - 1).astype(np.int64)
    return np.asarray(table[row, column], dtype=np.int64)


def _shown(path: Scanpath, symbols: Index, first: int | None, bin_s: float | None) -> Index:
    """The symbols that count."""
    if first is not None and first < 1:
        raise SpecError(f"first must be 1 or more, or None, got {first}")
    if bin_s is None:
        return symbols[:first]
    if not (np.isfinite(bin_s) and bin_s > 0):
        raise SpecError(f"bin_s must be above 0 seconds or None, got {bin_s!r}")
    check_paths([path], durations="the sequence score with bins of time")
    # Half a microsecond keeps 0.15 s at three bins of 0.05 s.
    times = np.floor((np.asarray(path.duration)[:first] + 5e-7) / bin_s).astype(np.int64)
    return np.repeat(symbols[:first], times)
