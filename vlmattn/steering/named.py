"""Steering by name, as commands and manifests have it: ``var``, ``var:general``, ``var:p=0.6,rho=0.5``."""

from __future__ import annotations

import json
from typing import Any

from vlmattn.capture import Steering
from vlmattn.core.errors import SpecError
from vlmattn.steering.var import PRESETS, VAR

NAMED: dict[str, type[Any]] = {"var": VAR}
"""What can be asked for by name."""


def steering_of(text: str) -> Steering:
    """The steering that a text means.

    Raises:
        SpecError: no such method, preset or setting, or a value that cannot be.

    Example:
        >>> steering_of("var:p=0.5").p
        0.5
    """
    name, _, told = text.partition(":")
    if name not in NAMED:
        raise SpecError(f"steering {name!r} does not exist; there are {', '.join(NAMED)}")
    if not told:
        return NAMED[name]()
    if "=" not in told:
        if told not in PRESETS:
            raise SpecError(f"{name} has no preset {told!r}; there are {', '.join(PRESETS)}")
        return NAMED[name].preset(told)
    try:
        return NAMED[name](**dict(_pair(one) for one in told.split(",")))
    except TypeError as error:
        raise SpecError(f"the settings {told!r} do not go with {name}: {error}") from error


def _pair(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), json.loads(value.strip().lower())
    except ValueError:
        return name.strip(), value.strip()
