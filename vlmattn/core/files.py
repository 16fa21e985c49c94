"""Files appear whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from vlmattn.core.errors import FileError


def atomic_write_bytes(path: str | Path, content: bytes) -> Path:
    """Write ``content`` next to ``path`` and move it there; a killed run leaves the old file or none.

    Raises:
        FileError: the folder does not exist or cannot be written, or the name cannot be that of a file.
    """
    target = Path(path)
    try:
        # The name beside it is cut, so that any name that a file may have can be written.
        handle, name = tempfile.mkstemp(prefix=f".{target.name[:40]}.", dir=target.parent)
    except (OSError, ValueError) as error:
        raise FileError(f"cannot write {str(target)!r}: {getattr(error, 'strerror', None) or error}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, target)
    except OSError as error:
        raise FileError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        Path(name).unlink(missing_ok=True)
    return target


def atomic_write_text(path: str | Path, text: str) -> Path:
    """:func:`atomic_write_bytes` of UTF-8 text.

    Raises:
        FileError: as there, or the text holds half a surrogate pair, which UTF-8 cannot say.
    """
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FileError(f"cannot write {path}: the text is not Unicode: {error}") from error
    return atomic_write_bytes(path, content)


def write_json(path: str | Path, value: Any) -> Path:
    """Write indented JSON with sorted keys and a final newline, atomically."""
    return atomic_write_text(path, json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
