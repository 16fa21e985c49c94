"""Which families there are, and which adapter serves a model."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from functools import lru_cache
from importlib import metadata
from types import SimpleNamespace
from typing import Any, TypeVar

from vlmattn.adapters.adapter import Adapter
from vlmattn.adapters.refused import REFUSED
from vlmattn.adapters.seq2seq import writes_apart
from vlmattn.adapters.spec import FamilySpec
from vlmattn.core.errors import SpecError, UnsupportedModel

GROUP = "vlmattn.adapters"
T = TypeVar("T", bound=type[Adapter])
_FAMILIES: dict[str, tuple[FamilySpec, type[Adapter]]] = {}
_LOADED: set[str] = set()


def register(spec: FamilySpec, *, override: bool = False) -> Callable[[T], T]:
    """Class decorator: serve the models of ``spec`` with this adapter.

    A family name or model type that is already served raises SpecError, unless ``override`` says that it is meant: it
    replaces every family that it shares a name or model type with. Families of one model type may stand side by side
    if each names its vision towers and none is named twice, or if one is for encoder-decoders and one is not.
    """

    def add(cls: T) -> T:
        shared = {s.name: _shared(spec, s) for s, _ in _FAMILIES.values() if _shared(spec, s)}
        clashes = {name: what for name, what in shared.items() if not _told_apart(spec, _FAMILIES[name][0])}
        if clashes and not override:
            name, what = next(iter(clashes.items()))
            raise SpecError(
                f"{', '.join(map(repr, what))} is already served by family {name!r}:"
                " choose another name, or register with override=True"
            )
        for name in shared if override else ():
            del _FAMILIES[name]
        _FAMILIES[spec.name] = (spec, cls)
        return cls

    return add


def _shared(one: FamilySpec, other: FamilySpec) -> list[str]:
    """Names and model types that two families share."""
    return sorted({one.name, *one.model_types} & {other.name, *other.model_types})


def _told_apart(one: FamilySpec, other: FamilySpec) -> bool:
    """Whether vision tower or language model tell which of two families serves a model type that they share."""
    towers = bool(one.towers and other.towers) and not set(one.towers) & set(other.towers)
    return one.name != other.name and (towers or {one.encoder_decoder, other.encoder_decoder} == {True, False})


def families() -> tuple[FamilySpec, ...]:
    """All families, by name: those of vlmattn and those of installed packages (entry points ``vlmattn.adapters``).

    >>> {"llava", "qwen2_vl"} <= {family.name for family in families()}
    True
    """
    _load()
    return tuple(_FAMILIES[name][0] for name in sorted(_FAMILIES))


def _load() -> None:
    from vlmattn.adapters import zoo  # noqa: F401  (registers the families of vlmattn itself, first)

    for point in _points(metadata.entry_points, _search_path()):
        key = f"{point.name}={point.value}"
        if key in _LOADED:
            continue
        _LOADED.add(key)
        try:
            point.load()
        except Exception as error:  # noqa: BLE001 (a broken third-party package must not take the others down)
            warnings.warn(f"adapter {point.name!r} ({point.value}) could not be loaded: {error}", stacklevel=3)


def _search_path() -> tuple[tuple[str, float], ...]:
    """Where packages are looked for, each with the time of its last change: the same until something is installed."""
    return tuple((p, os.stat(p or ".").st_mtime) for p in sys.path if os.path.exists(p or "."))


@lru_cache(maxsize=4)
def _points(ask: Callable[..., Any], _places: tuple[tuple[str, float], ...]) -> tuple[Any, ...]:
    return tuple(ask(group=GROUP))


def adapter_for(model: Any, processor: Any) -> Adapter:
    """The adapter for a model and its processor.

    Raises:
        UnsupportedModel: text-only model, missing or wrong processor, unknown family or vision tower; says which.
        LayoutError: model and processor do not belong together.
    """
    config = getattr(model, "config", None)
    if not getattr(config, "model_type", None):
        raise UnsupportedModel(f"{type(model).__name__} is not a transformers model: it has no config.model_type")
    spec = check_config(config)
    if spec is None:
        return _derived(model, processor)
    _check_processor(spec, processor)
    if hasattr(model, "parameters") and not hasattr(model, "generate"):
        raise UnsupportedModel(f"{type(model).__name__} writes no text: load it with AutoModelForImageTextToText")
    return _FAMILIES[spec.name][1](spec, model, processor)


def check_config(config: Any) -> FamilySpec | None:
    """The family that serves models of a configuration, without weights; None where an adapter may be derived.

    Raises:
        UnsupportedModel: text-only, refused for a reason, or of an unknown kind that gives nothing to derive from.
    """
    from vlmattn.adapters.derived import derivable

    kind = str(getattr(config, "model_type", "") or "")
    apart = writes_apart(config)
    found = [s for s in families() if kind in s.model_types and s.encoder_decoder in (None, apart)]
    if not found and (kind in REFUSED or not derivable(config)):
        raise UnsupportedModel(_reason(config, kind))
    tower = getattr(getattr(config, "vision_config", None), "model_type", None)
    return next((s for s in found if tower in s.towers), found[0]) if found else None


def check_pair(config: Any, processor: Any) -> None:
    """Refuse a processor that does not belong to a configuration, before weights are read.

    Raises:
        UnsupportedModel, LayoutError: as :func:`adapter_for`.
    """
    spec = check_config(config)
    if spec is None:
        return
    _check_processor(spec, processor)
    try:
        _FAMILIES[spec.name][1](spec, SimpleNamespace(config=config), processor)
    except AttributeError:
        # An adapter that looks at the weights themselves is asked when they are there.
        return


def _derived(model: Any, processor: Any) -> Adapter:
    from vlmattn.adapters.derived import derive

    if processor is None:
        raise UnsupportedModel("no processor was given: pictures cannot be prepared")
    return derive(model, processor)


def _reason(config: Any, kind: str) -> str:
    if kind in REFUSED:
        return f"model type {kind!r} is not supported: {REFUSED[kind]}"
    known = "'vlmattn models' lists what is supported"
    if getattr(config, "vision_config", None) is None:
        return f"{kind!r} is a text-only model: it takes no pictures; {known}"
    return f"model type {kind!r} is not supported: where its image tokens lie is not known; {known}"


def _check_processor(spec: FamilySpec, processor: Any) -> None:
    expected = " or ".join(spec.processors)
    if processor is None:
        raise UnsupportedModel(f"no processor was given: pictures cannot be prepared. Expected {expected}")
    names = {c.__name__ for c in type(processor).__mro__}
    if not names & set(spec.processors):
        raise UnsupportedModel(f"{spec.name} needs a {expected}, got {type(processor).__name__}")
