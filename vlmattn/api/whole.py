"""Maps that need every attention row of a run, or gradients: the question and its answer run once more, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.head_preset import HeadPreset
from vlmattn.core.layout import TokenKind

if TYPE_CHECKING:
    from vlmattn.api.run import Run
    from vlmattn.capture.whole import Score, WholePass
    from vlmattn.grid import PatchMap
    from vlmattn.trace import Span

_shared: ContextVar[tuple[Run, dict[Any, WholePass]] | None] = ContextVar("shared passes of a run", default=None)
TARGETS = ("logit", "log_probability")
_COARSE = 6


def rollout_map(run: Run, what: Any, image: int, options: dict[str, Any], sinks: str) -> PatchMap:
    """See :mod:`vlmattn.maps.attention_rollout`; rows of all words are made the first time that one is asked for."""
    from vlmattn.maps.attention_rollout import attention_rollout

    named = {k: options.pop(k) for k in ("start_layer", "residual", "without_first") if k in options}
    heads = _heads(options.pop("heads", None))
    span, rows = _asked(run, what, image, "rollout", sinks, options, drops=True)
    key = ("rollout", sinks, None if heads is None else tuple(heads), *sorted(named.items()))
    if not set(rows) <= set(run.carried.get(key, ())):
        all_rows = sorted({*rows, *_answer_rows(run), *np.flatnonzero(run.trace.layout.kinds == TokenKind.QUESTION)})
        passed = _passed(run, "rollout")
        without = None if sinks == "keep" else _sink_columns(run, passed)
        found = attention_rollout(passed, all_rows, heads=heads, without_ln=without, **named)
        run.carried[key] = dict(zip(all_rows, found, strict=True))
    values = np.mean([run.carried[key][row] for row in rows], axis=0)
    told = ["rollout of attention", *(f"{name}={value}" for name, value in sorted(named.items()))]
    told += ["without the columns of sinks"] * (sinks == "drop")
    return _map(run, values, span, image, "rollout", ", ".join(told), heads, "all layers")


def _sink_columns(run: Run, passed: WholePass) -> NDArray[np.bool_]:
    """(L, N) which tokens are sinks of the run in each layer, text and visual ones."""
    found, everything = run.sinks(), np.arange(len(run.trace.layout))
    return np.stack([found.mask(layer, everything) for layer in passed.layers])


def flow_map(run: Run, what: Any, image: int, options: dict[str, Any], sinks: str) -> PatchMap:
    """See :mod:`vlmattn.maps.attention_flow`; image tokens in blocks where there are many tokens."""
    from vlmattn.maps.attention_flow import MOST_NODES, attention_flow, contracted, grouped

    cells, heads = _cells(options.pop("cells", None)), _heads(options.pop("heads", None))
    span, rows = _asked(run, what, image, "flow", sinks, options)
    layout = run.trace.layout
    count = max(rows) + 1
    side = None if cells == 0 or (cells is None and count <= MOST_NODES) else cells or _COARSE
    places = _blocks(run, side)
    groups = grouped(layout.kinds, places, rows, side)
    capacities = contracted(_passed(run, "flow"), groups, heads=heads)
    at = layout.image_positions[layout.image[layout.image_positions] == image]
    nodes = sorted({int(g) for g in groups[at]})
    flows = np.mean([attention_flow(capacities, int(groups[row]), nodes) for row in rows], axis=0)
    values = np.zeros(len(layout))
    values[at] = flows[np.searchsorted(nodes, groups[at])]
    blocks = "every token a node" if side is None else f"{len(nodes)} blocks of patches, at most {side} a side"
    return _map(run, values, span, image, "flow", f"attention flow, {blocks}", heads, "all layers")


def relevancy_map(run: Run, what: Any, image: int, options: dict[str, Any], sinks: str) -> PatchMap:
    """See :mod:`vlmattn.maps.relevancy`; of several tokens, the sum of their scores, mean over their rows."""
    from vlmattn.maps.relevancy import relevancy

    target, heads = _target(options.pop("target", "logit")), _heads(options.pop("heads", None))
    normalised = options.pop("normalised", False)
    if not isinstance(normalised, bool):
        raise SpecError(f"normalised must be True or False, got {normalised!r}")
    span, rows = _asked(run, what, image, "relevancy", sinks, options)
    passed = _passed(run, "relevancy", rows=rows, of=target)
    values = relevancy(passed, rows, heads=heads, normalised=normalised).mean(axis=0)
    told = f"relevancy for the {_said(target)}" + ", rows over their sums" * normalised
    return _map(run, values, span, image, "relevancy", told, heads, "all layers")


def gradient_map(run: Run, what: Any, image: int, options: dict[str, Any], sinks: str) -> PatchMap:
    """See :func:`vlmattn.maps.relevancy.gradient_rows`; of several tokens, the sum of their scores, mean over rows."""
    from vlmattn.maps.choices import choose_layers
    from vlmattn.maps.gradient import image_columns
    from vlmattn.maps.relevancy import gradient_rows

    target, heads = _target(options.pop("target", "log_probability")), _heads(options.pop("heads", None))
    layers, layers_said = choose_layers(run.trace, options.pop("layers", None))
    span, rows = _asked(run, what, image, "gradient", sinks, options)
    passed = _passed(run, "gradient", rows=rows, of=target, layers=layers)
    layout, found = run.trace.layout, []
    for layer in layers:
        line = gradient_rows(passed, _ran(run, rows), layers=[layer], heads=heads).mean(axis=0)
        full = np.zeros(len(layout))
        full[layout.image_positions] = line[image_columns(passed.layers[layer].site, layout, len(line))]
        found.append(full)
    told = f"attention x positive gradient of the {_said(target)}"
    return _map(run, np.mean(found, axis=0), span, image, "gradient", told, heads, layers_said)


# -- what is asked for -------------------------------------------------------------------------------------------------


def _asked(
    run: Run, what: Any, image: int, method: str, sinks: str, options: dict[str, Any], *, drops: bool = False
) -> tuple[Span, list[int]]:
    """The span and the positions of its rows, all of which see the picture. ``drops``: sinks can be left out."""
    if sinks != "keep" and not (drops and sinks == "drop"):
        raise SpecError(f"method={method!r} has no map with sinks={sinks!r}: leave it out, or take 'raw'")
    span = run.trace.find(what, part=options.pop("part", None), occurrence=options.pop("occurrence", None))
    if not span.tokens:
        raise MapError(f"no token carries {span.text!r}, so no row stands for it: ask for a word")
    explains = method in ("relevancy", "gradient")
    if span.part == "question" and explains:
        raise SpecError(
            f"{method} explains what was written, and {span.text!r} is of the question: take a word of the answer, or "
            "'raw', 'rollout' or 'flow'"
        )
    rows = [t - 1 for t in span.tokens] if span.part == "answer" else list(span.tokens)
    layout = run.trace.layout
    first = int(layout.image_positions[layout.image[layout.image_positions] == image].min())
    if layout.memory == 0 and max(rows) < first:
        raise MapError(f"{span.text!r} stands before picture {image}: ask for a word after the picture")
    return span, rows


def _answer_rows(run: Run) -> list[int]:
    """Rows that predict the tokens of the answer."""
    return [token - 1 for token in run.trace.answer_tokens]


def _ran(run: Run, rows: Sequence[int]) -> list[int]:
    """Rows counted among the tokens that run, without keys beside them."""
    return [row - run.trace.layout.memory for row in rows]


def _heads(heads: Any) -> list[int] | None:
    if isinstance(heads, (str, HeadPreset)):
        name = heads if isinstance(heads, str) else heads.name
        raise SpecError(f"this method takes heads by number, or all of them; got the preset {name!r}")
    return None if heads is None else [int(head) for head in heads]


def _target(target: Any) -> Score:
    if target == "logit":
        return "logit"
    if target == "log_probability":
        return "log_probability"
    raise SpecError(f"target must be one of {', '.join(TARGETS)}; got {target!r}")


def _said(target: str) -> str:
    return target.replace("_", " ")


def _cells(cells: Any) -> int | None:
    """0 to leave every token by itself; None to decide by their number."""
    if cells is None or cells == "all":
        return None if cells is None else 0
    if isinstance(cells, bool) or not isinstance(cells, int) or cells < 1:
        raise SpecError(f"cells must be 'all' or how many blocks a side of a grid has, at least 1; got {cells!r}")
    return cells


def _blocks(run: Run, side: int | None) -> list[tuple[int, int, int, int] | None]:
    """(picture, tile, block row, block column) of image tokens."""
    layout = run.trace.layout
    places: list[tuple[int, int, int, int] | None] = [None] * len(layout)
    for at in layout.image_positions if side else ():
        image, tile = int(layout.image[at]), int(layout.tile[at])
        rows, cols = layout.images[image].tiles[tile].grid_hw
        down, across = -(-rows // (side or 1)), -(-cols // (side or 1))
        places[at] = (image, tile, int(layout.row[at]) // down, int(layout.col[at]) // across)
    return places


# -- the pass ----------------------------------------------------------------------------------------------------------


def _passed(
    run: Run,
    method: str,
    *,
    rows: Sequence[int] = (),
    of: Score | None = None,
    layers: Sequence[int] | None = None,
) -> WholePass:
    _check(run, method)
    shared = _shared.get()
    if shared is None or shared[0] is not run:
        passed = _fresh(run, rows, of, layers)
        return passed if of is None else passed.differentiate()
    key, held = (of, None if layers is None else tuple(layers)), shared[1]
    if key not in held:
        held.clear()
        held[key] = _fresh(run, () if of is None else _answer_rows(run), of, layers)
    weights = [float(row in rows) for row in _answer_rows(run)]
    return held[key] if of is None else held[key].differentiate(weights, again=True)


def _fresh(run: Run, rows: Sequence[int], of: Score | None, layers: Sequence[int] | None) -> WholePass:
    from vlmattn.api.follow import with_answers
    from vlmattn.capture.whole import WholePass

    layout, vlm = run.trace.layout, run.vlm
    ids = layout.input_ids[layout.answer_start :].tolist()
    encoded = vlm.encode([run.pictures], [run.request.items[0][1]], system=run.request.system)
    longer, _ = with_answers(vlm.adapter, encoded, [ids])
    chosen = [int(layout.input_ids[row + 1]) for row in rows]
    with vlm.alone():
        return WholePass(vlm.model, layers).run(longer.inputs, _ran(run, rows), chosen, of)


@contextmanager
def one_pass(run: Run) -> Iterator[None]:
    """Maps of several words that are made inside, of one method and choice of layers, share their forward pass.

    One pass is held at a time, and none afterwards; every thread has its own.
    """
    before = _shared.get()
    token = _shared.set(before if before is not None and before[0] is run else (run, {}))
    try:
        yield
    finally:
        _shared.reset(token)


def _check(run: Run, method: str) -> None:
    """Refuse what the method is not defined for, before anything runs."""
    from vlmattn.capture import model_sites

    if run.request.steering:
        raise SpecError(f"{method} is of the model as it is: ask without steering, or take 'raw'")
    layout, sites = run.trace.layout, model_sites(run.vlm.model)
    if len(layout.latent_positions):
        raise MapError("the picture is seen through a resampler's queries: take the raw or relative map instead")
    if method == "gradient":
        return
    if layout.memory:
        raise MapError(f"{method} is not defined where pictures stand beside the prompt: take 'gradient' or 'raw'")
    without = sites.depth - len(sites.attention)
    if without:
        raise MapError(
            f"{without} of {sites.depth} layers of this model have no attention, and what they carry from token to "
            f"token is not in {method}: take 'gradient' or 'raw'"
        )


def _map(
    run: Run, values: NDArray[np.float64], span: Span, image: int, method: str, told: str, heads: Any, layers: str
) -> PatchMap:
    from vlmattn.grid import PatchMap

    if not np.isfinite(values).all():
        raise MapError(f"{told}: values that are not finite")
    layout = run.trace.layout
    provenance = run.trace.provenance.then(
        f"{told}, of {span.label!r}; prompt and answer in one pass",
        layers=layers,
        heads="all heads" if heads is None else f"heads {', '.join(map(str, heads))}",
        convention="predicting" if span.part == "answer" else "query",
        reduction="mean over heads, mean over rows",
    )
    return PatchMap.from_vector(
        values[layout.image_positions],
        layout,
        picture=image,
        provenance=replace(provenance, method=method),
        label=span.label,
    )


WHOLE_MAKERS: dict[str, Callable[[Run, Any, int, dict[str, Any], str], PatchMap]] = {
    "rollout": rollout_map,
    "flow": flow_map,
    "gradient": gradient_map,
    "relevancy": relevancy_map,
}
"""Methods of this module by name."""
