"""Tiny models of every family, for the contract suite: real transformers classes, random weights, no network.

``TINY`` maps a model type to a function that makes a new ``(model, processor)``, in eval mode, float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.tiny import (
    coded_grid,
    convolved,
    cut_patches,
    dynamic_grid,
    dynamic_grid_variants,
    fitted_square,
    fixed_views,
    gemma,
    llava_like,
    pixtral_grid,
    pooled_grid,
    raw_patches,
    slices,
    tiled_lfm2,
    tiles,
)

TINY: dict[str, Callable[[], tuple[Any, Any]]] = {
    **coded_grid.MODELS,
    **convolved.MODELS,
    **cut_patches.MODELS,
    **dynamic_grid.MODELS,
    **dynamic_grid_variants.MODELS,
    **fitted_square.MODELS,
    **fixed_views.MODELS,
    **gemma.MODELS,
    **llava_like.MODELS,
    **pixtral_grid.MODELS,
    **pooled_grid.MODELS,
    **raw_patches.MODELS,
    **slices.MODELS,
    **tiled_lfm2.MODELS,
    **tiles.MODELS,
}
