"""The families that vlmattn serves itself; importing this registers them."""

from vlmattn.adapters.zoo import (
    any_resolution,
    cut_patches,
    dynamic_grid,
    dynamic_grid_variants,
    one_view,
    pixtral_grid,
    pooled_grid,
)

__all__ = [
    "any_resolution",
    "cut_patches",
    "dynamic_grid",
    "dynamic_grid_variants",
    "one_view",
    "pixtral_grid",
    "pooled_grid",
]
