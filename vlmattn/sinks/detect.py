"""Finds the sinks of a trace: by massive activations, or by the attention that tokens receive."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.layout import TokenKind
from vlmattn.sinks.coordinates import SinkCoordinates
from vlmattn.sinks.found import Rule, Sinks
from vlmattn.sinks.massive import phi_of, threshold
from vlmattn.trace import Trace


class _Found(NamedTuple):
    layers: tuple[int, ...]
    is_sink_ln: NDArray[np.bool_]
    score_ln: NDArray[np.float32]
    cut_l: NDArray[np.float32]


def massive_sinks(
    trace: Trace,
    coordinates: SinkCoordinates,
    *,
    tau: float | None = None,
    tau_relative: float | None = None,
    layers: Sequence[int] | None = None,
    notes: tuple[str, ...] = (),
) -> Sinks:
    """Prompt tokens whose phi exceeds a threshold: Kang et al., ICLR 2025; see :func:`vlmattn.sinks.phi_of`.

    Args:
        trace: of a capture with ``hidden=True`` and the ``coordinates`` in ``hidden_coords``; none are needed where a
            calibration found none.
        tau: threshold on phi; tau_relative: the same over the root of the width. Default: that of ``coordinates``.
        layers: numbers; default: all kept layers from ``coordinates.first_layer`` on.

    Raises:
        SpecError: a layer that was not kept, or a threshold that phi can never reach.
        MapError: the residual stream was not kept at the coordinates.
    """
    cut = threshold(coordinates, tau, tau_relative)
    if not coordinates.found:
        none = _nothing(trace, _layers(trace.layers, layers, 0), cut)
        return _sinks(trace, "massive", none, coordinates, (*notes, *coordinates.notes))
    if trace.hidden is None:
        raise MapError("the residual stream was not kept: capture with CaptureSpec(hidden=True, hidden_coords=…)")
    hidden = trace.hidden
    wanted = _layers(hidden.layers, layers, coordinates.first_layer)
    lines = [hidden.layers.index(layer) for layer in wanted]
    phi = phi_of(hidden, coordinates.coordinates)[lines]
    with np.errstate(invalid="ignore"):
        flagged = phi > cut
    found = _Found(wanted, flagged, phi, np.full(len(wanted), cut, dtype=np.float32))
    return _sinks(trace, "massive", found, coordinates, (*notes, *_beside(trace)))


def _beside(trace: Trace) -> tuple[str, ...]:
    if len(trace.layout.latent_positions) and not trace.layout.beside:
        return ("visual sinks of this model are queries of its resampler, which have no place on the picture",)
    if trace.layout.memory:
        return ("pictures lie beside the decoder's tokens and have no residual stream: text sinks only",)
    return ()


def received_sinks(
    trace: Trace, *, alpha: float = 5.0, least_rows: int = 1, layers: Sequence[int] | None = None
) -> Sinks:
    """Prompt tokens that receive, on average over the rows that see them and over heads, more than ``alpha`` / N.

    Yu et al., "Unveiling and Harnessing Hidden Attention Sinks", ICML 2024 (ACT). N is the number of prompt tokens or,
    where pictures are keys beside them, of the kept columns which the rows of a layer see. Unlike there the first token
    is told as well. A token near the end is seen by few rows, among them its own, and one row that looks at itself is
    enough: ``least_rows`` asks for more.

    Args:
        trace: of a capture with ``received=True``; without it, the kept rows count instead of all prompt rows, and the
            notes say so (``columns="all"`` for text tokens as well).
        least_rows: of prompt rows that see a token; fewer: no sink. layers: numbers; default: all kept ones.

    Raises:
        SpecError: ``alpha`` or ``least_rows`` that is none, an ``alpha`` that no token can reach, a layer that was not
            kept. MapError: rows that are composed of two hops.
    """
    check_received(alpha, least_rows)
    if len(trace.layout.latent_positions):
        raise MapError(
            "the rows of this model are composed of two hops, which do not tell what its tokens receive: use "
            "rule='massive'"
        )
    wanted = _layers(trace.layers, layers, 0)
    received, notes = _received(trace)
    received = received[trace.layer_slots(wanted)]
    cuts = _received_cuts(trace, received, alpha)
    late = np.arange(received.shape[1]) > trace.layout.answer_start - least_rows
    with np.errstate(invalid="ignore"):
        flagged = (received > cuts[:, None]) & ~late
    return _sinks(trace, "received", _Found(wanted, flagged, received, cuts), None, notes)


def check_received(alpha: float, least_rows: int) -> None:
    """Raises SpecError for settings of :func:`received_sinks` that are none."""
    whole = isinstance(least_rows, Integral) and least_rows >= 1
    if not isinstance(alpha, Real) or not alpha > 0 or not whole:
        raise SpecError(
            f"alpha must be above 0 and least_rows a whole number, at least 1; got {alpha!r} and {least_rows!r}"
        )


def _received_cuts(trace: Trace, received: NDArray[np.float32], alpha: float) -> NDArray[np.float32]:
    # (L,) alpha over what even attention is shared by.
    counts = np.full(len(received), trace.layout.answer_start)
    if trace.layout.memory:
        counts = np.isfinite(received).sum(axis=1)
    cuts = np.asarray(alpha / np.maximum(counts, 1), dtype=np.float32)
    if (cuts >= 1).all():
        raise SpecError(
            f"no token receives more than all attention, and alpha / N is {cuts.min():.3g}: give an alpha below "
            f"{int(counts.max())}, the number of tokens"
        )
    return cuts


def _received(trace: Trace) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    if trace.received_lhn is not None:
        known = np.isfinite(trace.received_lhn)
        counts = known.sum(axis=1)
        sums = np.where(known, trace.received_lhn, 0).sum(axis=1)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).astype(np.float32), ()
    told = "received attention is that from the kept rows only"
    if not trace.layout.memory:
        told += ": capture with received=True for all prompt rows"
    return attention_received(trace), (told,)


def attention_received(trace: Trace) -> NDArray[np.float32]:
    """(L, N) attention that each prompt token gets from the kept rows that see it, mean over rows and heads.

    NaN for tokens whose columns were not kept, and for those that no kept row sees.
    """
    out = np.full((len(trace.layers), trace.layout.answer_start), np.nan, dtype=np.float32)
    seen = trace.columns[None, :] <= trace.positions[:, None]
    per_row = trace.over_heads(trace.attn_lhqk.astype(np.float32))
    shown = seen[None] if trace.visible_lqk is None else trace.visible_lqk
    shown = np.broadcast_to(shown, per_row.shape) | (per_row > 0)
    counts = shown.sum(axis=1)
    means = np.where(counts > 0, (per_row * shown).sum(axis=1) / np.maximum(counts, 1), np.nan)
    inside = trace.columns < out.shape[1]
    out[:, trace.columns[inside]] = means[:, inside]
    return out


def _layers(kept: tuple[int, ...], wanted: Sequence[int] | None, first: int) -> tuple[int, ...]:
    if wanted is None:
        found = tuple(layer for layer in kept if layer >= first)
        if not found:
            raise SpecError(f"sinks begin at layer {first}, and only layers {list(kept)} were kept")
        return found
    missing = [layer for layer in wanted if layer not in kept]
    if missing or not len(wanted):
        raise SpecError(f"layers {missing or '(none)'} were not kept, so their sinks are not known; kept: {list(kept)}")
    return tuple(int(layer) for layer in wanted)


def _nothing(trace: Trace, layers: tuple[int, ...], cut: float) -> _Found:
    shape = (len(layers), trace.layout.answer_start)
    nan = np.full(shape, np.nan, dtype=np.float32)
    return _Found(layers, np.zeros(shape, dtype=np.bool_), nan, np.full(shape[:1], cut, dtype=np.float32))


def _sinks(
    trace: Trace, rule: Rule, found: _Found, coordinates: SinkCoordinates | None, notes: tuple[str, ...]
) -> Sinks:
    shape = (len(found.layers), trace.layout.answer_start)
    attention = np.full(shape, np.nan, dtype=np.float32)
    shares = {name: np.full((shape[0], len(trace.positions)), np.nan, np.float32) for name in ("visual", "text", "all")}
    every = attention_received(trace)
    for line, layer in enumerate(found.layers):
        if layer in trace.layers:
            slot = trace.layers.index(layer)
            attention[line] = every[slot]
            _fill_shares(shares, line, trace, slot, found.is_sink_ln[line])
    kept = trace.layers if rule == "received" or trace.hidden is None else trace.hidden.layers
    skipped = sorted(set(range(trace.depth)) - set(kept) - set(range(min(found.layers, default=0))))
    if skipped:
        notes = (*notes, f"layers {skipped} were not looked at: not kept, or without attention")
    return Sinks(
        trace.layout, found.layers, rule, found.is_sink_ln, found.score_ln, found.cut_l, attention, shares["visual"],
        shares["text"], shares["all"], trace.positions, coordinates, notes, trace.provenance,
    )  # fmt: skip


def _fill_shares(shares: dict[str, Any], line: int, trace: Trace, slot: int, is_sink: NDArray[np.bool_]) -> None:
    one = (trace.layers[slot],)
    rows = trace.over_heads(trace.attn_lhqk[[slot]].astype(np.float32), one)[0]
    masses = trace.over_heads(trace.mass_lhqs[[slot]], one)[0]
    kinds = trace.layout.kinds[: len(is_sink)]
    visual = np.isin(kinds, (TokenKind.IMAGE, TokenKind.LATENT))
    pictures = [n for n, name in enumerate(trace.segments) if name.startswith("image:")]
    shares["all"][line] = masses[:, pictures].sum(axis=1)
    shares["visual"][line] = _taken(trace, rows, np.flatnonzero(is_sink & visual))
    text = np.flatnonzero(is_sink & ~visual)
    taken = _taken(trace, rows, text)
    if np.isnan(taken).any() and (kinds[text] == TokenKind.BOS).all() and (kinds == TokenKind.BOS).sum() == len(text):
        taken = masses[:, trace.segments.index("bos")]
    shares["text"][line] = taken


def _taken(trace: Trace, rows: NDArray[np.float32], tokens: NDArray[np.int64]) -> NDArray[np.float32]:
    slots = np.flatnonzero(np.isin(trace.columns, tokens))
    if len(slots) < len(tokens):
        return np.full(len(rows), np.nan, dtype=np.float32)
    return np.asarray(rows[:, slots].sum(axis=1))
