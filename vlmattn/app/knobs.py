"""Steering by its controls: the named methods, their presets, and their main numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from vlmattn.core.errors import SpecError

MOST_KNOBS = 4
_NOT_MAIN = ("depth", "seed", "ends")


@dataclass(frozen=True)
class Knob:
    """A number that a method of steering is set by. ``whole``: whether it is a whole number."""

    name: str
    default: float
    whole: bool


def method_names() -> tuple[str, ...]:
    """The methods that can be chosen."""
    from vlmattn.steering.named import NAMED

    return tuple(NAMED)


def knobs(method: str) -> tuple[Knob, ...]:
    """The main numbers of a method: those with a default, :data:`MOST_KNOBS` at most."""
    found = []
    for field in fields(_kind(method)):
        value = field.default
        if not field.init or field.name.startswith("_") or field.name in _NOT_MAIN:
            continue
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append(Knob(field.name, float(value), isinstance(value, int)))
    return tuple(found[:MOST_KNOBS])


def presets(method: str) -> tuple[str, ...]:
    """Published settings of a method by name."""
    return tuple(getattr(_kind(method), "presets", {}))


def steering_text(method: str, preset: str, values: Sequence[float | None], more: str) -> str:
    """What the controls say, as :func:`vlmattn.steering.named.steering_of` takes it, which is tried.

    Args:
        preset: whose settings are taken as they are; empty for the numbers. values: of :func:`knobs`; None for the
            default. more: further settings, ``name=value, name=value``.

    Raises:
        SpecError: a setting that does not exist or cannot be.

    Example:
        >>> steering_text("vcd", "", [0.5], "seed=3")
        'vcd:alpha=0.5,seed=3'
    """
    from vlmattn.steering.named import steering_of

    if preset:
        text = f"{method}:{preset}"
    else:
        pairs = zip(knobs(method), values, strict=False)
        told = [f"{k.name}={_number(k, v)}" for k, v in pairs if v is not None and v != k.default]
        told += [part.strip() for part in (more or "").split(",") if part.strip()]
        if wrong := [part for part in told if "=" not in part]:
            raise SpecError(f"further settings are written name=value, separated by commas; got {wrong[0]!r}")
        text = f"{method}:{','.join(told)}" if told else method
    steering_of(text)
    return text


def _number(knob: Knob, value: Any) -> str:
    if not isinstance(value, (int, float)) or value != value or value in (float("inf"), float("-inf")):
        raise SpecError(f"{knob.name} must be a number, got {value!r}")
    if knob.whole:
        if value != int(value):
            raise SpecError(f"{knob.name} must be a whole number, got {value:g}")
        return str(int(value))
    return repr(float(value))


def _kind(method: str) -> type[Any]:
    from vlmattn.steering.named import NAMED

    if method not in NAMED:
        raise SpecError(f"steering {method!r} does not exist; there are {', '.join(NAMED)}")
    return NAMED[method]
