"""Raw attention: what the softmax gave to each image token, averaged over what is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.core.layout import TokenKind
from vlmattn.core.words import Part
from vlmattn.grid import PatchMap
from vlmattn.maps.choices import (
    HeadChoice,
    Heads,
    Layers,
    Rows,
    choose_heads,
    choose_layers,
    choose_rows,
    choose_span,
    visible_columns,
)
from vlmattn.trace import Span, Trace
from vlmattn.trace.trace import Convention

Over = Literal["mean", "max"]
_REDUCE: dict[str, Callable[..., NDArray[np.float32]]] = {"mean": np.mean, "max": np.max}


def raw_attention(
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
    """Attention from a word, a phrase, an answer token or the whole answer to the patches of a picture.

    Args:
        what: a word or phrase, the number of an answer token, a span, or None for the whole answer.
        rows: None for the rows of ``what``, or the name of one of :data:`vlmattn.maps.ROW_PRESETS`.
        layers: None for all kept ones, numbers, or the name of a preset; negative numbers count from the model's last.
        heads: indices, or the name of a preset; None for all kept ones.
        convention: which row stands for a token; see :meth:`Trace.convention_of`.
        over_rows, over_heads, over_layers: how several are made one; heads first, then rows, then layers.

    Returns:
        Values from 0 to 1, not renormalised over the picture. Rows that cannot see the picture, because their words
        stand before it, are not averaged; patches that no row could see are marked in ``visible``.

    Raises:
        WordNotFound, SpecError: no such word, token, layer, head, preset or picture.
        MapError: the rows or columns were not kept, or the picture comes later or is out of the attention window.
    """
    span = choose_span(trace, what, part, occurrence, rows)
    chosen, layers_said = choose_layers(trace, layers, heads)
    found = choose_heads(trace, chosen, heads)
    lines = choose_rows(trace, span, convention, chosen, image, rows)
    return reduced(
        trace, attention_lines(trace, chosen, found, lines.slots, image), found, span, image, lines, chosen,
        over=(over_heads, over_rows, over_layers), layers_said=layers_said, step="raw attention",
    )  # fmt: skip


def attention_lines(
    trace: Trace, layers: Sequence[int], heads: HeadChoice, rows: NDArray[np.int64], image: int
) -> list[NDArray[np.float32]]:
    """Attention (H, Q, K) float32 of the chosen heads of each chosen layer, rows Q on one picture."""
    slots, columns = trace.layer_slots(layers), trace.image_columns(image)
    block = trace.attn_lhqk[slots][:, :, rows][..., columns].astype(np.float32)
    return [line[list(kept)] for line, kept in zip(block, heads.slots, strict=True)]


def heads_made_one(lines: Sequence[NDArray[np.float32]], heads: HeadChoice, how: Over) -> NDArray[np.float32]:
    """(L, …) of one (H, …) per layer, which need not have equal numbers of heads; (1, …) of heads chosen one by one."""
    reduce = _REDUCE[how]
    return reduce(np.concatenate(lines), axis=0)[None] if heads.joint else np.stack([reduce(x, axis=0) for x in lines])


def reduced(
    trace: Trace,
    lines: Sequence[NDArray[np.float32]],
    heads: HeadChoice,
    span: Span,
    image: int,
    rows: Rows,
    layers: Sequence[int],
    *,
    over: tuple[Over, Over, Over],
    layers_said: str,
    step: str,
) -> PatchMap:
    """Values (H, Q, K) of each layer as one map; see :func:`raw_attention`."""
    for name, how in zip(("over_heads", "over_rows", "over_layers"), over, strict=True):
        if how not in _REDUCE:
            raise SpecError(f"{name} must be 'mean' or 'max', got {how!r}")
    vector = _REDUCE[over[2]](_REDUCE[over[1]](heads_made_one(lines, heads, over[0]), axis=1), axis=0)
    layout = trace.layout
    positions = layout.image_positions
    mine = layout.image[positions] == image
    full = np.zeros(len(positions), dtype=np.float32)
    full[mine] = vector
    reduction = f"{over[0]} over heads, {over[1]} over rows, {over[2]} over layers"
    told = "; ".join((f"{step} of {span.label!r}", *rows.notes))
    provenance = trace.provenance.then(
        told, layers=layers_said, heads=heads.said, convention=rows.convention, reduction=reduction
    )
    return PatchMap.from_vector(
        full,
        layout,
        picture=image,
        provenance=provenance,
        label=span.label,
        visible=_visible(trace, rows.slots, layers, image),
    )


def _visible(trace: Trace, rows: NDArray[np.int64], layers: Sequence[int], image: int) -> NDArray[np.bool_] | None:
    seen = visible_columns(trace, rows, layers, image).any(axis=(0, 1))
    if seen.all():
        return None
    layout = trace.layout
    positions = np.flatnonzero(layout.kinds == TokenKind.IMAGE)
    full = np.ones(len(positions), dtype=np.bool_)
    full[layout.image[positions] == image] = seen
    return full
