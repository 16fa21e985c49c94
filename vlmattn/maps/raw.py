"""Raw attention: what the softmax gave to each image token, averaged over what is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.layout import TokenKind
from vlmattn.core.words import Part
from vlmattn.grid import PatchMap
from vlmattn.maps.presets import Layers, choose_layers
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
    layers: Layers = None,
    heads: Sequence[int] | None = None,
    image: int = 0,
    convention: Convention | None = None,
    over_rows: Over = "mean",
    over_heads: Over = "mean",
    over_layers: Over = "mean",
) -> PatchMap:
    """Attention from a word, a phrase, an answer token or the whole answer to the patches of a picture.

    Args:
        what: a word or phrase, the number of an answer token, a span, or None for the whole answer.
        layers: None for all kept ones, numbers, or the name of a preset. heads: indices; None for all kept ones.
        convention: which row stands for a token; see :meth:`Trace.rows_of`.
        over_rows, over_heads, over_layers: how several are made one; heads first, then rows, then layers.

    Returns:
        Values from 0 to 1, not renormalised over the picture.

    Raises:
        WordNotFound, SpecError: no such word, token, layer, head or picture.
        MapError: the rows or columns were not kept, or the picture is out of the attention window.
    """
    span = trace.find(what, part=part, occurrence=occurrence)
    rows, said = select_rows(trace, span, convention)
    chosen, layers_said = choose_layers(trace, layers)
    block, heads_said = select_heads(trace, chosen, heads, rows, image)
    return reduced(
        trace, block, span, image, rows, chosen,
        over=(over_heads, over_rows, over_layers), said=(layers_said, heads_said, said), step="raw attention",
    )  # fmt: skip


def select_rows(trace: Trace, span: Span, convention: Convention | None) -> tuple[NDArray[np.int64], str]:
    """Row indices of a span, and the convention in words."""
    said = {trace.convention_of(t, convention) for t in span.tokens}
    return trace.rows_of(span.tokens, convention), " and ".join(sorted(said))


def select_heads(
    trace: Trace, layers: Sequence[int], heads: Sequence[int] | None, rows: NDArray[np.int64], image: int
) -> tuple[NDArray[np.float32], str]:
    """Attention (L, H, Q, K) float32 of chosen layers, heads and rows on one picture.

    Raises:
        SpecError: a head that was not kept.
    """
    slots, columns = trace.layer_slots(layers), trace.image_columns(image)
    block = trace.attn_lhqk[slots][:, :, rows][..., columns].astype(np.float32)
    if heads is None:
        count = block.shape[1]
        kept = trace.heads[int(slots[0])]
        return block, str(kept[0]) + " over heads" if isinstance(kept[0], str) else f"{count} heads"
    lines = []
    for line, slot in zip(block, slots, strict=True):
        kept = trace.heads[int(slot)]
        missing = [h for h in heads if h not in kept]
        if missing or not len(heads):
            raise SpecError(
                f"heads {missing or '(none)'} were not kept in layer {trace.layers[int(slot)]}; kept are {kept}"
            )
        lines.append(line[[kept.index(h) for h in heads]])
    return np.stack(lines), f"heads {', '.join(str(h) for h in heads)}"


def reduced(
    trace: Trace,
    block: NDArray[np.float32],
    span: Span,
    image: int,
    rows: NDArray[np.int64],
    layers: Sequence[int],
    *,
    over: tuple[Over, Over, Over],
    said: tuple[str, str, str],
    step: str,
) -> PatchMap:
    """(L, H, Q, K) values as one map; see :func:`raw_attention`."""
    for name, how in zip(("over_heads", "over_rows", "over_layers"), over, strict=True):
        if how not in _REDUCE:
            raise SpecError(f"{name} must be 'mean' or 'max', got {how!r}")
    vector = _REDUCE[over[2]](_REDUCE[over[1]](_REDUCE[over[0]](block, axis=1), axis=1), axis=0)
    layout = trace.layout
    positions = layout.image_positions
    mine = layout.image[positions] == image
    full = np.zeros(len(positions), dtype=np.float32)
    full[mine] = vector
    reduction = f"{over[0]} over heads, {over[1]} over rows, {over[2]} over layers"
    provenance = trace.provenance.then(
        f"{step} of {span.label!r}", layers=said[0], heads=said[1], convention=said[2], reduction=reduction
    )
    return PatchMap.from_vector(
        full,
        layout,
        picture=image,
        provenance=provenance,
        label=span.label,
        visible=_visible(trace, rows, layers, image),
    )


def _visible(trace: Trace, rows: NDArray[np.int64], layers: Sequence[int], image: int) -> NDArray[np.bool_] | None:
    if trace.visible_lqk is None:
        return None
    columns = trace.image_columns(image)
    seen = trace.visible_lqk[trace.layer_slots(layers)][:, rows][..., columns].any(axis=(0, 1))
    if seen.all():
        return None
    if not seen.any():
        raise MapError(
            "the whole picture lies outside the attention window of these rows and layers: choose other layers"
        )
    layout = trace.layout
    positions = np.flatnonzero(layout.kinds == TokenKind.IMAGE)
    full = np.ones(len(positions), dtype=np.bool_)
    full[layout.image[positions] == image] = seen
    return full
