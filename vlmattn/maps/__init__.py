"""Maps: from attention rows to values on the patches of a picture, one method per module."""

from __future__ import annotations

from vlmattn.maps.normalise import NORMALISATIONS, normalise
from vlmattn.maps.presets import PRESETS, LayerPreset
from vlmattn.maps.raw import raw_attention
from vlmattn.maps.relative import GENERIC_PROMPT, relative
from vlmattn.maps.value_weighted import value_weighted

__all__ = [
    "GENERIC_PROMPT",
    "NORMALISATIONS",
    "PRESETS",
    "LayerPreset",
    "normalise",
    "raw_attention",
    "relative",
    "value_weighted",
]
