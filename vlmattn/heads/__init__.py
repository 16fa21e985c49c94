"""Attention heads: which of them carry vision, found from data."""

from __future__ import annotations

from vlmattn.core.head_preset import HeadPreset
from vlmattn.heads.atlas import FLOOR, HeadAtlas, ScoredHead
from vlmattn.heads.copying import copy_hits, copy_score
from vlmattn.heads.divergence import T_VHD_HEADS, head_divergence, token_divergence, vision_aware, without_outliers
from vlmattn.heads.importance import gradient_importance
from vlmattn.heads.intervals import bootstrap_interval
from vlmattn.heads.kinds import DEFAULT_SCORES, SCORES, ScoreKind
from vlmattn.heads.known import found_presets, load_presets, save_presets
from vlmattn.heads.localization import elbow, kept_heads, localization_heads, spatial_entropy, votes
from vlmattn.heads.patterns import best_offset, induction_score, offset_score, previous_token_score
from vlmattn.heads.picture import head_sheet
from vlmattn.heads.pointing import Looked, choose_by_pointing, pointing, pointing_hits
from vlmattn.heads.samples import HeadSample, read_samples, scene_sample, scene_samples
from vlmattn.heads.visual import image_mass, normalised_entropy, visual_head_score

__all__ = [
    "DEFAULT_SCORES",
    "FLOOR",
    "SCORES",
    "T_VHD_HEADS",
    "HeadAtlas",
    "HeadPreset",
    "HeadSample",
    "Looked",
    "ScoreKind",
    "ScoredHead",
    "best_offset",
    "bootstrap_interval",
    "choose_by_pointing",
    "copy_hits",
    "copy_score",
    "elbow",
    "found_presets",
    "gradient_importance",
    "head_divergence",
    "head_sheet",
    "image_mass",
    "induction_score",
    "kept_heads",
    "load_presets",
    "localization_heads",
    "normalised_entropy",
    "offset_score",
    "pointing",
    "pointing_hits",
    "previous_token_score",
    "read_samples",
    "save_presets",
    "scene_sample",
    "scene_samples",
    "spatial_entropy",
    "token_divergence",
    "vision_aware",
    "visual_head_score",
    "votes",
    "without_outliers",
]
