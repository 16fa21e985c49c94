"""Steering in a file: settings as JSON, with arrays (if a method has some) in a safetensors file beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlmattn.capture import Steering, model_sites
from vlmattn.core.errors import FileError, InputError, SpecError
from vlmattn.core.files import as_path, write_json
from vlmattn.sinks import SinkCoordinates
from vlmattn.steering.named import NAMED
from vlmattn.steering.together import Together

_KIND, _FORMAT = "vlmattn steering", 1


def save_steering(path: str | Path, steering: Steering | Sequence[Steering], vlm: Any) -> Path:
    """Write one or several methods with their settings, for the model that they act in.

    Args:
        path: a ``.json`` file; arrays go to ``.safetensors`` beside it. steering: methods of :data:`NAMED`.
        vlm: the model; :func:`load_steering` refuses another.

    Raises:
        SpecError: a method without a name. FileError: a place that cannot be written.
    """
    target = as_path(path)
    given = [steering] if isinstance(steering, Steering) else list(steering)
    members = [part for one in given for part in one.parts()]
    arrays: dict[str, Any] = {}
    told = [_told(one, number, arrays) for number, one in enumerate(members)]
    if not told:
        raise SpecError("there is no steering to save")
    if arrays:
        from safetensors.numpy import save_file

        try:
            save_file(arrays, str(target.with_suffix(".safetensors")))
        except OSError as error:
            raise FileError(f"cannot write {target.with_suffix('.safetensors')}: {error}") from error
    return write_json(target, {"kind": _KIND, "format": _FORMAT, "model": _model(vlm), "methods": told})


def load_steering(path: str | Path, vlm: Any) -> Steering:
    """What :func:`save_steering` wrote, for the same model.

    Raises:
        FileError: missing, half written, or of another kind. SpecError: it was saved for another model.
    """
    target = as_path(path)
    try:
        held = json.loads(target.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read steering from {str(target)!r}: {error}") from error
    if not isinstance(held, dict) or held.get("kind") != _KIND or held.get("format") != _FORMAT:
        raise FileError(f"{str(target)!r} holds no steering of format {_FORMAT}: save it again")
    mine = _model(vlm)
    theirs = held.get("model")
    if not isinstance(theirs, dict) or theirs != mine:
        raise SpecError(f"{str(target)!r} was saved for the model {theirs}, and this one is {mine}")
    try:
        members = [_made(one, target) for one in held["methods"]]
    except (KeyError, TypeError, AttributeError, InputError) as error:
        raise FileError(f"steering in {str(target)!r} is not whole: {error}") from error
    return members[0] if len(members) == 1 else Together(members)


def _model(vlm: Any) -> dict[str, Any]:
    sites = model_sites(vlm.model)
    heads = {str(site.layer_idx): site.heads for site in sites.attention}
    return {"family": vlm.family, "name": vlm.name, "width": sites.width, "heads": heads}


def _told(one: Steering, number: int, arrays: dict[str, Any]) -> dict[str, Any]:
    names = [name for name, kind in NAMED.items() if type(one) is kind]
    if not names or not is_dataclass(one):
        raise SpecError(f"{type(one).__name__} cannot be saved; methods that can are {', '.join(NAMED)}")
    settings: dict[str, Any] = {}
    for field in fields(one):
        if not field.init:
            continue
        value = getattr(one, field.name)
        if isinstance(value, SinkCoordinates):
            value = {"sinks": value.to_dict()}
        elif isinstance(value, np.ndarray):
            arrays[f"{number}.{field.name}"] = np.ascontiguousarray(value)
            value = {"array": f"{number}.{field.name}"}
        settings[field.name] = value
    return {"method": names[0], "settings": settings}


def _made(one: dict[str, Any], target: Path) -> Steering:
    settings = {name: _value(value, target) for name, value in one["settings"].items()}
    return NAMED[one["method"]](**settings)


def _value(value: Any, target: Path) -> Any:
    if isinstance(value, dict) and "sinks" in value:
        told = dict(value["sinks"])
        return SinkCoordinates(**told | {name: tuple(told[name]) for name in ("coordinates", "notes")})
    if isinstance(value, dict) and "array" in value:
        from safetensors.numpy import load_file

        try:
            return load_file(str(target.with_suffix(".safetensors")))[value["array"]]
        except (OSError, KeyError, ValueError) as error:
            raise FileError(f"cannot read the arrays beside {str(target)!r}: {error}") from error
    if isinstance(value, list):
        return tuple(_value(item, target) for item in value)
    return value
