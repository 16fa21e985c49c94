"""The families that vlmattn serves itself; importing this registers them."""

from vlmattn.adapters.zoo import (
    any_resolution,
    dynamic_grid,
    one_view,
    padded_tiles,
    pooled_crops,
    slices,
    strided,
    tiles,
)

__all__ = ["any_resolution", "dynamic_grid", "one_view", "padded_tiles", "pooled_crops", "slices", "strided", "tiles"]
