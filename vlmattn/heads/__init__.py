"""Attention heads: which of them carry vision, found from data; what they do, from samples and from weights alone."""

from __future__ import annotations

from vlmattn.core.head_preset import HeadPreset
from vlmattn.heads.atlas import FLOOR, HeadAtlas, ScoredHead
from vlmattn.heads.circuits import HeadCircuit, HeadCircuits, TokenPair, eigenvalue_shares
from vlmattn.heads.copying import copy_hits, copy_score
from vlmattn.heads.curve import curve_svg
from vlmattn.heads.divergence import T_VHD_HEADS, head_divergence, token_divergence, vision_aware, without_outliers
from vlmattn.heads.importance import gradient_importance
from vlmattn.heads.intervals import bootstrap_interval
from vlmattn.heads.joint import REDUCTIONS, JointEmbedding, aligned, reduced
from vlmattn.heads.kinds import DEFAULT_SCORES, SCORES, ScoreKind
from vlmattn.heads.knockout import DEFAULT_BLOCKS, Block, KnockoutCost, KnockoutSweep, block_named, layer_windows
from vlmattn.heads.known import found_presets, load_presets, save_presets
from vlmattn.heads.localization import elbow, kept_heads, localization_heads, spatial_entropy, votes
from vlmattn.heads.patterns import best_offset, induction_score, offset_score, previous_token_score
from vlmattn.heads.picture import head_sheet
from vlmattn.heads.pointing import Looked, choose_by_pointing, pointing, pointing_hits
from vlmattn.heads.pursuit import HeadPursuit, Pursued, PursuedHead, matching_pursuit
from vlmattn.heads.reasoning import Reasoning, Trend, trend
from vlmattn.heads.samples import HeadSample, read_samples, scene_sample, scene_samples
from vlmattn.heads.visual import image_mass, normalised_entropy, visual_head_score

__all__ = [
    "DEFAULT_BLOCKS",
    "DEFAULT_SCORES",
    "FLOOR",
    "REDUCTIONS",
    "SCORES",
    "T_VHD_HEADS",
    "Block",
    "HeadAtlas",
    "HeadCircuit",
    "HeadCircuits",
    "HeadPreset",
    "HeadPursuit",
    "HeadSample",
    "JointEmbedding",
    "KnockoutCost",
    "KnockoutSweep",
    "Looked",
    "Pursued",
    "PursuedHead",
    "Reasoning",
    "ScoreKind",
    "ScoredHead",
    "TokenPair",
    "Trend",
    "aligned",
    "best_offset",
    "block_named",
    "bootstrap_interval",
    "choose_by_pointing",
    "copy_hits",
    "copy_score",
    "curve_svg",
    "eigenvalue_shares",
    "elbow",
    "found_presets",
    "gradient_importance",
    "head_divergence",
    "head_sheet",
    "image_mass",
    "induction_score",
    "kept_heads",
    "layer_windows",
    "load_presets",
    "localization_heads",
    "matching_pursuit",
    "normalised_entropy",
    "offset_score",
    "pointing",
    "pointing_hits",
    "previous_token_score",
    "read_samples",
    "reduced",
    "save_presets",
    "scene_sample",
    "scene_samples",
    "spatial_entropy",
    "token_divergence",
    "trend",
    "vision_aware",
    "visual_head_score",
    "votes",
    "without_outliers",
]
