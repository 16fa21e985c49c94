"""Panels of raw attention, made from a trace's arrays at one go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.head_preset import HeadPreset
from vlmattn.core.layout import ImageLayout, TokenLayout
from vlmattn.core.provenance import METHODS
from vlmattn.core.videos import Visual
from vlmattn.core.words import Span, pieces
from vlmattn.grid.packing import quantised
from vlmattn.maps.choices import choose_heads, choose_layers, choose_rows, visible_columns
from vlmattn.report.panel import MapView, MarkedBox, MarkedSink, Panel, Piece, ReportWord, cells_of
from vlmattn.sinks import Sinks, with_sinks
from vlmattn.trace import Trace

WHOLE = "whole answer"


def panel_of(
    trace: Trace,
    pictures: Sequence[Visual],
    *,
    title: str = "",
    heads: Sequence[HeadPreset] = (),
    sinks: Sinks | None = None,
    boxes: Sequence[MarkedBox] = (),
    judged: Mapping[int, Mapping[str, Any]] | None = None,
    risk_by: str = "",
) -> Panel:
    """The panel of a trace: raw attention of every word of question and answer, layer by layer.

    Args:
        pictures: the originals. title: default: the model's name.
        heads: presets to choose from besides all heads. sinks: of the same prompt: marked, and can be left out.
        boxes: to draw. judged: ``risk`` and ``verdict`` by the index of the word in :func:`spans_of`. risk_by: what
            they go by.

    Raises:
        MapError: no word has a map; says why.
    """
    spans = spans_of(trace)
    views, notes = [], []
    for preset in (None, *heads):
        try:
            views.append(attention_view(trace, spans, preset))
        except SpecError as error:
            notes.append(str(error))
    if not views:
        raise MapError(f"there is nothing to show: {notes[0]}")
    visual = marked_sinks(sinks, trace.layout)
    if sinks is not None and visual:
        clean = with_sinks(trace, sinks, "drop")
        views += [attention_view(clean, spans, _named(v.heads, heads), "drop") for v in tuple(views)]
    return assembled(
        trace, pictures, spans, views, title=title, method="raw", boxes=boxes, judged=judged, risk_by=risk_by,
        sinks=visual, notes=notes,
    )  # fmt: skip


def assembled(
    trace: Trace,
    pictures: Sequence[Visual],
    spans: Sequence[Span | None],
    views: Sequence[MapView],
    *,
    title: str,
    method: str,
    boxes: Sequence[MarkedBox] = (),
    judged: Mapping[int, Mapping[str, Any]] | None = None,
    risk_by: str = "",
    sinks: tuple[MarkedSink, ...] | None = None,
    notes: Sequence[str] = (),
    why: Sequence[str] | None = None,
) -> Panel:
    """A panel of views that were made already; see :func:`panel_of`. ``why``: of each word, why it has no map."""
    told = why_not(trace, spans) if why is None else why
    pairs = enumerate(zip(spans, told, strict=True))
    words = tuple(_word(trace, number, span, note, (judged or {}).get(number, {})) for number, (span, note) in pairs)
    if all(word.note for word in words):
        raise MapError(f"no word has a map: {words[0].note}")
    made = trace.provenance
    return Panel(
        title=title or made.model or "model",
        model=made.model,
        method=METHODS[method][0],
        unit=METHODS[method][1],
        pictures=tuple(pictures),
        layouts=trace.layout.images,
        question=_text(trace.layout, "question", spans),
        answer=_text(trace.layout, "answer", spans),
        words=words,
        views=tuple(views),
        depth=trace.depth,
        boxes=tuple(boxes),
        sinks=sinks,
        notes=tuple(notes),
        risk_by=risk_by,
        provenance=made.then(f"report of {METHODS[method][0]}", method=method),
    )


# -- words -------------------------------------------------------------------------------------------------------------


def spans_of(trace: Trace) -> tuple[Span | None, ...]:
    """The whole answer (None where it has no text), then the words of the question, then those of the answer."""
    try:
        whole: Span | None = trace.find(None)
    except MapError:
        whole = None
    words = [*trace.words("question"), *trace.words("answer")]
    return (whole, *(word for word in words if any(c.isalnum() for c in word.text)))


def why_not(trace: Trace, spans: Sequence[Span | None]) -> list[str]:
    """Of each word, why it has no map of raw attention on any picture; empty where it has one."""
    layers, _ = choose_layers(trace, None)
    return [_why(trace, span, layers) for span in spans]


def _why(trace: Trace, span: Span | None, layers: Sequence[int]) -> str:
    if span is None:
        return "the answer has no text, so no token looked anywhere for it"
    told = ""
    for image in range(len(trace.layout.images)):
        try:
            choose_rows(trace, span, None, layers, image)
            return ""
        except MapError as error:
            told = told or str(error)
    return told


def _word(trace: Trace, number: int, span: Span | None, note: str, judged: Mapping[str, Any]) -> ReportWord:
    if span is None or number == 0:
        known = None if span is None else _log_probability(trace, span)
        return ReportWord(WHOLE, "all", log_probability=known, note=note)
    return ReportWord(
        span.text,
        span.part,
        span.occurrence,
        span.of,
        _log_probability(trace, span),
        _known(judged.get("risk")),
        judged.get("verdict"),
        note,
    )


def _known(risk: float | None) -> float | None:
    return None if risk is None or not np.isfinite(risk) else float(risk)


def _log_probability(trace: Trace, span: Span) -> float | None:
    if trace.scores is None or span.part != "answer":
        return None
    known = trace.scores.chosen_logp_t
    steps = [t - trace.layout.answer_start for t in span.tokens]
    total = float(np.sum([known[s] if s < len(known) else np.nan for s in steps]))
    return total if np.isfinite(total) else None


def _text(layout: TokenLayout, part: Literal["question", "answer"], spans: Sequence[Span | None]) -> tuple[Piece, ...]:
    """The text of a part in pieces, each with the index of its word; placeholders of pictures left out."""
    mine = [(span.char_span, n) for n, span in enumerate(spans) if n and span is not None and span.part == part]
    found: list[Piece] = []
    for start, end in pieces(layout, part):
        at = start
        for (low, high), number in mine:
            if at <= low and high <= end:
                found += [(layout.text[at:low], None), (layout.text[low:high], number)]
                at = high
        found.append((layout.text[at:end], None))
    return tuple(piece for piece in found if piece[0])


# -- maps --------------------------------------------------------------------------------------------------------------


def attention_view(
    trace: Trace,
    spans: Sequence[Span | None],
    heads: HeadPreset | None = None,
    sinks: Literal["keep", "drop"] = "keep",
) -> MapView:
    """Raw attention of every word in every layer, mean over rows and heads: :func:`vlmattn.maps.raw_attention` of each.

    Rows are those that see the picture in any of the layers, so that the mean over layers is the map of them all.

    Raises:
        SpecError: heads that were not kept.
    """
    layers, _ = choose_layers(trace, None, heads)
    found = choose_heads(trace, layers, heads)
    cells = cell_index(trace)
    count = sum(cells_of(one) for one in trace.layout.images)
    values = np.zeros((len(spans), len(layers), count), dtype=np.float32)
    visible = np.ones(values.shape, dtype=np.bool_)
    visible[:, :, lost_cells(trace.layout.images)] = False
    share = np.full((len(spans), len(layers), len(trace.layout.images)), np.nan, dtype=np.float32)
    for image, (columns, place) in enumerate(cells):
        rows = _row_means(trace, spans, layers, image)
        used = np.flatnonzero(rows.any(axis=0))
        blank = ~rows.any(axis=1)
        for line, (slot, kept) in enumerate(zip(trace.layer_slots(layers), found.slots, strict=True)):
            heads_of = list(kept)
            block = trace.attn_lhqk[slot][heads_of][:, used][..., columns].astype(np.float32).mean(axis=0)
            values[:, line, place] = rows[:, used] @ block
            mass = trace.mass(f"image:{image}")[slot][heads_of][:, used].mean(axis=0)
            share[:, line, image] = np.where(blank, np.nan, rows[:, used] @ mass)
        _hide(trace, spans, layers, image, rows, place, visible)
    weights = tuple(float(len(kept)) if found.joint else 1.0 for kept in found.slots)
    return MapView(
        heads.name if heads is not None else "all",
        sinks,
        heads.source if heads is not None else "",
        tuple(layers),
        weights,
        quantised(values),
        None if visible.all() else visible,
        share,
    )


def cell_index(trace: Trace) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Of every picture, its columns on axis k, and the cell (counted as in :class:`MapView`) of each."""
    layout, found, start = trace.layout, [], 0
    for image, picture in enumerate(layout.images):
        columns = trace.image_columns(image)
        at = trace.columns[columns]
        sizes = [tile.grid_hw[0] * tile.grid_hw[1] for tile in picture.tiles]
        first = start + np.cumsum([0, *sizes])[:-1]
        across = np.array([tile.grid_hw[1] for tile in picture.tiles])
        tile = layout.tile[at]
        found.append((columns, first[tile] + layout.row[at] * across[tile] + layout.col[at]))
        start += sum(sizes)
    return found


def lost_cells(layouts: Sequence[ImageLayout]) -> list[int]:
    """Cells, counted as in :class:`MapView`, that no token stands for."""
    found, start = [], 0
    for tile in (tile for layout in layouts for tile in layout.tiles):
        found += [start + row * tile.grid_hw[1] + col for row, col in tile.lost]
        start += tile.grid_hw[0] * tile.grid_hw[1]
    return found


def _row_means(trace: Trace, spans: Sequence[Span | None], layers: Sequence[int], image: int) -> NDArray[np.float32]:
    """(W, Q) what each row counts in the mean of each word; zeros for a word that has no row on the picture."""
    means = np.zeros((len(spans), len(trace.positions)), dtype=np.float32)
    for number, span in enumerate(spans):
        for slots in _slots(trace, span, layers, image):
            means[number, slots] = 1 / len(slots)
    return means


def _slots(trace: Trace, span: Span | None, layers: Sequence[int], image: int) -> Iterator[NDArray[np.int64]]:
    if span is not None:
        try:
            yield choose_rows(trace, span, None, layers, image).slots
        except MapError:
            return


def _hide(
    trace: Trace,
    spans: Sequence[Span | None],
    layers: Sequence[int],
    image: int,
    rows: NDArray[np.float32],
    place: NDArray[np.int64],
    visible: NDArray[np.bool_],
) -> None:
    """Mark in ``visible`` (W, L, K), in place, the cells of a picture that a word's rows could not attend to."""
    early = trace.columns[trace.image_columns(image)].max() > trace.positions.min()
    for number in range(len(spans)):
        slots = np.flatnonzero(rows[number])
        if not len(slots):
            visible[number][:, place] = False
        elif early or trace.visible_lqk is not None:
            visible[number][:, place] = visible_columns(trace, slots, layers, image).any(axis=1)


def marked_sinks(sinks: Sinks | None, layout: TokenLayout) -> tuple[MarkedSink, ...] | None:
    """The visual sinks that have a cell; None where they were not looked for."""
    if sinks is None:
        return None
    first = np.cumsum([0, *(cells_of(one) for one in layout.images)])
    found = []
    for token in sinks.visual:
        if token.image is None or token.tile is None or token.row is None or token.col is None:
            continue
        tiles = layout.images[token.image].tiles
        before = sum(t.grid_hw[0] * t.grid_hw[1] for t in tiles[: token.tile])
        cell = int(first[token.image]) + before + token.row * tiles[token.tile].grid_hw[1] + token.col
        found.append(MarkedSink(cell, token.layers))
    return tuple(found)


def _named(name: str, heads: Sequence[HeadPreset]) -> HeadPreset | None:
    return next((preset for preset in heads if preset.name == name), None)
