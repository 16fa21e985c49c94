"""Attention weighted with value norms: how much each patch could write, not only how much it was looked at.

Kobayashi et al., "Attention is Not Only a Weight", EMNLP 2020: the contribution of token *j* is α_j · ||f(x_j)|| with
f(x) = (x W_V + b_V) W_O per head. With ``value_norms="value"`` the projection W_O is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmattn.core.errors import MapError
from vlmattn.core.words import Part
from vlmattn.grid import PatchMap
from vlmattn.maps.presets import Layers, choose_layers
from vlmattn.maps.raw import Over, reduced, select_heads, select_rows
from vlmattn.trace import Span, Trace
from vlmattn.trace.trace import Convention


def value_weighted(
    trace: Trace,
    what: str | int | Span | None = None,
    *,
    part: Part | None = None,
    occurrence: int | None = None,
    layers: Layers = None,
    heads: Sequence[int] | None = None,
    image: int = 0,
    convention: Convention | None = None,
    over_rows: Over = "mean",
    over_heads: Over = "mean",
    over_layers: Over = "mean",
) -> PatchMap:
    """Attention times the norm of what each patch would write; arguments as in :func:`raw_attention`.

    Returns:
        Values >= 0, in units of the value norm.

    Raises:
        MapError: no value norms were kept, or the kept heads were already reduced.
    """
    if trace.value_norm_lhk is None:
        raise MapError("no value norms were kept: capture with CaptureSpec(value_norms='projected')")
    if any(isinstance(h, str) for h in trace.heads[0]):
        raise MapError(
            "value norms weigh single heads, but heads were reduced while capturing: capture with reduce=None"
        )
    span = trace.find(what, part=part, occurrence=occurrence)
    rows, said = select_rows(trace, span, convention)
    chosen, layers_said = choose_layers(trace, layers)
    block, heads_said = select_heads(trace, chosen, heads, rows, image)
    slots, columns = trace.layer_slots(chosen), trace.image_columns(image)
    names = [list(heads) if heads is not None else [int(h) for h in trace.heads[int(s)]] for s in slots]
    norms = np.stack([trace.value_norm_lhk[s][n][:, columns] for s, n in zip(slots, names, strict=True)])
    return reduced(
        trace, block * norms[:, :, None, :].astype(np.float32), span, image, rows, chosen,
        over=(over_heads, over_rows, over_layers), said=(layers_said, heads_said, said),
        step="value-weighted attention",
    )  # fmt: skip
