"""Attention patterns on text: previous-token heads, induction heads, heads of a fixed offset.

Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021; Olsson et al., "In-context Learning and
Induction Heads", 2022. Induction is measured on random tokens that are repeated: at a token's second time, the head
looks at what came after it the first time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError

OFFSETS = tuple(range(2, 9))


def offset_score(attn: NDArray[Any], offset: int) -> NDArray[np.float64]:
    """(…) mean attention of row q on column q - ``offset``, over all rows that have one: 0 to 1.

    Args:
        attn: (…, N, N) rows and columns of one text. offset: 0 for the token itself, 1 for the previous one.

    Raises:
        SpecError: not square, or no row with such a column.

    Example:
        >>> import numpy as np
        >>> offset_score(np.eye(4, k=-1), 1).item()
        1.0
    """
    values = _square(attn)
    if not 0 <= offset < values.shape[-1]:
        raise SpecError(f"offset must be 0 to {values.shape[-1] - 1}, got {offset}")
    return np.diagonal(values, offset=-offset, axis1=-2, axis2=-1).mean(axis=-1)


def previous_token_score(attn: NDArray[Any]) -> NDArray[np.float64]:
    """(…) mean attention on the token before: 0 to 1; see :func:`offset_score`."""
    return offset_score(attn, 1)


def best_offset(attn: NDArray[Any], offsets: Sequence[int] = OFFSETS) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(…) the highest :func:`offset_score` of ``offsets``, and which one it is; offsets beyond the text are left out.

    Raises:
        SpecError: none is left.
    """
    values = _square(attn)
    usable = [offset for offset in offsets if offset < values.shape[-1]]
    if not usable:
        raise SpecError(f"a text of {values.shape[-1]} tokens has none of the offsets {list(offsets)}")
    scores = np.stack([offset_score(values, offset) for offset in usable])
    return scores.max(axis=0), np.array(usable)[scores.argmax(axis=0)]


def induction_score(attn: NDArray[Any], period: int, *, start: int = 0) -> NDArray[np.float64]:
    """(…) mean attention of a repeated token on what followed it the first time: 0 to 1.

    Args:
        attn: (…, N, N) of a text in which, from position ``start`` on, ``period`` tokens are repeated.

    Raises:
        SpecError: not square, or no row of a second time.
    """
    values = _square(attn)
    rows = np.arange(start + period, values.shape[-1])
    if period < 2 or start < 0 or not len(rows):
        raise SpecError(f"{values.shape[-1]} tokens do not hold {period} twice from position {start} on")
    return values[..., rows, rows - period + 1].mean(axis=-1)


def _square(attn: NDArray[Any]) -> NDArray[np.float64]:
    values = np.asarray(attn, dtype=np.float64)
    if values.ndim < 2 or values.shape[-1] != values.shape[-2]:
        raise SpecError(f"attention must be (…, N, N), got shape {values.shape}")
    return values
