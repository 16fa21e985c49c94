"""Whether loops can be compiled: numba is an extra, and arrays do the same without it, more slowly."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any


@cache
def compiled(module: str) -> Any:
    """A module of compiled loops by its full name, or None where numba is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None
