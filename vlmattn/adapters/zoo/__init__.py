"""The families that vlmattn serves itself; importing this registers them."""

from vlmattn.adapters.zoo import (
    any_resolution,
    dynamic_grid,
    fitted_square,
    one_view,
    pixtral_grid,
    pooled_grid,
    tiled_lfm2,
)

__all__ = ["any_resolution", "dynamic_grid", "fitted_square", "one_view", "pixtral_grid", "pooled_grid", "tiled_lfm2"]
