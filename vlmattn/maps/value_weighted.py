"""Attention weighted with value norms: how much each patch could write, not only how much it was looked at.

Kobayashi et al., "Attention is Not Only a Weight", EMNLP 2020: the contribution of token *j* is α_j · ||f(x_j)|| with
f(x) = (x W_V + b_V) W_O per head. With ``value_norms="value"`` the projection W_O is left out.
"""

from __future__ import annotations

import numpy as np

from vlmattn.core.errors import MapError
from vlmattn.core.words import Part
from vlmattn.grid import PatchMap
from vlmattn.maps.choices import Heads, Layers, choose_heads, choose_layers, choose_rows, choose_span
from vlmattn.maps.raw import Over, attention_lines, reduced
from vlmattn.trace import Span, Trace
from vlmattn.trace.trace import Convention


def value_weighted(
    trace: Trace,
    what: str | int | Span | None = None,
    *,
    part: Part | None = None,
    occurrence: int | None = None,
    rows: str | None = None,
    layers: Layers = None,
    heads: Heads = None,
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
    span = choose_span(trace, what, part, occurrence, rows)
    chosen, layers_said = choose_layers(trace, layers, heads)
    found = choose_heads(trace, chosen, heads)
    lines = choose_rows(trace, span, convention, chosen, image, rows)
    slots, columns = trace.layer_slots(chosen), trace.image_columns(image)
    names = [[trace.heads[int(s)][i] for i in kept] for s, kept in zip(slots, found.slots, strict=True)]
    norms = [trace.value_norm_lhk[s][n][:, None, columns].astype(np.float32) for s, n in zip(slots, names, strict=True)]
    attention = attention_lines(trace, chosen, found, lines.slots, image)
    return reduced(
        trace, [a * n for a, n in zip(attention, norms, strict=True)], found, span, image, lines, chosen,
        over=(over_heads, over_rows, over_layers), layers_said=layers_said, step="value-weighted attention",
    )  # fmt: skip
