"""Tiny models of every family, for the contract suite: real transformers classes, random weights, no network.

``TINY`` maps a model type to a function that makes a new ``(model, processor)``, in eval mode, float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.tiny import coded_grid, dynamic_grid, fitted_square, pixtral_grid, pooled_grid, raw_patches, tiled_lfm2

TINY: dict[str, Callable[[], tuple[Any, Any]]] = {
    **coded_grid.MODELS,
    **dynamic_grid.MODELS,
    **fitted_square.MODELS,
    **pixtral_grid.MODELS,
    **pooled_grid.MODELS,
    **raw_patches.MODELS,
    **tiled_lfm2.MODELS,
}
