"""Towers inside a text decoder: modules that take pixels, and so are no part of what reads words."""

from __future__ import annotations

import inspect
from typing import Any


def guests_of(stack: Any) -> list[Any]:
    """The modules inside ``stack`` that take pixels: tokenizers of pictures, towers that a decoder runs itself."""
    return [module for module in stack.modules() if module is not stack and _takes_pixels(module)]


def _takes_pixels(module: Any) -> bool:
    return "pixel_values" in inspect.signature(getattr(module, "encode", module.forward)).parameters
