"""The families that vlmattn serves itself; importing this registers them."""

from vlmattn.adapters.zoo import (
    any_resolution,
    cut_patches,
    dynamic_grid,
    dynamic_grid_variants,
    one_view,
    pixtral_grid,
    pooled_grid,
    slices,
    tiles,
)

__all__ = [
    "any_resolution",
    "cut_patches",
    "dynamic_grid",
    "dynamic_grid_variants",
    "one_view",
    "pixtral_grid",
    "pooled_grid",
    "slices",
    "tiles",
]
