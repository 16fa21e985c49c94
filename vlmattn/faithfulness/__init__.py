"""Whether a map can be believed: localisation, removal, sanity checks, agreement, and a verdict with a known error."""

from __future__ import annotations

from vlmattn.faithfulness.agreement import (
    CAUTION,
    faithfulness_correlation,
    max_sensitivity,
    occlusion,
    rank_correlation,
    top_overlap,
)
from vlmattn.faithfulness.cells import Cells, cells_of
from vlmattn.faithfulness.curves import BINS, Curve, Erasure, deletion, drop_and_rise, erasure, insertion, road
from vlmattn.faithfulness.localisation import best_iou, box_mask, energy_inside, iou_at, pixel_auc, pointing
from vlmattn.faithfulness.randomisation import Cascade, cascade
from vlmattn.faithfulness.removal import BASELINES, Baseline, linear_imputation, without
from vlmattn.faithfulness.verdict import (
    CONTROLS,
    DEFAULT_RULE,
    REGION,
    Evidence,
    Reliability,
    Verdict,
    VerdictRule,
    boxes_as_masks,
    fit_verdict,
    reliability,
    squares,
)

__all__ = [
    "BASELINES",
    "BINS",
    "CAUTION",
    "CONTROLS",
    "DEFAULT_RULE",
    "REGION",
    "Baseline",
    "Cascade",
    "Cells",
    "Curve",
    "Erasure",
    "Evidence",
    "Reliability",
    "Verdict",
    "VerdictRule",
    "best_iou",
    "box_mask",
    "boxes_as_masks",
    "cascade",
    "cells_of",
    "deletion",
    "drop_and_rise",
    "energy_inside",
    "erasure",
    "faithfulness_correlation",
    "fit_verdict",
    "insertion",
    "iou_at",
    "linear_imputation",
    "max_sensitivity",
    "occlusion",
    "pixel_auc",
    "pointing",
    "rank_correlation",
    "reliability",
    "road",
    "squares",
    "top_overlap",
    "without",
]
