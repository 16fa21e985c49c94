"""Heads that read off the picture: is the patch they look at most the one that holds what is being written?

The measure of retrieval heads (Wu et al., ICLR 2025, arXiv 2404.15574) carried over to pictures: for every written
token that names something with a known box, a head scores if its largest attention on the picture lies on a patch of
that box. What it gives to text does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError


def copy_hits(attn_lhtk: NDArray[Any], holds_tk: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(L, H, T) whether the highest of K patches is one that holds what token t names.

    Args:
        attn_lhtk: attention of the predicting row of each of T written tokens on the patches. holds_tk: the patches
            that the box of what it names touches.

    A row with no attention on the picture scores nothing. Among equals, the first patch counts.

    Raises:
        SpecError: shapes that do not belong together.
    """
    values = np.asarray(attn_lhtk)
    if values.ndim != 4 or holds_tk.shape != values.shape[2:]:
        raise SpecError(f"attention must be (L, H, T, K) and places (T, K), got {values.shape} and {holds_tk.shape}")
    best = np.nan_to_num(values).argmax(axis=-1)
    rows = np.arange(holds_tk.shape[0])
    return np.asarray(holds_tk[rows, best] & (np.nan_to_num(values).max(axis=-1) > 0))


def copy_score(hits: Sequence[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """(L, H) share of all copied tokens, over all samples, at which a head scores: 0 to 1, higher is better.

    Args:
        hits: (L, H, T) of each sample, see :func:`copy_hits`.

    Raises:
        SpecError: no token at all.
    """
    held = [np.asarray(one) for one in hits if np.asarray(one).shape[-1]]
    if not held:
        raise SpecError("no copied token has a known box: give samples whose answers name things with boxes")
    return np.concatenate(held, axis=-1).mean(axis=-1)
