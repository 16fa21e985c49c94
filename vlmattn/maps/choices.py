"""From what a caller says (numbers or a preset's name) to the layers, heads and rows of one trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.head_preset import HeadPreset
from vlmattn.core.provenance import ranges
from vlmattn.core.words import Part
from vlmattn.maps.presets import HEAD_PRESETS, PRESETS, ROW_PRESETS, LayerPreset
from vlmattn.trace import Span, Trace
from vlmattn.trace.trace import Convention

Layers = None | int | str | Sequence[int]
Heads = None | str | HeadPreset | Sequence[int]
_T = TypeVar("_T")


class Rows(NamedTuple):
    """Rows of a trace that stand for a span: indices on axis q, their convention, and what else is to be told."""

    slots: NDArray[np.int64]
    convention: Convention | str
    notes: tuple[str, ...] = ()


class HeadChoice(NamedTuple):
    """Heads per layer, as indices on axis h; ``joint``: they count as one layer's, each once. ``said``: in words."""

    slots: tuple[tuple[int, ...], ...]
    joint: bool
    said: str


def preset_of(presets: dict[str, _T], name: str, kind: str) -> _T:
    """A preset by name.

    Raises:
        SpecError: lists those there are.
    """
    if name not in presets:
        raise SpecError(f"{kind} preset {name!r} does not exist; there are {', '.join(presets)}")
    return presets[name]


# -- layers ------------------------------------------------------------------------------------------------------------


def choose_layers(trace: Trace, layers: Layers, heads: Heads = None) -> tuple[tuple[int, ...], str]:
    """Layer numbers that a choice means for a trace, and how to say it in provenance.

    Args:
        layers: None for all kept layers, a number, numbers, or a preset's name; negative numbers count from the
            model's last layer. heads: a preset of heads in certain layers, or its name, chooses these.

    Layers that look at no picture (:attr:`Trace.blind`) are left out, and said to be.

    Raises:
        SpecError: no such preset or layer, or a layer asked for by number that looks at no picture.
    """
    preset = _head_preset(heads)
    if preset is not None and preset.pairs:
        layers = _layers_of_heads(trace, preset, layers)
    if layers is None:
        kept, depth = _seeing(trace, trace.layers), trace.depth
        said = f"all {depth} layers" if len(kept) == depth else f"layers {ranges(kept)} of {depth}"
        return kept, said + _left_out(trace, trace.layers)
    if isinstance(layers, str):
        return _preset_layers(trace, preset_of(PRESETS, layers, "layer"))
    numbers = [layers] if isinstance(layers, int) else [int(n) for n in layers]
    chosen = tuple(n + trace.depth if n < 0 else n for n in numbers)
    trace.layer_slots(chosen)
    if set(chosen) & set(trace.blind):
        raise _no_picture(trace, chosen)
    return chosen, f"layers {ranges(chosen)}"


def _seeing(trace: Trace, layers: Sequence[int]) -> tuple[int, ...]:
    chosen = tuple(layer for layer in layers if layer not in trace.blind)
    if not chosen:
        raise _no_picture(trace, layers)
    return chosen


def _left_out(trace: Trace, layers: Sequence[int]) -> str:
    count = len(set(layers) & set(trace.blind))
    return f" ({count} others look at no picture)" if count else ""


def _no_picture(trace: Trace, layers: Sequence[int]) -> SpecError:
    said = f"layers {ranges(sorted(set(layers) & set(trace.blind)))} look at no picture: this model sees it by cross "
    seeing = f"choose among layers {ranges(trace.seeing)}" if trace.seeing else "capture its cross attention layers too"
    return SpecError(f"{said}attention in other layers; {seeing}")


def _layers_of_heads(trace: Trace, preset: HeadPreset, layers: Layers) -> list[int]:
    if layers is not None:
        raise SpecError(f"the heads of preset {preset.name!r} lie in layers of their own: leave layers out")
    if trace.depth != preset.depth:
        raise SpecError(
            f"head preset {preset.name!r} is for a model of {preset.depth} layers ({preset.source}), and this one has "
            f"{trace.depth}: heads cannot be carried over; give numbers"
        )
    return sorted({layer for layer, _ in preset.pairs})


def _preset_layers(trace: Trace, preset: LayerPreset) -> tuple[tuple[int, ...], str]:
    wanted = preset.at_depth(trace.depth)
    chosen = tuple(n for n in wanted if n in trace.layers)
    if not chosen:
        raise SpecError(
            f"preset {preset.name!r} means layers {ranges(wanted)} of {trace.depth} here, none of which was kept; "
            f"kept are {list(trace.layers)}"
        )
    seeing, wanted = _seeing(trace, chosen), tuple(n for n in wanted if n not in trace.blind)
    left_out, chosen = _left_out(trace, chosen), seeing
    said = f"{preset.name}: layers {ranges(chosen)} of {trace.depth}{left_out}"
    if len(chosen) < len(wanted):
        said += f", {len(chosen)} of the {len(wanted)} it means: others were not kept"
    origin = f"{ranges(range(preset.first, preset.last + 1))} of {preset.depth}"
    return chosen, said + (f" ({preset.source}: {origin})" if preset.source else "")


def _head_preset(heads: Heads) -> HeadPreset | None:
    if isinstance(heads, HeadPreset):
        return heads
    return preset_of(HEAD_PRESETS, heads, "head") if isinstance(heads, str) else None


# -- heads -------------------------------------------------------------------------------------------------------------


def choose_heads(trace: Trace, layers: Sequence[int], heads: Heads) -> HeadChoice:
    """Heads of chosen layers.

    Args:
        heads: None for all kept ones, indices used in every layer, a preset, or a published preset's name.

    Raises:
        SpecError: a head that was not kept, or a preset of another model.
    """
    slots = trace.layer_slots(layers)
    preset = _head_preset(heads)
    if preset is not None and preset.pairs:
        return _preset_heads(trace, preset, slots)
    if preset is not None or heads is None:
        kept = [trace.heads[int(s)] for s in slots]
        counts = dict.fromkeys(str(len(k)) for k in kept)
        said = f"{kept[0][0]} over heads" if isinstance(kept[0][0], str) else f"{' or '.join(counts)} heads"
        return HeadChoice(tuple(tuple(range(len(k))) for k in kept), False, said)
    numbers = [int(h) for h in heads]  # type: ignore[union-attr]
    return HeadChoice(tuple(_kept(trace, int(s), numbers) for s in slots), False, f"heads {_listed(numbers)}")


def _preset_heads(trace: Trace, preset: HeadPreset, slots: NDArray[np.int64]) -> HeadChoice:
    by_layer = [[head for layer, head in preset.pairs if layer == trace.layers[int(s)]] for s in slots]
    found = tuple(_kept(trace, int(s), numbers) for s, numbers in zip(slots, by_layer, strict=True))
    pairs = ", ".join(f"{layer}.{head}" for layer, head in preset.pairs)
    return HeadChoice(found, True, f"{preset.name}: {len(preset.pairs)} heads, layer.head {pairs} ({preset.source})")


def _kept(trace: Trace, slot: int, heads: Sequence[int]) -> tuple[int, ...]:
    kept = trace.heads[slot]
    missing = [h for h in heads if h not in kept]
    if missing or not len(heads):
        raise SpecError(f"heads {missing or '(none)'} were not kept in layer {trace.layers[slot]}; kept are {kept}")
    return tuple(kept.index(h) for h in heads)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(n) for n in numbers)


# -- rows --------------------------------------------------------------------------------------------------------------


def choose_span(
    trace: Trace, what: str | int | Span | None, part: Part | None, occurrence: int | None, rows: str | None
) -> Span:
    """The tokens that are asked for, by a word, a phrase, a number, a span, or a preset of rows.

    Raises:
        WordNotFound, SpecError: no such word, token or preset, or a word beside a preset that needs none.
    """
    preset = preset_of(ROW_PRESETS, rows, "row") if rows is not None else None
    if preset is None or preset.rule != "last_prompt":
        span = trace.find(what, part=part, occurrence=occurrence)
        first = preset is not None and preset.rule == "first_token"
        return Span(span.text, span.part, span.char_span, span.tokens[:1], span.occurrence, span.of) if first else span
    if what is not None:
        raise SpecError(f"rows={rows!r} is the last row of the prompt whatever the word: leave out {what!r}")
    return Span("the last prompt row", "answer", (-1, -1), (trace.layout.answer_start,))


def choose_rows(
    trace: Trace,
    span: Span,
    convention: Convention | None,
    layers: Sequence[int],
    image: int,
    preset: str | None = None,
) -> Rows:
    """The rows of a span that can see a picture.

    A row cannot see what comes after it: a word before the picture says nothing of the picture. Where some words
    stand before it and some after, the rows after it are taken, and the notes say how many.

    Raises:
        MapError: the span has no token, or its rows were not kept or cannot see the picture.
    """
    notes = []
    if preset is not None:
        if convention == "query":
            raise SpecError(f"rows={preset!r} takes predicting rows: leave out convention='query'")
        convention = "predicting"
        notes.append(f"rows {preset}: {ROW_PRESETS[preset].note} ({ROW_PRESETS[preset].source})")
    if not span.tokens:
        raise MapError(f"no token carries {span.text!r}, so no row stands for it: ask for a word")
    tokens = trace.read_tokens(span.tokens, convention) or span.tokens
    if len(tokens) < len(span.tokens):
        notes.append("without the last written token, which has no query row")
    slots = trace.rows_of(tokens, convention)
    seeing = visible_columns(trace, slots, layers, image).any(axis=(0, 2))
    if not seeing.any():
        raise _blind(trace, span, slots, image)
    if not seeing.all():
        notes.append(f"{int(seeing.sum())} of {len(slots)} rows: the others cannot see picture {image}")
    said = " and ".join(sorted({trace.convention_of(t, convention) for t in tokens}))
    return Rows(slots[seeing], said, tuple(notes))


def visible_columns(trace: Trace, slots: NDArray[np.int64], layers: Sequence[int], image: int) -> NDArray[np.bool_]:
    """(L, Q, K) bool: which image tokens of a picture each row can see: those before it, inside the layer's window."""
    columns, lines = trace.image_columns(image), trace.layer_slots(layers)
    before = trace.columns[columns][None, :] <= trace.positions[slots][:, None]
    seen = np.broadcast_to(before, (len(lines), *before.shape))
    if not before.all():
        # Models that read the prompt in both directions give what comes later a weight.
        seen = seen | (trace.attn_lhqk[lines][:, :, slots][..., columns] > 0).any(axis=1)
    if trace.visible_lqk is not None:
        seen = seen & trace.visible_lqk[lines][:, slots][..., columns]
    return np.asarray(seen)


def _blind(trace: Trace, span: Span, slots: NDArray[np.int64], image: int) -> MapError:
    first = int(trace.columns[trace.image_columns(image)].min())
    if (trace.positions[slots] < first).all():
        return MapError(
            f"{span.text!r} stands before picture {image}, so the model read it without having seen that picture and "
            "there is nothing to draw: ask for a word after the picture, or put the picture first"
        )
    return MapError(
        "the whole picture is hidden from these rows and layers: it lies outside the attention window, or the model "
        "shows these words another picture. Choose other layers or words, or another image="
    )
