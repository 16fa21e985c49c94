"""Panels of a report, made of a run: what has to run once more for them, and maps by methods besides raw attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.api.checks import METHOD_OPTIONS, map_options
from vlmattn.api.own_heads import own_heads
from vlmattn.api.whole import one_pass
from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.head_preset import HeadPreset
from vlmattn.grid.packing import quantised
from vlmattn.report import MapView, Panel, panel_of
from vlmattn.report.from_trace import assembled, lost_cells, marked_sinks, spans_of
from vlmattn.report.panel import cells_of, marked_boxes

if TYPE_CHECKING:
    from vlmattn.api.detected import Judge
    from vlmattn.api.run import Run
    from vlmattn.grid import PatchMap
    from vlmattn.sinks import Sinks
    from vlmattn.trace import Span

_STATES = "logit_lens"


def panels_of_run(
    run: Run,
    *,
    methods: Sequence[str] | str = ("raw",),
    heads: Sequence[str | HeadPreset] | None = None,
    sinks: bool | None = None,
    risk: Judge | bool = False,
    test: bool = False,
    boxes: Sequence[Any] = (),
    title: str = "",
) -> list[Panel]:
    """See :meth:`vlmattn.Run.panels`."""
    chosen = [methods] if isinstance(methods, str) else list(methods)
    if not chosen:
        raise SpecError("a report needs at least one method")
    for method in chosen:
        map_options(run.trace, None, method, {})
    presets, marked = _presets(run, heads), marked_boxes(boxes)
    spans = spans_of(run.trace)
    judged, told = _judged(run, spans, risk, test)
    found = _sinks(run, sinks)
    steered = " + ".join(type(one).__name__ for change in run.request.steering for one in _parts(change))
    name = title or " + ".join(part for part in (run.vlm.name, steered) if part)
    common: dict[str, Any] = {"title": name, "boxes": marked, "judged": judged, "risk_by": told}
    return [
        panel_of(run.trace, run.pictures, heads=presets, sinks=found, **common)
        if method == "raw"
        else _other(run, method, spans, found, common)
        for method in chosen
    ]


def _parts(change: Any) -> Sequence[Any]:
    return list(change.parts()) if hasattr(change, "parts") else [change]


def _presets(run: Run, heads: Sequence[str | HeadPreset] | None) -> list[HeadPreset]:
    """Presets besides all heads: the model's own, unless it is said which."""
    from vlmattn.maps import HEAD_PRESETS

    asked = list(run.vlm.known_heads().values()) if heads is None else list(heads)
    found = []
    for one in asked:
        preset = own_heads(run.vlm, one)
        preset = HEAD_PRESETS[preset] if isinstance(preset, str) else preset
        if not isinstance(preset, HeadPreset):
            raise SpecError(f"heads of a report are presets or their names, got {one!r}")
        found += [preset] if preset.pairs else []
    return found


def _sinks(run: Run, asked: bool | None) -> Sinks | None:
    """Sinks to mark: those that are known already, unless it is said to look for them or not to."""
    if asked is False:
        return None
    return run.sinks() if asked else run.known_sinks


def _judged(
    run: Run, spans: Sequence[Span | None], risk: Judge | bool, test: bool
) -> tuple[dict[int, dict[str, Any]], str]:
    """Risk and verdict by the index of a word, and what they go by; of a check that was made before, if none asked."""
    if risk is not False or test:
        found = run.grounding(risk=risk, test=test)
        at = [n for n, span in enumerate(spans) if n and span is not None and span.part == "answer"]
        told = [text for text in (found[0].calibration, found[0].threshold) if text] if found else []
        pairs = zip(at, found, strict=True)
        return {n: {"risk": one.risk, "verdict": one.verdict} for n, one in pairs}, "; ".join(told)
    if run.checked is None:
        return {}, ""
    held: dict[int, dict[str, Any]] = {}
    for one in run.checked.words:
        for n, span in enumerate(spans):
            if n and span is not None and span.part == "answer" and set(span.tokens) & set(one.span.tokens):
                held[n] = {"risk": one.risk, "verdict": "unsupported" if one.unsupported and one.risk is None else None}
    return held, run.checked.calibration


# -- other methods -----------------------------------------------------------------------------------------------------


def _other(
    run: Run, method: str, spans: Sequence[Span | None], sinks: Sinks | None, common: Mapping[str, Any]
) -> Panel:
    """The panel of a method that makes one map at a time."""
    layers = _layers_for(run, method)
    with one_pass(run):
        made = [_maps(run, method, span, number == 0, layers) for number, span in enumerate(spans)]
    why = ["" if isinstance(one, list) else one for one in made]
    shape = (len(spans), max(len(layers), 1), sum(cells_of(one) for one in run.trace.layout.images))
    values, visible = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.bool_)
    for number, one in enumerate(made):
        for line, maps in enumerate(one if isinstance(one, list) else ()):
            values[number, line], visible[number, line] = _flat(run, maps)
    visible[:, :, lost_cells(run.trace.layout.images)] = False
    share = _shares(run, spans, layers)
    seen = None if visible.all() else visible
    view = MapView("all", "keep", "", layers, (1.0,) * shape[1], quantised(values), seen, share)
    marked = marked_sinks(sinks, run.trace.layout)
    return assembled(run.trace, run.pictures, spans, [view], method=method, sinks=marked, why=why, **common)


def _layers_for(run: Run, method: str) -> tuple[int, ...]:
    """The layers that a method has maps of; none where it has one map for all, or counts states."""
    from vlmattn.maps.choices import choose_layers

    if method == _STATES or "layers" not in METHOD_OPTIONS.get(method, ("layers",)):
        return ()
    return choose_layers(run.trace, None)[0]


def _maps(
    run: Run, method: str, span: Span | None, whole: bool, layers: Sequence[int]
) -> list[list[PatchMap | None]] | str:
    """The maps of a word, line by line and picture by picture; why there are none, where there are none."""
    if span is None:
        return "the answer has no text, so no token looked anywhere for it"
    what = None if whole else span
    lines: list[dict[str, Any]] = [{"layers": [layer]} for layer in layers] or [{}]
    found, told = [], ""
    for line in lines:
        maps: list[PatchMap | None] = []
        for image in range(len(run.pictures)):
            try:
                maps.append(run.map(what, method=method, image=image, **line).patch_map)
            except MapError as error:
                maps.append(None)
                told = told or str(error)
        found.append(maps)
    return found if any(one is not None for maps in found for one in maps) else told


def _flat(run: Run, maps: Sequence[PatchMap | None]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(K,) values of all pictures, and which cells were visible."""
    values, visible = [], []
    for layout, one in zip(run.trace.layout.images, maps, strict=True):
        for index, tile in enumerate(layout.tiles):
            values.append(np.zeros(tile.grid_hw, np.float32) if one is None else one.values[index])
            seen = np.zeros(tile.grid_hw, np.bool_) if one is None else one.visible_cells()[index]
            visible.append(seen)
    return (
        np.concatenate([np.asarray(v, dtype=np.float32).ravel() for v in values]),
        np.concatenate([v.ravel() for v in visible]),
    )


def _shares(run: Run, spans: Sequence[Span | None], layers: Sequence[int]) -> NDArray[np.float32]:
    """(W, L, P) raw attention on the pictures, of all heads; the mean over layers where the method has none."""
    from vlmattn.report.from_trace import attention_view

    try:
        raw = attention_view(run.trace, spans)
    except (MapError, SpecError):
        return np.full((len(spans), max(len(layers), 1), len(run.pictures)), np.nan, dtype=np.float32)
    return raw.share if layers else raw.share.mean(axis=1, keepdims=True)
