"""What a run has to keep so that maps of chosen layers and heads can be read off it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vlmattn.api.own_heads import own_heads
from vlmattn.api.request import DEFAULT_SPEC
from vlmattn.capture import CaptureSpec, model_sites
from vlmattn.core.errors import SpecError

if TYPE_CHECKING:
    from vlmattn.api.vlm import Vlm


def capture_of(
    vlm: Vlm, layers: str | Sequence[int] | None = None, heads: str | Sequence[int] | None = None
) -> CaptureSpec:
    """The rows of question and answer in the chosen layers alone.

    Args:
        layers: a preset or numbers; None for all. heads: likewise; they are only checked.

    Raises:
        SpecError: layers or heads that the model does not have.
    """
    from vlmattn.maps.presets import PRESETS

    own_heads(vlm, heads)
    sites = model_sites(vlm.model)
    for head in () if heads is None or isinstance(heads, str) else heads:
        _check_number("--heads", head, max(site.heads for site in sites.attention))
    if layers is None:
        return DEFAULT_SPEC
    if isinstance(layers, str):
        chosen = list(PRESETS[layers].at_depth(sites.depth))
    else:
        for number in layers:
            _check_number("--layers", number, sites.depth)
        chosen = [n + sites.depth if n < 0 else n for n in layers]
    return replace(DEFAULT_SPEC, layers=sorted({n for n in chosen if n in sites.layers}))


def _check_number(what: str, number: int, count: int) -> None:
    if not -count <= number < count:
        raise SpecError(f"{what} {number} does not exist: the model has 0 to {count - 1} (or -{count} to -1)")
