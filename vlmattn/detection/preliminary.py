"""PAS, prelim attention: how much a word looks at what is already written, in the first layer.

"Prelim attention score", CVPR 2026, arXiv 2511.11502: s = mean over heads of the attention of the object's token k, in
the first layer, on all tokens of the answer before it. High for words made up; but what is written grows with position,
so it is mostly a function of that: compare it at equal positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmattn.core.errors import MapError


def preliminary_attention(rows_htk: ArrayLike, tokens: Sequence[int], answer_start: int) -> NDArray[np.float64]:
    """(T,) PAS, 0 to 1; 0 for the first token of the answer.

    Args:
        rows_htk: (H, T, K) attention of the first layer, of the rows of the tokens themselves (not those that predict
            them), on all K positions. tokens: their positions. answer_start: of the first answer token.

    Raises:
        MapError: another shape.

    Example:
        >>> preliminary_attention([[[0.2, 0.5, 0.3]]], [2], 1).tolist()
        [0.5]
    """
    rows = np.asarray(rows_htk, dtype=np.float64)
    if rows.ndim != 3 or rows.shape[1] != len(tokens) or any(not 0 <= t < rows.shape[2] for t in tokens):
        raise MapError(f"rows must have shape (H, T, K) with T = {len(tokens)} tokens among K, got {rows.shape}")
    mean = rows.mean(axis=0)
    return np.array([line[answer_start:token].sum() for line, token in zip(mean, tokens, strict=True)])
