"""What counts as a whole number."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np


def is_whole(value: Any) -> bool:
    """Whether ``value`` is a whole number; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, (bool, np.bool_))
