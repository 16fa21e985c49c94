"""What sinks do to a layer: the attention they take, how small their values are, and what is left to mix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError
from vlmattn.core.layout import TokenKind
from vlmattn.sinks.found import Sinks
from vlmattn.sinks.removal import check_prompt
from vlmattn.trace import Trace

Group = Literal["first", "text", "visual"]


@dataclass(frozen=True)
class SinkRole:
    """One group of sinks in one layer; means over kept rows and heads, of tokens that some kept row can see there.

    Attributes:
        layer: its number. group: ``first`` (the first token, sink or not), ``text`` (other text sinks) or ``visual``.
        tokens: how many. attention: share of a row that they take, together.
        value_ratio: mean norm of their values over the median norm of all tokens that are no sinks; far below 1 for a
            sink that attention goes to in order to change little (Gu et al., ICLR 2025; Barbero et al., 2025). NaN
            where there are no tokens of one kind or the other.
        contribution: their part of the sum of attention times value norm over all prompt tokens (Kobayashi et al.,
            EMNLP 2020): what they really write.
        mixing: what neither any sink nor the row's own token nor the first one contributes: what the row mixes in.
    """

    layer: int
    group: Group
    tokens: int
    attention: float
    value_ratio: float
    contribution: float
    mixing: float


def sink_roles(trace: Trace, sinks: Sinks) -> tuple[SinkRole, ...]:
    """The role of the first token, of text sinks and of visual sinks in every layer.

    Args:
        trace: of a capture with ``columns="all"``, ``value_norms`` and all heads kept (no ``reduce``).

    Raises:
        MapError: columns of text tokens or value norms were not kept, heads were made one, sinks of another prompt, or
            rows that are composed of two hops.
    """
    check_prompt(trace, sinks)
    if trace.value_norm_lhk is None or trace.value_norm_lhk.shape[:2] != trace.attn_lhqk.shape[:2]:
        raise MapError("roles of sinks need every head's value norms: capture with value_norms='projected', no reduce=")
    if len(trace.columns) < trace.layout.answer_start - trace.layout.memory:
        raise MapError("roles of sinks need the columns of text tokens as well: capture with columns='all'")
    out: list[SinkRole] = []
    for layer in (one for one in sinks.layers if one in trace.layers):
        out += _roles_in(trace, sinks, layer)
    return tuple(out)


def _roles_in(trace: Trace, sinks: Sinks, layer: int) -> list[SinkRole]:
    slot = trace.layers.index(layer)
    heads = len(trace.heads[slot])
    rows = trace.attn_lhqk[slot, :heads].astype(np.float64)
    norms = np.asarray(trace.value_norm_lhk, dtype=np.float64)[slot, :heads]
    written = rows * norms[:, None]
    seen = _seen(trace, slot)
    hit = sinks.mask(layer, trace.columns) & seen
    first = (trace.columns == trace.layout.memory) & seen
    visual = trace.layout.kinds[trace.columns] == TokenKind.IMAGE
    groups: dict[Group, NDArray[np.bool_]] = {"first": first, "text": hit & ~visual & ~first, "visual": hit & visual}
    own = trace.columns[None, :] == trace.positions[:, None]
    mixed = np.where(own | (hit | first)[None], 0, written).sum(-1)
    total = np.maximum(written.sum(-1), 1e-30)
    mixing, others = float((mixed / total).mean()), norms[:, seen & ~(hit | first)]
    return [
        SinkRole(
            layer, name, int(mask.sum()), float(rows[..., mask].sum(-1).mean()), _ratio(norms[:, mask], others),
            float((written[..., mask].sum(-1) / total).mean()), mixing,
        )
        for name, mask in groups.items()
    ]  # fmt: skip


def _seen(trace: Trace, slot: int) -> NDArray[np.bool_]:
    # (K,) columns that are keys of the layer, such as pictures beside the tokens or these, and in reach of a kept row.
    if trace.visible_lqk is None:
        return np.ones(len(trace.columns), dtype=np.bool_)
    return np.asarray(trace.visible_lqk[slot].any(axis=0))


def _ratio(ours: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    # (H, K) norms of values.
    if not ours.shape[1] or not others.shape[1]:
        return float("nan")
    return float((ours.mean(axis=1) / np.maximum(np.median(others, axis=1), 1e-30)).mean())
