"""Scores of finished samples in a folder, so that a killed atlas goes on where it was."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import FileError
from vlmattn.core.files import as_path, atomic_write_bytes, make_folder, write_json
from vlmattn.heads import HeadSample

_KIND, _FORMAT = "vlmattn unfinished head atlas", 1


class Store:
    """One ``.npz`` per finished sample, written whole or not at all, and a note of what they are samples of.

    Args:
        folder: made if it is not there; None keeps nothing on disk. told: what decides the numbers.

    Raises:
        FileError: the folder holds samples of something else, or cannot be written.
    """

    def __init__(self, folder: str | Path | None, told: Mapping[str, Any]) -> None:
        self.folder = None if folder is None else make_folder(as_path(folder))
        if self.folder is not None:
            self._claim(self.folder / "samples.json", {"kind": _KIND, "format": _FORMAT} | dict(told))

    @staticmethod
    def _claim(note: Path, told: dict[str, Any]) -> None:
        if not note.exists():
            write_json(note, told)
            return
        try:
            held = json.loads(note.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FileError(f"cannot read {str(note)!r}: {error}: give another folder") from error
        differ = sorted(k for k in set(held) | set(told) if held.get(k) != told.get(k)) if held != told else []
        if differ:
            raise FileError(
                f"{str(note.parent)!r} holds samples of another atlas ({', '.join(differ)} differ): give another folder"
            )

    def get(self, number: int) -> dict[str, NDArray[np.float64]] | None:
        """Scores of a finished sample; None if it is not finished, or its file is damaged."""
        path = None if self.folder is None else self.folder / f"{number:06d}.npz"
        if path is None or not path.is_file():
            return None
        try:
            with np.load(io.BytesIO(path.read_bytes())) as held:
                return {name: held[name] for name in held.files}
        except (OSError, ValueError, EOFError, KeyError, _broken()):
            return None

    def put(self, number: int, scores: Mapping[str, NDArray[np.float64]]) -> None:
        """Keep the scores of a finished sample."""
        if self.folder is None:
            return
        buffer = io.BytesIO()
        np.savez(buffer, **{name: np.asarray(values) for name, values in scores.items()})  # type: ignore[arg-type]
        atomic_write_bytes(self.folder / f"{number:06d}.npz", buffer.getvalue())


def _broken() -> type[Exception]:
    from zipfile import BadZipFile

    return BadZipFile


def digest(samples: Sequence[HeadSample]) -> str:
    """SHA-256 of what samples hold: pixels or paths, questions, answers, boxes and words."""
    made = hashlib.sha256()
    for one in samples:
        made.update(repr((one.question, one.answer, one.boxes, one.words, one.kind)).encode("utf-8", "replace"))
        made.update(_image(one.image))
    return made.hexdigest()


def _image(image: Any) -> bytes:
    if isinstance(image, (list, tuple)):
        return b"".join(_image(one) for one in image)
    if isinstance(image, (str, Path)):
        return str(image).encode("utf-8", "replace")
    if isinstance(image, (bytes, bytearray)):
        return hashlib.sha256(image).digest()
    array = np.asarray(image)
    return repr(image).encode() if array.dtype == object else hashlib.sha256(array.tobytes()).digest()
