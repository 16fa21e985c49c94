"""Tiny models of every family, for the contract suite: real transformers classes, random weights, no network.

``TINY`` maps a model type to a function that makes a new ``(model, processor)``, in eval mode, float32.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

_MODULES = [
    import_module(f"tests.tiny.{name}")
    for name in (
        "coded_grid",
        "convolved",
        "cross_attention",
        "cut_patches",
        "dynamic_grid",
        "dynamic_grid_variants",
        "encoder_decoder",
        "encoder_reads_queries",
        "fitted_square",
        "fixed_views",
        "gated",
        "gemma",
        "llava_like",
        "padded_tiles",
        "page_readers",
        "pixtral_grid",
        "pooled_crops",
        "pooled_grid",
        "raw_patches",
        "resampled",
        "slices",
        "strided",
        "tiled_lfm2",
        "tiles",
    )
]
TINY: dict[str, Callable[[], tuple[Any, Any]]] = {
    kind: make for module in _MODULES for kind, make in module.MODELS.items()
}
_EACH = None if os.environ.get("VLMATTN_EVERY_FAMILY") else 2
SEVERAL = sorted(kind for module in _MODULES for kind in sorted(module.MODELS)[:_EACH])
"""Two of every way that pictures come into a model, for sweeps that take long; all with ``VLMATTN_EVERY_FAMILY=1``."""
