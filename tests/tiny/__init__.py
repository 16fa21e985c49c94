"""Tiny models of every family, for the contract suite: real transformers classes, random weights, no network.

``TINY`` maps a model type to a function that makes a new ``(model, processor)``, in eval mode, float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.tiny import (
    coded_grid,
    convolved,
    cross_attention,
    cut_patches,
    dynamic_grid,
    dynamic_grid_variants,
    encoder_decoder,
    encoder_reads_queries,
    fitted_square,
    fixed_views,
    gated,
    gemma,
    llava_like,
    padded_tiles,
    page_readers,
    pixtral_grid,
    pooled_crops,
    pooled_grid,
    raw_patches,
    resampled,
    slices,
    strided,
    tiled_lfm2,
    tiles,
)

TINY: dict[str, Callable[[], tuple[Any, Any]]] = {
    **coded_grid.MODELS,
    **convolved.MODELS,
    **cross_attention.MODELS,
    **cut_patches.MODELS,
    **dynamic_grid.MODELS,
    **dynamic_grid_variants.MODELS,
    **encoder_decoder.MODELS,
    **encoder_reads_queries.MODELS,
    **fitted_square.MODELS,
    **fixed_views.MODELS,
    **gated.MODELS,
    **gemma.MODELS,
    **llava_like.MODELS,
    **padded_tiles.MODELS,
    **page_readers.MODELS,
    **pixtral_grid.MODELS,
    **pooled_crops.MODELS,
    **pooled_grid.MODELS,
    **raw_patches.MODELS,
    **resampled.MODELS,
    **slices.MODELS,
    **strided.MODELS,
    **tiled_lfm2.MODELS,
    **tiles.MODELS,
}
