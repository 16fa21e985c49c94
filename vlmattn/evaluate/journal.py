"""Batches of results on disk: append-only, so that a run can be killed at any moment.

A batch is one line of JSON with a checksum, written and synced in one go. A line that was cut off is not counted, and
is cut away before anything is written behind it. Every process writes a file of its own; which process made what leaves
no trace in what is read back.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from vlmattn.core.errors import FileError
from vlmattn.core.files import make_folder

_SHARDS = "shards"


@dataclass(frozen=True)
class Place:
    """Where a batch stands: its file, and the offset and length of its line in bytes."""

    path: Path
    offset: int
    length: int


class Journal:
    """Batches of records in a folder.

    Args:
        folder: of the run. key: what the records of a batch are called in its line.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self._file: TextIO | None = None

    @contextmanager
    def writing(self, rank: int) -> Iterator[Journal]:
        """Open this process's file for appending, what was cut off at its end removed."""
        path = make_folder(self.folder / _SHARDS) / f"{rank:05d}.jsonl"
        _mend(path)
        with path.open("a", encoding="utf-8") as self._file:
            try:
                yield self
            finally:
                self._file = None

    def commit(self, batch: int, records: Sequence[Mapping[str, Any]]) -> None:
        """Keep the records of a batch, all or none.

        Raises:
            FileError: the disk is full, or cannot be written; what was committed before stays.
        """
        if self._file is None:
            raise FileError("the store is not open for writing")
        body = json.dumps({"batch": batch, self.key: list(records)}, ensure_ascii=False)
        try:
            self._file.write(f"{zlib.crc32(body.encode()):08x} {body}\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            full = ": the disk is full" if error.errno == errno.ENOSPC else ""
            raise FileError(
                f"batch {batch} could not be written to {self.folder}{full} ({error}); what was answered before is "
                "kept: make room and run the same command again"
            ) from error

    def places(self) -> dict[int, Place]:
        """Where each batch is that was committed whole, by any process; of one committed twice, the first."""
        found: dict[int, Place] = {}
        folder = self.folder / _SHARDS
        for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else []:
            with path.open("rb") as file:
                offset = 0
                for line in file:
                    held = _whole(line)
                    if held is not None and self.key in held:
                        found.setdefault(int(held["batch"]), Place(path, offset, len(line)))
                    offset += len(line)
        return found

    def read(self, place: Place) -> list[dict[str, Any]]:
        """The records of a batch.

        Raises:
            FileError: the file changed meanwhile.
        """
        with place.path.open("rb") as file:
            file.seek(place.offset)
            held = _whole(file.read(place.length))
        if held is None:
            raise FileError(f"{place.path} changed while it was read: run the same command again")
        return list(held[self.key])


def _whole(line: bytes) -> dict[str, Any] | None:
    """What a line says, or None for one that is not whole; the line's end belongs to it."""
    told, _, body = line.partition(b" ")
    if not body.endswith(b"\n"):
        return None
    try:
        if int(told, 16) != zlib.crc32(body[:-1]):
            return None
        held = json.loads(body)
    except ValueError:
        return None
    return held if isinstance(held, dict) and isinstance(held.get("batch"), int) else None


def _mend(path: Path) -> None:
    """Cut away what stands behind the last whole line."""
    if not path.is_file():
        return
    keep = 0
    with path.open("r+b") as file:
        for line in file:
            if _whole(line) is None:
                break
            keep += len(line)
        file.truncate(keep)
