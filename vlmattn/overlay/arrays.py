"""Maps as files for other programs: NumPy arrays without pickle, and a JSON summary."""

from __future__ import annotations

import io
import json
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
        return PixelMap(values, seen, outside, _text(head["label"]), Provenance.from_dict(head["provenance"]))
    except (KeyError, TypeError, ValueError, AttributeError, MapError) as error:
        raise FileError(f"{path} is not a map that vlmattn wrote: {error!r}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value
