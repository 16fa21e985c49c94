"""Maps: from attention rows to values on the patches of a picture, one method per module."""

from __future__ import annotations

from vlmattn.maps.dual import DUAL_METHODS, dual_map
from vlmattn.maps.normalise import NORMALISATIONS, normalise
from vlmattn.maps.presets import HEAD_PRESETS, PRESETS, ROW_PRESETS, HeadPreset, LayerPreset, RowPreset
from vlmattn.maps.raw import raw_attention
from vlmattn.maps.relative import GENERIC_PROMPT, relative
from vlmattn.maps.value_weighted import value_weighted

__all__ = [
    "DUAL_METHODS",
    "GENERIC_PROMPT",
    "HEAD_PRESETS",
    "NORMALISATIONS",
    "PRESETS",
    "ROW_PRESETS",
    "HeadPreset",
    "LayerPreset",
    "RowPreset",
    "dual_map",
    "normalise",
    "raw_attention",
    "relative",
    "value_weighted",
]
