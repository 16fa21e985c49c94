"""The families that vlmattn serves itself; importing this registers them."""

from vlmattn.adapters.zoo import any_resolution, dynamic_grid, one_view, slices, tiles

__all__ = ["any_resolution", "dynamic_grid", "one_view", "slices", "tiles"]
