"""The families that vlmattn serves itself; importing this registers them."""

from vlmattn.adapters.zoo import (
    any_resolution,
    convolved,
    cross_attention,
    cut_patches,
    dynamic_grid,
    dynamic_grid_variants,
    encoder_decoder,
    fixed_views,
    gemma,
    one_view,
    perceived,
    pixtral_grid,
    pooled_grid,
    resampled,
    slices,
    tiles,
)

__all__ = [
    "any_resolution",
    "convolved",
    "cross_attention",
    "cut_patches",
    "dynamic_grid",
    "dynamic_grid_variants",
    "encoder_decoder",
    "fixed_views",
    "gemma",
    "one_view",
    "perceived",
    "pixtral_grid",
    "pooled_grid",
    "resampled",
    "slices",
    "tiles",
]
