"""Scanpaths against scanpaths: how alike two people's, or a person's and a model's, ways of looking are."""

from __future__ import annotations

from vlmattn.gaze.scanpaths.clouds import (
    DiscAgreement,
    disc_agreement,
    earth_mover,
    eyenalysis,
    mannan,
    mannan_distance,
)
from vlmattn.gaze.scanpaths.curves import dtw, frechet, hausdorff
from vlmattn.gaze.scanpaths.embedding import plausibility, scaled_time_delay, string_time_delay, time_delay
from vlmattn.gaze.scanpaths.grids import Grid
from vlmattn.gaze.scanpaths.matrix import ScanpathMatrix, scanpath_matrix
from vlmattn.gaze.scanpaths.measures import (
    DEFAULT_SCANPATH_METRICS,
    SCANPATH_METRICS,
    ScanpathMetric,
    compare,
    cross_recurrence_metric,
    scanmatch_metric,
    scanpath_metric,
)
from vlmattn.gaze.scanpaths.multimatch import MultiMatch, Simplification, multimatch
from vlmattn.gaze.scanpaths.recurrence import Recurrence, cross_recurrence, recurrence
from vlmattn.gaze.scanpaths.saccade_statistics import SaccadeStatistics
from vlmattn.gaze.scanpaths.scanmatch import ScanMatch, scanmatch
from vlmattn.gaze.scanpaths.sequence_score import FixationClusters, semantic_score, sequence_edits, sequence_score
from vlmattn.gaze.scanpaths.strings import common_share, edit_distance, string_edit
from vlmattn.gaze.scanpaths.target_search import (
    first_hit,
    probability_mismatch,
    scanpath_ratio,
    search_cdf,
    target_hit,
    tfp_auc,
)

__all__ = [
    "DEFAULT_SCANPATH_METRICS",
    "SCANPATH_METRICS",
    "DiscAgreement",
    "FixationClusters",
    "Grid",
    "MultiMatch",
    "Recurrence",
    "SaccadeStatistics",
    "ScanMatch",
    "ScanpathMatrix",
    "ScanpathMetric",
    "Simplification",
    "common_share",
    "compare",
    "cross_recurrence",
    "cross_recurrence_metric",
    "disc_agreement",
    "dtw",
    "earth_mover",
    "edit_distance",
    "eyenalysis",
    "first_hit",
    "frechet",
    "hausdorff",
    "mannan",
    "mannan_distance",
    "multimatch",
    "plausibility",
    "probability_mismatch",
    "recurrence",
    "scaled_time_delay",
    "scanmatch",
    "scanmatch_metric",
    "scanpath_matrix",
    "scanpath_metric",
    "scanpath_ratio",
    "search_cdf",
    "semantic_score",
    "sequence_edits",
    "sequence_score",
    "string_edit",
    "string_time_delay",
    "target_hit",
    "tfp_auc",
    "time_delay",
]
