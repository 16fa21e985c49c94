"""Answers on disk, a batch at a time, in a :class:`~vlmattn.evaluate.journal.Journal`; and the lock of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from vlmattn.core.errors import FileError, RunInProgress
from vlmattn.core.files import atomic_write_text, make_folder
from vlmattn.evaluate.journal import Journal

RESULTS = "results.jsonl"
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
        self._journal = Journal(self.folder, "answers")

    @contextmanager
    def writing(self, rank: int) -> Iterator[Store]:
        """Open this process's file for appending, what was cut off at its end removed."""
        with self._journal.writing(rank):
            yield self

    def commit(self, batch: int, answers: Sequence[Answer]) -> None:
        """Keep the answers of a batch, all or none.

        Raises:
            FileError: the disk is full, or cannot be written; what was committed before stays.
        """
        self._journal.commit(batch, [asdict(one) for one in answers])

    def committed(self) -> dict[int, tuple[Answer, ...]]:
        """Answers of every batch that was committed whole, by any process; of one committed twice, the first."""
        places = self._journal.places()
        return {batch: tuple(Answer(**one) for one in self._journal.read(at)) for batch, at in places.items()}

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
