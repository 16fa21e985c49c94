"""Attention rollout of a decoder: where the states of a row come from if attention is all that moves them.

Abnar & Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020: with A the mean over heads of a layer and the
residual stream as identity, Ā = rownorm(A + I), and R = Ā^{L-1} … Ā^0; a row of R is a distribution over the tokens.

Only the rows asked for are carried, from the top layer down, so nothing of tokens × tokens is held. In decoders the
first token draws most attention and so most of every rollout; ``without_first`` takes its column out of every row, but
its own, and scales the rest up, before the residual is added; ``without_ln`` does so with any other sinks.

Rows of learned sinks, which add up to less than 1, are scaled up to 1 before the residual is added, so that its weight
is that of every other model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError

if TYPE_CHECKING:
    import torch

    from vlmattn.capture.whole import HeldLayer, WholePass


def attention_rollout(
    passed: WholePass,
    rows: Sequence[int],
    *,
    heads: Sequence[int] | None = None,
    start_layer: int = 0,
    residual: float = 0.5,
    without_first: bool = False,
    without_ln: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """(W, N) share of each row that comes from each token; every line adds up to 1.

    Args:
        passed: all layers of one sequence. rows: positions among the tokens that ran. heads: None for all.
        start_layer: the lowest layer that counts. residual: weight of the identity, from 0 (attention alone) to below
            1; 0.5 is the paper's A + I. without_first: leave the first token's column out of every row but its own.
        without_ln: the same of other columns, (held layers, N), lowest layer first.

    Raises:
        SpecError: a layer, head, row or weight that does not exist, or ``without_ln`` of another shape.
    """
    if not 0 <= residual < 1:
        raise SpecError(f"residual must be at least 0 and below 1, got {residual}")
    if start_layer not in passed.layers:
        raise SpecError(f"start_layer {start_layer} was not held; layers are {list(passed.layers)}")
    carried = starting(passed, rows)
    left_out = _left_out(passed, carried, without_ln, first=without_first)

    def mixed(held: HeldLayer, at: slice) -> torch.Tensor:
        return _mixed(held, at, heads, left_out.get(held.site.layer_idx))

    for layer in sorted((n for n in passed.layers if n >= start_layer), reverse=True):
        moved = passed.layers[layer].fold(carried, mixed)
        carried = residual * carried + (1 - residual) * moved
    return np.asarray(carried.cpu().numpy(), dtype=np.float64)


def starting(passed: WholePass, rows: Sequence[int]) -> torch.Tensor:
    """(W, N) float32 with a 1 at each row.

    Raises:
        SpecError: a row that did not run.
    """
    import torch

    query = next(iter(passed.layers.values())).call.query
    count = query.shape[2]
    wrong = [row for row in rows if not 0 <= row < count]
    if wrong or not len(rows):
        raise SpecError(f"rows {wrong or '(none given)'} do not exist; rows are 0 to {count - 1}")
    start = torch.zeros((len(rows), count), device=query.device)
    start[torch.arange(len(rows)), list(rows)] = 1
    return start


def mean_attention(held: HeldLayer, rows: slice, heads: Sequence[int] | None = None) -> torch.Tensor:
    """(R, K) mean over heads.

    Raises:
        SpecError: a head that does not exist.
    """
    attention = held.attention(rows)
    if heads is None:
        return attention.mean(0)
    if not len(heads) or any(not -len(attention) <= head < len(attention) for head in heads):
        raise SpecError(f"heads {list(heads)} do not exist; there are heads 0 to {len(attention) - 1}")
    return attention[list(heads)].mean(0)


def _left_out(
    passed: WholePass, carried: torch.Tensor, without_ln: NDArray[np.bool_] | None, *, first: bool
) -> dict[int, torch.Tensor]:
    """(N,) bool per layer: columns to leave out; no layer where there are none."""
    import torch

    shape = (len(passed.layers), carried.shape[1])
    if without_ln is not None and (without_ln.shape != shape or without_ln.dtype != np.bool_):
        raise SpecError(f"without_ln must be bool of shape {shape}, got {without_ln.dtype} of {without_ln.shape}")
    if without_ln is None and not first:
        return {}
    columns = np.zeros(shape, dtype=bool) if without_ln is None else without_ln.copy()
    columns[:, 0] |= first
    found = torch.as_tensor(columns, device=carried.device)
    return dict(zip(passed.layers, found, strict=True))


def _mixed(held: HeldLayer, rows: slice, heads: Sequence[int] | None, out: torch.Tensor | None) -> torch.Tensor:
    # Rows of learned sinks add up to less than 1, and those whose only key is left out to nothing.
    mixed = mean_attention(held, rows, heads)
    if out is not None:
        own = mixed.diagonal(rows.start).clone()
        mixed = mixed.masked_fill(out.to(mixed.device), 0)
        mixed.diagonal(rows.start).copy_(own)
    total = mixed.sum(-1, keepdim=True)
    mixed = mixed / total.clamp_min(1e-30)
    mixed.diagonal(rows.start).add_((total[:, 0] <= 0).to(mixed))
    return mixed
