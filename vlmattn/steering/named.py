"""Steering by name, as commands and manifests have it: ``var``, ``var:general``, ``pai:alpha=0.4+vcd``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, cast

from vlmattn.capture import Steering
from vlmattn.core.errors import SpecError
from vlmattn.steering.act import ACT
from vlmattn.steering.ad_hh import ADHH
from vlmattn.steering.dagcd import DAGCD
from vlmattn.steering.damro import DAMRO
from vlmattn.steering.deco import DeCo
from vlmattn.steering.dola import DoLa
from vlmattn.steering.eah import EAH
from vlmattn.steering.focus import Focus
from vlmattn.steering.hgai import HGAI
from vlmattn.steering.icd import ICD
from vlmattn.steering.m3id import M3ID
from vlmattn.steering.opera import OPERA
from vlmattn.steering.pai import PAI, PAIContrast
from vlmattn.steering.paint import PAINT
from vlmattn.steering.spin import SPIN
from vlmattn.steering.together import Together
from vlmattn.steering.vaf import VAF
from vlmattn.steering.var import VAR
from vlmattn.steering.vcd import VCD
from vlmattn.steering.vhr import VHR

NAMED: dict[str, type[Any]] = {
    "var": VAR,
    "pai": PAI,
    "pai-contrast": PAIContrast,
    "hgai": HGAI,
    "vaf": VAF,
    "spin": SPIN,
    "ad-hh": ADHH,
    "eah": EAH,
    "act": ACT,
    "paint": PAINT,
    "focus": Focus,
    "vhr": VHR,
    "vcd": VCD,
    "icd": ICD,
    "m3id": M3ID,
    "damro": DAMRO,
    "dola": DoLa,
    "deco": DeCo,
    "dagcd": DAGCD,
    "opera": OPERA,
}
"""What can be asked for by name."""


def steering_of(text: str) -> Steering:
    """The steering that a text means: a name, or several joined by ``+``, each with a preset or settings.

    Settings that are lists are written with spaces, heads with a point: ``pai:alpha=0.4,layers=2 3 4``,
    ``ad-hh:heads=16.29 26.9``.

    Raises:
        SpecError: no such method, preset or setting, a value that cannot be, or methods that contradict each other.

    Example:
        >>> steering_of("var:p=0.5").p
        0.5
        >>> [type(one).__name__ for one in steering_of("pai+vcd:alpha=0.5").parts()]
        ['PAI', 'VCD']
    """
    members = [_one(part.strip()) for part in text.split("+")]
    return members[0] if len(members) == 1 else Together(members)


def _one(text: str) -> Steering:
    name, _, told = text.partition(":")
    if name not in NAMED:
        raise SpecError(f"steering {name!r} does not exist; there are {', '.join(NAMED)}")
    kind = NAMED[name]
    if not told:
        return _made(kind, name, {})
    if "=" not in told:
        there: Mapping[str, Any] = kind.presets
        if told not in there:
            raise SpecError(f"{name} has no preset {told!r}; there are {', '.join(there) or 'none'}")
        return kind.preset(told)
    return _made(kind, name, dict(_pair(one) for one in told.split(",")))


def _made(kind: type[Any], name: str, settings: dict[str, Any]) -> Steering:
    known = {field.name: field for field in fields(kind) if field.init and not field.name.startswith("_")}
    wrong = [one for one in settings if one not in known]
    if wrong:
        raise SpecError(f"{name} has no setting {', '.join(wrong)}; its settings are {', '.join(known)}")
    needed = [one for one, field in known.items() if field.default is MISSING and field.default_factory is MISSING]
    missing = [one for one in needed if one not in settings]
    if missing:
        presets = ", ".join(f"{name}:{preset}" for preset in kind.presets) if hasattr(kind, "presets") else ""
        raise SpecError(
            f"{name} needs {', '.join(missing)}: {name}:{missing[0]}=…{f', or a preset, {presets}' if presets else ''}"
        )
    return cast(Steering, kind(**settings))


def _pair(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    parts = value.split()
    if name.strip() == "heads":
        return "heads", tuple(_head(part) for part in parts)
    if len(parts) > 1 or name.strip() in ("layers", "weights"):
        return name.strip(), tuple(_value(part) for part in parts)
    return name.strip(), _value(value.strip())


def _head(text: str) -> tuple[Any, ...]:
    return tuple(_value(part) for part in text.split("."))


def _value(text: str) -> Any:
    try:
        return json.loads(text.lower())
    except ValueError:
        return text
