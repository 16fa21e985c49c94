"""The families that vlmattn serves itself; importing this registers them."""

from vlmattn.adapters.zoo import any_resolution, convolved, dynamic_grid, fixed_views, gemma, one_view

__all__ = ["any_resolution", "convolved", "dynamic_grid", "fixed_views", "gemma", "one_view"]
