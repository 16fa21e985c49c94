"""Do the maps of a word say the same, between layers, and between attention and the logit lens?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmattn.core.errors import MapError
from vlmattn.detection.attention import layer_maps
from vlmattn.detection.states import TokenStates
from vlmattn.trace import Trace


def layer_agreement(trace: Trace, tokens: Sequence[int], image: int = 0) -> NDArray[np.float64]:
    """(T,) mean rank correlation (Spearman) of a word's maps between all pairs of layers, -1 to 1; lower where layers
    look at different places. A score of ours.

    Raises:
        MapError: fewer than two layers that look at the picture, or a flat map.
    """
    maps = layer_maps(trace, tokens, image)
    if len(maps) < 2:
        raise MapError("layers agree or not where at least two look at the picture: keep more of them")
    pairs = ~np.eye(len(maps), dtype=np.bool_)
    return np.array([rank_correlations(maps[:, t])[pairs].mean() for t in range(maps.shape[1])])


def lens_agreement(trace: Trace, states: TokenStates, tokens: Sequence[int], image: int = 0) -> NDArray[np.float64]:
    """(T,) rank correlation of where a word's rows look (mean over layers and heads) and where the logit lens reads it
    (highest over layers), -1 to 1; lower for words made up. A score of ours.

    Raises:
        MapError: a flat map, or patches that differ.
    """
    looks = layer_maps(trace, tokens, image).mean(axis=0)
    at = trace.layout.image_positions
    reads = states.patch_probability_ltk.max(axis=0)[:, trace.layout.image[at] == image]
    if looks.shape != reads.shape:
        raise MapError(f"the two maps have {looks.shape} and {reads.shape} tokens and patches: take them of one run")
    return np.array([rank_correlations([a, b])[0, 1] for a, b in zip(looks, reads, strict=True)])


def rank_correlations(maps: ArrayLike) -> NDArray[np.float64]:
    """(M, M) Spearman's correlation of the rows of (M, K) values, ties sharing their mean rank.

    Raises:
        MapError: a row whose values are all alike has no order.

    Example:
        >>> rank_correlations([[1, 2, 3], [30, 20, 10]])[0, 1].round(6).item()
        -1.0
    """
    from scipy.stats import rankdata

    values = np.asarray(maps, dtype=np.float64)
    ranks = rankdata(values, axis=1)
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1)
    if not (norms > 0).all():
        raise MapError("a map is flat, so its patches have no order that could be compared")
    return np.asarray(centred @ centred.T / (norms[:, None] * norms[None]))
