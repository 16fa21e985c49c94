"""Every ``method=`` of :meth:`Run.map` and how it is made from a run; the methods are in ``vlmattn.maps``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vlmattn.api.attributed import ATTRIBUTION_MAKERS
from vlmattn.api.sinks import without
from vlmattn.api.states import STATE_MAKERS
from vlmattn.api.whole import WHOLE_MAKERS

if TYPE_CHECKING:
    from vlmattn.api.run import Run
    from vlmattn.grid import PatchMap

Maker = Callable[["Run", Any, int, dict[str, Any], str], "PatchMap"]
"""From a run, what is asked for, a picture's number, checked options and what becomes of sinks, to a map."""


def make_map(run: Run, what: Any, method: str, image: int, options: dict[str, Any], sinks: str) -> PatchMap:
    """The map of a method; options as :func:`vlmattn.api.checks.map_options` gives them.

    Raises:
        MapError, SpecError, WordNotFound: as the method.
    """
    return MAKERS[method](run, what, image, options, sinks)


def _raw(run: Run, what: Any, image: int, options: dict[str, Any], sinks: str) -> PatchMap:
    from vlmattn.maps import raw_attention

    return raw_attention(without(run, run.trace, sinks), what, image=image, **options)


def _value(run: Run, what: Any, image: int, options: dict[str, Any], sinks: str) -> PatchMap:
    from vlmattn.maps import value_weighted

    return value_weighted(without(run, run.with_values(), sinks), what, image=image, **options)


def _relative(run: Run, what: Any, image: int, options: dict[str, Any], sinks: str) -> PatchMap:
    from dataclasses import replace

    from vlmattn.maps import GENERIC_PROMPT, raw_attention, relative

    floor = options.pop("floor", "auto")
    task = _raw(run, what, image, options, sinks)
    same = {k: v for k, v in options.items() if k in ("layers", "heads", "over_heads", "over_layers")}
    beside = run.generic()
    generic = raw_attention(without(beside, beside.trace, sinks), image=image, rows="vicrop", **same)
    return relative(task, replace(generic, label=GENERIC_PROMPT), floor=floor)


MAKERS: dict[str, Maker] = {
    "raw": _raw,
    "value": _value,
    "relative": _relative,
    **WHOLE_MAKERS,
    **STATE_MAKERS,
    **ATTRIBUTION_MAKERS,
}
"""By the names of :data:`vlmattn.core.provenance.METHODS`; their options: :data:`vlmattn.api.checks.METHOD_OPTIONS`."""
