"""Checks of what a user may choose, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from vlmattn.core.errors import SpecError
from vlmattn.core.whole import is_whole

__all__ = ["are_whole", "check_budget", "check_heads", "check_numbers", "check_one_of", "is_whole"]


def are_whole(values: Any) -> bool:
    """Whether ``values`` is a list, tuple, range or array of whole numbers, or an empty one."""
    if isinstance(values, (str, bytes)) or not isinstance(values, (Collection, np.ndarray)):
        return False
    return all(is_whole(one) for one in values)


def check_one_of(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Raises SpecError unless ``value`` is one of ``allowed``."""
    if not isinstance(value, (str, bool, type(None))) or value not in allowed:
        raise SpecError(f"{name} must be one of {', '.join(repr(a) for a in allowed)}; got {value!r}")


def check_numbers(name: str, value: Any) -> None:
    """Raises SpecError unless ``value`` is a sequence of whole numbers."""
    if not are_whole(value):
        raise SpecError(f"{name} must be whole numbers in a list or tuple; got {value!r}")


def check_heads(heads: Any) -> None:
    """Raises SpecError unless ``heads`` is ``all``, whole numbers, or {layer: whole numbers}."""
    if isinstance(heads, Mapping):
        check_numbers("the layers of heads", tuple(heads))
        for layer, chosen in heads.items():
            check_numbers(f"heads of layer {layer}", chosen)
    elif not isinstance(heads, str):
        check_numbers("heads", heads)
    elif heads != "all":
        raise SpecError(f"heads must be 'all', head numbers or {{layer: head numbers}}; got {heads!r}")


def check_budget(budget: Any) -> None:
    """Raises SpecError unless ``budget`` is a number of bytes, or a fraction, above 0."""
    number = isinstance(budget, Real) and not isinstance(budget, (bool, np.bool_))
    if not number or not math.isfinite(budget) or budget <= 0:
        raise SpecError(f"budget must be bytes, or a fraction of free memory, above 0; got {budget!r}")
