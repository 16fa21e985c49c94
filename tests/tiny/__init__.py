"""Tiny models of every family, for the contract suite: real transformers classes, random weights, no network.

``TINY`` maps a model type to a function that makes a new ``(model, processor)``, in eval mode, float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.tiny import convolved, dynamic_grid, fixed_views, gemma, llava_like

TINY: dict[str, Callable[[], tuple[Any, Any]]] = {
    **convolved.MODELS,
    **dynamic_grid.MODELS,
    **fixed_views.MODELS,
    **gemma.MODELS,
    **llava_like.MODELS,
}
