"""Relevancy and gradient-weighted attention of answer tokens.

Chefer et al., "Generic Attention-model Explainability", ICCV 2021. With y the logit of a written token at the row that
predicts it, Ā = mean_h (∂y/∂A ∘ A)^+ of every layer, and R ← R + Ā R from the lowest layer up, from R = I; the map is
the row's line of R. As one line is wanted, it is carried from the top layer down: r ← r + r Ā.

``gradient_rows`` is the same weighting of the row alone, in chosen layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.maps.attention_rollout import starting

if TYPE_CHECKING:
    import torch

    from vlmattn.capture.whole import HeldLayer, WholePass


def relevancy(
    passed: WholePass, rows: Sequence[int], *, heads: Sequence[int] | None = None, normalised: bool = False
) -> NDArray[np.float64]:
    """(W, N) relevancy of every token for the score that was differentiated, from each row; 0 or more, no unit.

    The row's own 1 (the identity it starts from) is left out. With one layer it is gradient times attention.

    Args:
        passed: all layers of one sequence, differentiated. rows: positions among the tokens that ran. heads: None for
            all. normalised: every line over its sum, as the paper's R̄ - I: shares that add up to 1, or all 0.

    Raises:
        SpecError: a head or row that does not exist.
    """
    import torch

    start = starting(passed, rows)
    gained = torch.zeros_like(start)  # apart from the 1, beside which small values would lose their digits
    for layer in sorted(passed.layers, reverse=True):
        held = passed.layers[layer]
        gained = gained + held.fold(start + gained, lambda held, at: weighted_attention(held, at, heads))
    found = np.asarray(gained.cpu().numpy(), dtype=np.float64)
    if not normalised:
        return found
    total = found.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(found, total, out=np.zeros_like(found), where=total > 0))


def gradient_rows(
    passed: WholePass, rows: Sequence[int], *, layers: Sequence[int], heads: Sequence[int] | None = None
) -> NDArray[np.float64]:
    """(W, K) attention of rows times its positive gradient, mean over heads, then over layers; 0 or more.

    Args:
        passed: differentiated. layers: among those held; their keys must be the same tokens.

    Raises:
        SpecError: a layer, head or row that does not exist.
    """
    missing = [layer for layer in layers if layer not in passed.layers]
    if missing or not len(layers):
        raise SpecError(f"layers {missing or '(none given)'} were not held; layers are {list(passed.layers)}")
    found = []
    for layer in layers:
        held = passed.layers[layer]
        lines = [weighted_attention(held, slice(row, row + 1), heads)[0] for row in rows]
        found.append([np.asarray(line.cpu().numpy(), dtype=np.float64) for line in lines])
    return np.asarray(np.mean(found, axis=0))


def weighted_attention(held: HeldLayer, rows: slice, heads: Sequence[int] | None = None) -> torch.Tensor:
    """(R, K) mean over heads of attention times its positive gradient.

    Raises:
        SpecError: a head that does not exist.
    """
    weighted = held.attention(rows).mul_(held.attention_slope(rows).clamp_(min=0))
    if heads is None:
        return weighted.mean(0)
    if not len(heads) or any(not -len(weighted) <= head < len(weighted) for head in heads):
        raise SpecError(
            f"heads {list(heads)} of layer {held.site.layer_idx} do not exist; it has heads 0 to {len(weighted) - 1}"
        )
    return weighted[list(heads)].mean(0)
