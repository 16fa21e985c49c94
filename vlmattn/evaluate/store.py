"""Answers on disk: append-only, a batch at a time, so that a run can be killed at any moment.

A batch is one line of JSON with a checksum, written and synced in one go. A line that was cut off is not counted, and
is cut away before anything is written behind it. Every process writes a file of its own; which process answered what
leaves no trace in the joined results.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from vlmattn.core.errors import FileError, RunInProgress
from vlmattn.core.files import atomic_write_text, make_folder

RESULTS = "results.jsonl"
_SHARDS = "shards"
_LOCK = "lock"


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        id: of its item. answer: text. tokens: how many were written, the end included. ended: whether the model ended
            it by itself; else it was cut off at the limit.
    """

    id: str
    answer: str
    tokens: int
    ended: bool


class Store:
    """The answers of one run in a folder.

    Args:
        folder: of the run; made if it does not exist.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = make_folder(folder)
        self._file: TextIO | None = None

    @contextmanager
    def writing(self, rank: int) -> Iterator[Store]:
        """Open this process's file for appending, what was cut off at its end removed."""
        path = make_folder(self.folder / _SHARDS) / f"{rank:05d}.jsonl"
        _mend(path)
        with path.open("a", encoding="utf-8") as self._file:
            try:
                yield self
            finally:
                self._file = None

    def commit(self, batch: int, answers: Sequence[Answer]) -> None:
        """Keep the answers of a batch, all or none.

        Raises:
            FileError: the disk is full, or cannot be written; what was committed before stays.
        """
        if self._file is None:
            raise FileError("the store is not open for writing")
        body = json.dumps({"batch": batch, "answers": [asdict(one) for one in answers]}, ensure_ascii=False)
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

    def committed(self) -> dict[int, tuple[Answer, ...]]:
        """Answers of every batch that was committed whole, by any process; of one committed twice, the first."""
        found: dict[int, tuple[Answer, ...]] = {}
        folder = self.folder / _SHARDS
        for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else []:
            for line in path.read_bytes().split(b"\n"):
                held = _read(line)
                if held is not None:
                    found.setdefault(*held)
        return found

    def join(self, order: Sequence[str]) -> Path:
        """Write all answers in the order of ``order`` to one file, atomically.

        Raises:
            FileError: some item has no answer, or more than one.
        """
        by_id: dict[str, Answer] = {}
        for answers in self.committed().values():
            for one in answers:
                if one.id in by_id:
                    raise FileError(f"item {one.id!r} was answered in two batches of {self.folder}: start anew")
                by_id[one.id] = one
        missing = [one for one in order if one not in by_id]
        if missing:
            raise FileError(f"{len(missing)} items have no answer yet, such as {missing[0]!r}")
        lines = [json.dumps(asdict(by_id[one]), ensure_ascii=False) for one in order]
        return atomic_write_text(self.folder / RESULTS, "".join(f"{line}\n" for line in lines))


def read_results(folder: str | Path) -> dict[str, str]:
    """Answers by item id of a finished run.

    Raises:
        FileError: no finished run is there, or its file is damaged.
    """
    path = Path(folder) / RESULTS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        held = [json.loads(line) for line in lines]
        return {str(one["id"]): str(one["answer"]) for one in held}
    except FileNotFoundError:
        raise FileError(f"{folder} holds no {RESULTS}: the run is not finished; run the same command again") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise FileError(f"{path} is damaged ({error})") from error


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Keep other runs from writing the folder meanwhile; the lock goes with the process that holds it.

    Raises:
        RunInProgress: another run holds it.
    """
    import fcntl

    path = make_folder(folder) / _LOCK
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunInProgress(f"another run is writing {folder}: wait for it, or give another folder") from error
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def _read(line: bytes) -> tuple[int, tuple[Answer, ...]] | None:
    """A batch, or None for a line that is not whole."""
    told, _, body = line.partition(b" ")
    try:
        if not body or int(told, 16) != zlib.crc32(body):
            return None
        held: dict[str, Any] = json.loads(body)
        return int(held["batch"]), tuple(Answer(**one) for one in held["answers"])
    except (ValueError, TypeError, KeyError):
        return None


def _mend(path: Path) -> None:
    """Cut away what stands behind the last whole line."""
    if not path.is_file():
        return
    content = path.read_bytes()
    keep = 0
    for line in content.split(b"\n")[:-1]:
        if _read(line) is None:
            break
        keep += len(line) + 1
    if keep < len(content):
        with path.open("r+b") as file:
            file.truncate(keep)
