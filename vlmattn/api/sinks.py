"""Sinks of a run, and the calibration of a model: further passes where what is needed was not kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from vlmattn.api.checks import whole_numbers
from vlmattn.api.request import Request
from vlmattn.capture import CaptureSpec, model_sites
from vlmattn.core.errors import SpecError, UnsupportedModel
from vlmattn.sinks import (
    Observation,
    Rules,
    SinkCoordinates,
    SinkRole,
    Sinks,
    attention_received,
    calibrated,
    candidates,
    massive_sinks,
    published_coordinates,
    received_sinks,
    sink_roles,
    threshold,
    with_sinks,
)
from vlmattn.sinks.detect import check_received
from vlmattn.sinks.removal import KEEPS, check_prompt
from vlmattn.trace import Trace

if TYPE_CHECKING:
    from vlmattn.api.run import Run
    from vlmattn.api.vlm import Vlm

Rule = Literal["massive", "received"]
_PROMPTS, _FIND, _TOP = 12, 4, 8
_ONLY: dict[str, tuple[str, ...]] = {
    "massive": ("tau", "tau_relative", "coordinates", "layers"),
    "received": ("alpha", "least_rows", "layers"),
}


def calibrate(
    vlm: Vlm, items: Sequence[tuple[Any, Any]] | None = None, *, rules: Rules | None = None
) -> SinkCoordinates:
    """See :meth:`vlmattn.Vlm.calibrate_sinks`."""
    chosen = list(items) if items is not None else _own_prompts()
    find = min(_FIND, len(chosen) // 2)
    if find < 1:
        raise SpecError(f"a calibration needs at least 2 prompts, one to find and one to check; got {len(chosen)}")
    first = [_observed(vlm, item, CaptureSpec(**_spec(hidden_top=_TOP))) for item in chosen[:find]]
    wanted = candidates(first, rules)
    spec = CaptureSpec(**_spec(hidden_coords=wanted, hidden_top=1))
    held_out = [_observed(vlm, item, spec) for item in chosen[find:]]
    found = calibrated(held_out, wanted, model=vlm.name, rules=rules)
    note = _norm_note(vlm)
    return replace(found, notes=(*found.notes, note)) if note else found


def _own_prompts() -> list[tuple[Any, str]]:
    from vlmattn.scene import split_item

    scenes = [split_item("train", 0, index) for index in range(_PROMPTS)]
    return [(scene.image, questions[n % len(questions)].text) for n, (scene, questions) in enumerate(scenes)]


def _spec(**changes: Any) -> dict[str, Any]:
    common = {"rows": ("after_image", "last"), "columns": "all", "reduce": "mean", "dtype": "float32"}
    return common | {"hidden": True, "top_k": 0} | changes


def _observed(vlm: Vlm, item: tuple[Any, Any], spec: CaptureSpec) -> Observation:
    layout = vlm.plan(*item)[0]
    if layout.answer_start - layout.memory < 4:
        raise UnsupportedModel(
            f"the decoder of {vlm.name!r} reads {layout.answer_start - layout.memory} tokens of a prompt: no token can "
            "stand out among them, so it has no sinks to calibrate"
        )
    if len(layout.latent_positions):
        spec = replace(spec, columns="image")
    trace = vlm.run(Request((item,), capture=spec, max_new_tokens=1))[0].trace
    if trace.hidden is None:
        raise UnsupportedModel(f"{vlm.name!r} has no residual stream that can be seen: use rule='received'")
    hidden = trace.hidden
    slots = [trace.layers.index(layer) for layer in hidden.layers if layer in trace.layers]
    whole = len(slots) == len(hidden.layers) and not len(layout.latent_positions)
    return Observation(hidden, layout.memory, attention_received(trace)[slots] if whole else None)


def known_sinks(vlm: Vlm) -> SinkCoordinates:
    """See :meth:`vlmattn.Vlm.known_sinks`."""
    if vlm.sink_coordinates is None:
        depth = model_sites(vlm.model).depth
        vlm.sink_coordinates = published_coordinates(vlm.name, _width(vlm), depth) or calibrate(vlm)
    return vlm.sink_coordinates


def _width(vlm: Vlm) -> int | None:
    return model_sites(vlm.model).width


def _norm_note(vlm: Vlm) -> str:
    blocks = model_sites(vlm.model).blocks
    names = {type(m).__name__ for _, block in blocks[:1] for m in block.children()}
    norms = sorted(n for n in names if "norm" in n.casefold())
    if any("rmsnorm" in n.casefold() for n in norms):
        return ""
    return (
        f"the decoder's layers begin with {' and '.join(norms) or 'no norm'}, not RMSNorm: phi is x over its RMS as "
        "published, which is not what the layer reads"
    )


# -- of a run ----------------------------------------------------------------------------------------------------------


def sinks_of(run: Run, rule: str, options: dict[str, Any]) -> Sinks:
    """See :meth:`vlmattn.Run.sinks`."""
    check_rule(run.vlm, rule, options)
    given = {name: value for name, value in options.items() if value is not None}
    if "layers" in given:
        given["layers"] = _layer_numbers(run.trace, given["layers"])
    if rule == "received":
        return received_sinks(_with_received(run), **given)
    where = _coordinates(run.vlm, given.pop("coordinates", None))
    note = _norm_note(run.vlm) if where.found else ""
    return massive_sinks(_with_hidden(run, where), where, notes=(note,) if note else (), **given)


def check_rule(vlm: Vlm, rule: str, options: dict[str, Any]) -> None:
    """Raises SpecError for a rule, an option, or a value that cannot be in ``vlm``; nothing runs."""
    if rule not in _ONLY:
        raise SpecError(f"rule must be one of {', '.join(_ONLY)}; got {rule!r}")
    wrong = [name for name in options if name not in _ONLY[rule]]
    if wrong:
        raise SpecError(f"rule {rule!r} has no option {wrong[0]!r}; it has {', '.join(_ONLY[rule])}")
    given = {name: value for name, value in options.items() if value is not None}
    if "layers" in given:
        _check_layers(model_sites(vlm.model).depth, whole_numbers(given["layers"], "layers"))
    if rule == "received":
        check_received(given.get("alpha", 1.0), given.get("least_rows", 1))
        return
    where = _coordinates(vlm, given["coordinates"]) if "coordinates" in given else None
    if where is None and _width(vlm) is not None:
        where = SinkCoordinates((), _width(vlm) or 1)
    if where is not None:
        threshold(where, given.get("tau"), given.get("tau_relative"))


def _check_layers(depth: int, layers: Sequence[int]) -> None:
    wrong = [n for n in layers if not -depth <= n < depth]
    if wrong or not len(layers):
        raise SpecError(f"layers {wrong or '(none)'} do not exist; this model has 0 to {depth - 1}, or -1 for the last")


def _coordinates(vlm: Vlm, given: Any) -> SinkCoordinates:
    if isinstance(given, SinkCoordinates):
        where = given
    elif given is None:
        where = known_sinks(vlm)
    else:
        chosen = tuple(whole_numbers(given, "coordinates"))
        if not chosen:
            raise SpecError("coordinates must be at least one number; leave them out for those of vlm.known_sinks()")
        where = SinkCoordinates(chosen, _width(vlm) or max(chosen, default=0) + 1)
    if _width(vlm) not in (None, where.width):
        raise SpecError(f"sink coordinates of a width of {where.width} do not fit this model's, {_width(vlm)}")
    return where


def _layer_numbers(trace: Trace, layers: Any) -> list[int]:
    numbers = whole_numbers(layers, "layers")
    return [n + trace.depth if n < 0 else n for n in numbers]


def _with_hidden(run: Run, where: SinkCoordinates) -> Trace:
    hidden = run.trace.hidden
    if not where.found or (hidden is not None and set(where.coordinates) <= set(hidden.coords)):
        return run.trace
    return _again(run, ("hidden", where.coordinates), hidden=True, hidden_coords=where.coordinates)


def _with_received(run: Run) -> Trace:
    if run.trace.received_lhn is not None:
        return run.trace
    if len(run.trace.layout.latent_positions):
        return run.trace
    changing = [s.describe() for s in run.request.steering if s.edits_probabilities()]
    if changing:
        raise SpecError(
            f"sinks by received attention are those of the model's own rows, which {changing[0]} changed in this run: "
            "ask without it, or use rule='massive'"
        )
    beside = bool(run.trace.layout.memory)
    return _again(run, ("received", beside), received=not beside)


def _again(run: Run, key: tuple[Any, ...], **kept: Any) -> Trace:
    # The same question and answer once more; columns of text tokens as well, where rows are not composed of two hops.
    if key not in run._sink_traces:
        changes: dict[str, Any] = {"hidden": False, "hidden_coords": (), "received": False} | kept
        if not len(run.trace.layout.latent_positions):
            changes["columns"] = "all"
        plain = replace(run.request.capture, heads="all", layers=list(run.trace.layers), reduce="mean", hidden_top=0)
        spec: CaptureSpec = replace(plain, value_norms=None, head_norms=False, vision=None, top_k=0, **changes)
        run._sink_traces[key] = _rerun(run, spec)
    return run._sink_traces[key]


def _rerun(run: Run, spec: CaptureSpec) -> Trace:
    ids = run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist()
    return run.vlm.run(replace(run.request, answers=(ids,), capture=spec))[0].trace


def roles_of(run: Run, found: Sinks, norms: Literal["projected", "value"]) -> tuple[SinkRole, ...]:
    """See :meth:`vlmattn.Run.sink_roles`."""
    check_prompt(run.trace, found)
    spec = CaptureSpec(
        rows=run.request.capture.rows, convention=run.request.capture.convention, columns="all", value_norms=norms,
        top_k=0, layers=list(run.trace.layers), budget=run.request.capture.budget,
    )  # fmt: skip
    return sink_roles(_rerun(run, spec), found)


def without(run: Run, trace: Trace, how: Any) -> Trace:
    """``trace`` of a run with the run's visual sinks kept, dropped or alone; see :func:`vlmattn.sinks.with_sinks`."""
    return trace if how == "keep" else with_sinks(trace, run.sinks(), how)


def check_keep(how: Any) -> None:
    """Raises SpecError unless sinks are to be kept, dropped or shown only."""
    if how not in KEEPS:
        raise SpecError(f"sinks must be one of {', '.join(KEEPS)}; got {how!r}")
