"""Maps: from attention rows to values on the patches of a picture, one method per module."""

from __future__ import annotations

from vlmattn.core.head_preset import HeadPreset
from vlmattn.maps.attention_flow import attention_flow, contracted
from vlmattn.maps.attention_rollout import attention_rollout
from vlmattn.maps.dual import DUAL_METHODS, dual_map
from vlmattn.maps.gradient import gradient_attention, pixel_gradient, pixel_gradient_ratio
from vlmattn.maps.normalise import NORMALISATIONS, normalise
from vlmattn.maps.presets import HEAD_PRESETS, PRESETS, ROW_PRESETS, LayerPreset, RowPreset
from vlmattn.maps.raw import raw_attention
from vlmattn.maps.relative import GENERIC_PROMPT, relative
from vlmattn.maps.relevancy import gradient_rows, relevancy
from vlmattn.maps.value_weighted import value_weighted
from vlmattn.maps.vision import (
    PUBLISHED_NORM_CUT,
    HighNormToken,
    class_attention,
    high_norm_tokens,
    patch_norms,
    received_attention,
    register_attention,
    rollout,
    through_tower,
)

__all__ = [
    "DUAL_METHODS",
    "GENERIC_PROMPT",
    "HEAD_PRESETS",
    "NORMALISATIONS",
    "PRESETS",
    "PUBLISHED_NORM_CUT",
    "ROW_PRESETS",
    "HeadPreset",
    "HighNormToken",
    "LayerPreset",
    "RowPreset",
    "attention_flow",
    "attention_rollout",
    "class_attention",
    "contracted",
    "dual_map",
    "gradient_attention",
    "gradient_rows",
    "high_norm_tokens",
    "normalise",
    "patch_norms",
    "pixel_gradient",
    "pixel_gradient_ratio",
    "raw_attention",
    "received_attention",
    "register_attention",
    "relative",
    "relevancy",
    "rollout",
    "through_tower",
    "value_weighted",
]
