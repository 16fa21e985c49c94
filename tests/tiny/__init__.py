"""Tiny models of every family, for the contract suite: real transformers classes, random weights, no network.

``TINY`` maps a model type to a function that makes a new ``(model, processor)``, in eval mode, float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.tiny import dynamic_grid, padded_tiles, pooled_crops, slices, strided, tiles

TINY: dict[str, Callable[[], tuple[Any, Any]]] = {
    **dynamic_grid.MODELS,
    **padded_tiles.MODELS,
    **pooled_crops.MODELS,
    **slices.MODELS,
    **strided.MODELS,
    **tiles.MODELS,
}
