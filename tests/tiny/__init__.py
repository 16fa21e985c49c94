"""Tiny models of every family, for the contract suite: real transformers classes, random weights, no network.

``TINY`` maps a model type to a function that makes a new ``(model, processor)``, in eval mode, float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.tiny import (
    convolved,
    cross_attention,
    cut_patches,
    dynamic_grid,
    dynamic_grid_variants,
    encoder_decoder,
    fixed_views,
    gemma,
    llava_like,
    pixtral_grid,
    pooled_grid,
    resampled,
    slices,
    tiles,
)

TINY: dict[str, Callable[[], tuple[Any, Any]]] = {
    **convolved.MODELS,
    **cross_attention.MODELS,
    **cut_patches.MODELS,
    **dynamic_grid.MODELS,
    **dynamic_grid_variants.MODELS,
    **encoder_decoder.MODELS,
    **fixed_views.MODELS,
    **gemma.MODELS,
    **llava_like.MODELS,
    **pixtral_grid.MODELS,
    **pooled_grid.MODELS,
    **resampled.MODELS,
    **slices.MODELS,
    **tiles.MODELS,
}
