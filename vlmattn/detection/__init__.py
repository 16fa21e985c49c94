"""Which words of an answer are made up, told from inside the model: scores, detectors, and calibrated risk.

Scores work on a :class:`~vlmattn.trace.Trace` and on :class:`TokenStates`; ``run.detect()`` makes both. How good they
are is in ``docs/detection.md``, controlled for the position of a word in its answer.
"""

from __future__ import annotations

from vlmattn.detection.agreement import layer_agreement, lens_agreement, rank_correlations
from vlmattn.detection.attention import (
    attention_dispersion,
    attention_entropy,
    attention_spread,
    lookback_ratio,
    sink_share,
    svar,
    visual_attention_ratio,
)
from vlmattn.detection.calibration import Calibration, fit_calibration
from vlmattn.detection.detector import RULES, Detector, fit_detector, held_out_scores
from vlmattn.detection.preliminary import preliminary_attention
from vlmattn.detection.scores import SCORES, ScoreSpec, Seen, score_specs
from vlmattn.detection.shipped import shipped_detector, shipped_detectors
from vlmattn.detection.states import (
    TokenStates,
    commit_depth,
    contextual_lens,
    glsim,
    internal_confidence,
    layer_divergence,
    viser,
)
from vlmattn.detection.table import MentionTable, ModelKey, joined
from vlmattn.detection.threshold import RECALL, Threshold, threshold_for_recall
from vlmattn.detection.uncertainty import (
    logit_margin,
    negative_log_likelihood,
    token_entropy,
    unused_and_unsure,
    utilisation,
)

__all__ = [
    "RECALL",
    "RULES",
    "SCORES",
    "Calibration",
    "Detector",
    "MentionTable",
    "ModelKey",
    "ScoreSpec",
    "Seen",
    "Threshold",
    "TokenStates",
    "attention_dispersion",
    "attention_entropy",
    "attention_spread",
    "commit_depth",
    "contextual_lens",
    "fit_calibration",
    "fit_detector",
    "glsim",
    "held_out_scores",
    "internal_confidence",
    "joined",
    "layer_agreement",
    "layer_divergence",
    "lens_agreement",
    "logit_margin",
    "lookback_ratio",
    "negative_log_likelihood",
    "preliminary_attention",
    "rank_correlations",
    "score_specs",
    "shipped_detector",
    "shipped_detectors",
    "sink_share",
    "svar",
    "threshold_for_recall",
    "token_entropy",
    "unused_and_unsure",
    "utilisation",
    "viser",
    "visual_attention_ratio",
]
