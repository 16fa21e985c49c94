"""Maps as files for other programs: NumPy arrays without pickle, and a JSON summary."""

from __future__ import annotations

import io
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from vlmattn.core.errors import FileError, MapError
from vlmattn.core.files import as_path, atomic_write_bytes
from vlmattn.core.provenance import Provenance
from vlmattn.grid import PixelMap

_FORMAT = 1


def save_map(path: str | Path, pixel_map: PixelMap) -> Path:
    """Write values (H, W) float32, seen (H, W) bool, label, mass outside and provenance as ``.npz``."""
    head = {
        "format": _FORMAT,
        "label": pixel_map.label,
        "outside": pixel_map.outside,
        "provenance": pixel_map.provenance.to_dict(),
    }
    stream = io.BytesIO()
    text = np.array(json.dumps(head, ensure_ascii=False, sort_keys=True))
    np.savez_compressed(stream, values=pixel_map.values, seen=pixel_map.seen, head=text)
    return atomic_write_bytes(path, stream.getvalue())


def load_map(path: str | Path) -> PixelMap:
    """Read back what :func:`save_map` wrote; equal to what was saved.

    Raises:
        FileError: missing, cut off, or of another format.
    """
    try:
        with np.load(io.BytesIO(as_path(path).read_bytes())) as held:
            values, seen, head = held["values"], held["seen"], json.loads(str(held["head"]))
    except FileNotFoundError:
        raise FileError(f"{path} does not exist") from None
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, RuntimeError, MemoryError) as error:
        raise FileError(f"{path} is not a map that vlmattn wrote: {error}") from error
    except Exception as error:
        if type(error).__name__ in ("BadZipFile", "error"):
            raise FileError(f"{path} is damaged: {error}") from error
        raise
    found = head.get("format") if isinstance(head, dict) else None
    if found != _FORMAT:
        raise FileError(f"{path} has format {found}; this version reads {_FORMAT}")
    try:
        outside = float(head["outside"])
        if not np.isfinite(outside):
            raise ValueError(f"outside is {outside}")
        return PixelMap(values, seen, outside, _text(head["label"]), _provenance(head["provenance"]))
    except (KeyError, TypeError, ValueError, AttributeError, MapError) as error:
        raise FileError(f"{path} is not a map that vlmattn wrote: {error!r}") from error


def _provenance(held: dict[str, Any]) -> Provenance:
    known = {f.name for f in fields(Provenance)}
    given: dict[str, Any] = {k: v for k, v in held.items() if k in known}
    steps, seed, versions = given.pop("steps", []), given.pop("seed", None), given.pop("versions", {})
    if not isinstance(steps, list) or not isinstance(seed, int | None) or not isinstance(versions, dict):
        raise TypeError(f"steps {steps!r}, seed {seed!r}, versions {versions!r}")
    words: dict[str, Any] = {k: None if k == "revision" and v is None else _text(v) for k, v in given.items()}
    return Provenance(**words, steps=tuple(_text(step) for step in steps), seed=seed, versions=versions)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value
