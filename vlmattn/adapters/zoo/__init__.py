"""The families that vlmattn serves itself; importing this registers them."""

from vlmattn.adapters.zoo import (
    any_resolution,
    coded_grid,
    dynamic_grid,
    fitted_square,
    one_view,
    pixtral_grid,
    pooled_grid,
    raw_patches,
    tiled_lfm2,
)

__all__ = [
    "any_resolution",
    "coded_grid",
    "dynamic_grid",
    "fitted_square",
    "one_view",
    "pixtral_grid",
    "pooled_grid",
    "raw_patches",
    "tiled_lfm2",
]
