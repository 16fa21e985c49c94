"""The families that vlmattn serves itself; importing this registers them."""

from vlmattn.adapters.zoo import (
    any_resolution,
    coded_grid,
    convolved,
    cut_patches,
    dynamic_grid,
    dynamic_grid_variants,
    fitted_square,
    fixed_views,
    gemma,
    one_view,
    pixtral_grid,
    pooled_grid,
    raw_patches,
    slices,
    tiled_lfm2,
    tiles,
)

__all__ = [
    "any_resolution",
    "coded_grid",
    "convolved",
    "cut_patches",
    "dynamic_grid",
    "dynamic_grid_variants",
    "fitted_square",
    "fixed_views",
    "gemma",
    "one_view",
    "pixtral_grid",
    "pooled_grid",
    "raw_patches",
    "slices",
    "tiled_lfm2",
    "tiles",
]
