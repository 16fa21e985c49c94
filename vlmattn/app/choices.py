"""How maps are made and drawn, as the page's controls say it; and which choices a model has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.ranges import numbers

if TYPE_CHECKING:
    from vlmattn.api import Run, Vlm

_OF_STATES = ("tam", "logit_lens")


@dataclass(frozen=True)
class MapChoice:
    """How a map is made and drawn.

    Attributes:
        method, normalise, sinks: as in :meth:`vlmattn.Run.map`. layers, heads: a preset, or numbers as text (``4-8``,
            ``1,3,-1``); empty for all.
        opacity: of the map's highest values, 0 to 1. box: round the largest region of the highest tenth. peak: mark
            the highest point. mark_sinks: mark the patches that are visual sinks.

    Raises:
        SpecError: a value that does not exist; layers or heads that the method does not take.

    Example:
        >>> MapChoice(layers="1-2").options()["layers"]
        [1, 2]
    """

    method: str = "raw"
    layers: str = ""
    heads: str = ""
    normalise: str = "none"
    sinks: str = "keep"
    opacity: float = 0.75
    box: bool = False
    peak: bool = True
    mark_sinks: bool = False

    def __post_init__(self) -> None:
        from vlmattn.core.provenance import METHODS
        from vlmattn.maps import NORMALISATIONS
        from vlmattn.sinks.removal import KEEPS

        for name, known in (("method", METHODS), ("normalise", NORMALISATIONS), ("sinks", KEEPS)):
            if getattr(self, name) not in known:
                raise SpecError(f"{name} must be one of {', '.join(known)}; got {getattr(self, name)!r}")
        if not isinstance(self.opacity, (int, float)) or not 0 <= self.opacity <= 1:
            raise SpecError(f"opacity must be a number from 0 to 1, got {self.opacity!r}")
        for name in ("layers", "heads"):
            text = getattr(self, name)
            if not (text is None or isinstance(text, str)):
                raise SpecError(f"{name} must be text, got {text!r}")
            object.__setattr__(self, name, (text or "").strip())
            if getattr(self, name) and name not in taken_by(self.method):
                raise SpecError(f"{name} do not go with method {self.method!r}: leave them empty")

    def options(self) -> dict[str, Any]:
        """The options of :meth:`vlmattn.Run.map`.

        Raises:
            SpecError: layers or heads that are neither a preset's name nor numbers.
        """
        made: dict[str, Any] = {"method": self.method, "normalise": self.normalise, "sinks": self.sinks}
        for name in ("layers", "heads"):
            if text := getattr(self, name):
                made[name] = numbers(text, name) if any(c.isdigit() for c in text) and not _is_preset(text) else text
        return made

    def fitting(self, method: str) -> MapChoice:
        """The same by another method, without what that does not take."""
        kept: dict[str, Any] = {
            name: getattr(self, name) if name in taken_by(method) else "" for name in ("layers", "heads")
        }
        return replace(self, method=method, **kept)


def _is_preset(text: str) -> bool:
    from vlmattn.maps import HEAD_PRESETS, PRESETS

    return text in PRESETS or text in HEAD_PRESETS


def taken_by(method: str) -> tuple[str, ...]:
    """Names of the options that a method of maps takes."""
    from vlmattn.api.checks import MAP_OPTIONS, METHOD_OPTIONS

    return METHOD_OPTIONS.get(method, MAP_OPTIONS)


def methods_of(run: Run | None = None) -> tuple[str, ...]:
    """Methods of maps that can be made here, of a model whose run is given."""
    from vlmattn.api.states import image_at
    from vlmattn.core.provenance import METHODS

    without: set[str] = set() if find_spec("captum") else {"integrated_gradients"}
    if run is not None:
        try:
            image_at(run.trace.layout, 0)
        except MapError:
            without |= set(_OF_STATES)
    return tuple(name for name in METHODS if name not in without)


def layer_choices() -> list[tuple[str, str]]:
    """(what is shown, value) of every choice of layers that has a name."""
    from vlmattn.maps import PRESETS

    named = [(f"{p.name}: {p.note}", p.name) for p in PRESETS.values() if p.name != "all"]
    return [("all layers", ""), *named]


def head_choices(vlm: Vlm) -> list[tuple[str, str]]:
    """(what is shown, value) of the model's own heads by name, and of published ones that fit it."""
    from vlmattn.api.own_heads import own_heads
    from vlmattn.maps import HEAD_PRESETS

    found = [("all heads", "")]
    for name, preset in (HEAD_PRESETS | vlm.known_heads()).items():
        try:
            own_heads(vlm, name)
        except SpecError:
            continue
        if name != "all":
            found.append((f"{name}: {preset.note}" if preset.note else name, name))
    return found
