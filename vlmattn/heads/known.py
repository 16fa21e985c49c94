"""Heads that are known of a model: found ones that ship with the models in the box, and those in a file beside one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from vlmattn.core.errors import FileError, InputError, SpecError
from vlmattn.core.files import as_path, write_json
from vlmattn.core.head_preset import HeadPreset

BESIDE = "vlmattn_heads.json"
"""Name of the file with found heads in a model's own folder."""

_KIND, _FORMAT = "vlmattn head presets", 1
_FOUND = Path(__file__).resolve().parent / "found"


def save_presets(path: str | Path, presets: Iterable[HeadPreset], *, model: str = "", how: str = "") -> Path:
    """Write choices of heads as JSON that :func:`load_presets` reads.

    Args:
        model: whose heads they are. how: the command that found them.

    Raises:
        SpecError: none, or two of one name. FileError: a place that cannot be written.
    """
    listed = list(presets)
    names = [one.name for one in listed]
    if not listed or len(set(names)) < len(names):
        raise SpecError(f"presets must be at least one, of different names; got {names}")
    told = {"kind": _KIND, "format": _FORMAT, "model": model, "how": how}
    return write_json(path, told | {"presets": [one.to_dict() for one in listed]})


def load_presets(path: str | Path) -> dict[str, HeadPreset]:
    """Choices of heads by name, from what :func:`save_presets` wrote.

    Raises:
        FileError: missing, half written, or of another kind.
    """
    target = as_path(path)
    try:
        held = json.loads(target.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read head presets from {str(target)!r}: {error}") from error
    if not isinstance(held, dict) or held.get("kind") != _KIND or held.get("format") != _FORMAT:
        raise FileError(f"{str(target)!r} holds no head presets of format {_FORMAT}: save them again")
    try:
        found = [HeadPreset.from_dict(one) for one in held["presets"]]
    except (KeyError, TypeError, AttributeError, InputError) as error:
        raise FileError(f"head presets in {str(target)!r} are not whole: {error}") from error
    return {one.name: one for one in found}


def found_presets(model: str) -> dict[str, HeadPreset]:
    """Heads that are known of a model by its name: of a model in the box, or beside a local folder's weights in
    ``vlmattn_heads.json``; empty where there are none.

    Raises:
        FileError: the file beside it is damaged.

    Example:
        >>> sorted(found_presets("scene"))
        ['localization', 'pointing', 'visual']
    """
    if model.isascii() and model.replace("-", "").isalnum() and (_FOUND / f"{model}.json").is_file():
        return load_presets(_FOUND / f"{model}.json")
    try:
        beside = Path(model) / BESIDE
        there = beside.is_file()
    except (OSError, ValueError):
        return {}
    return load_presets(beside) if there else {}
