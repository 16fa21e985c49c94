"""A table of pictures and questions made a table of answers and a folder of overlays; killed and resumed at will."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.files import check_can_hold, make_folder, remove_partial_files
from vlmattn.evaluate import Journal, Manifest, environment, locked
from vlmattn.evaluate.manifest import MANIFEST
from vlmattn.pipelines.asking import Asker
from vlmattn.pipelines.drawing import OVERLAYS
from vlmattn.pipelines.flow import Batch, Beside, flow
from vlmattn.pipelines.job import OverlayJob
from vlmattn.pipelines.places import absolute, folder_of
from vlmattn.pipelines.results import check_table, write_table
from vlmattn.pipelines.rows import Row, Table

if TYPE_CHECKING:
    from vlmattn.api import Vlm

Progress = Callable[[int, int], None]
Records = Generator[tuple[int, list[dict[str, Any]]], None, None]
_LOADED = "loaded"


@dataclass(frozen=True)
class Output:
    """Where results go.

    Attributes:
        folder: of the run, on this machine. table: ``jsonl``, ``csv`` or ``parquet``. files: folder or address that
            overlays go to instead, for fsspec.

    Raises:
        SpecError: another kind of table. FileError: the folder cannot be written.
    """

    folder: Path
    table: str = "jsonl"
    files: str | None = None

    def __post_init__(self) -> None:
        check_table(self.table)
        check_can_hold(self.folder)

    @property
    def path(self) -> Path:
        """The table's own file."""
        return self.folder / f"results.{self.table}"

    @property
    def overlays(self) -> str:
        """The folder or address that the names in the table start from."""
        return str(self.folder) if self.files is None else self.files


@dataclass(frozen=True)
class OverlaysDone:
    """A run that is done.

    Attributes:
        table: the file of results. rows: how many there are; ``failed`` of them have an error, ``partial`` some words
            that have one. made: how many were asked in this sitting.
    """

    table: Path
    rows: int
    failed: int
    partial: int
    made: int


def overlay_table(
    table: Table,
    output: Output,
    job: OverlayJob,
    *,
    vlm: Vlm | Callable[[], Vlm] | None = None,
    workers: int = 2,
    progress: Progress | None = None,
) -> OverlaysDone:
    """Ask every row of a table, draw where the model looked, and write one table of all rows in their order.

    A row that cannot be asked has its error in the table. A run that was ended in whatever way goes on with the same
    call; what was done is not done again.

    Args:
        table: of :func:`open_table`. vlm: the job's model, or what loads it; default: ``job.model.load``. Nothing is
            loaded where no row is left. workers: threads that read pictures and draw maps beside the model.
        progress: called with how many rows are done, and of how many.

    Raises:
        SpecError: the folder holds results of other settings, or fewer than one worker. RunInProgress: another run is
            writing it. FileError: something cannot be written; what was done stays.
    """
    if workers < 1:
        raise SpecError(f"there must be at least 1 worker, got {workers}")

    def made(sitting: Sitting) -> Records:
        loaded = (vlm() if callable(vlm) else vlm) if vlm is not None else job.model.load()
        ask = Asker(loaded, job)
        sitting.begin(ask.describe(), environment(loaded.device))
        yield from flow(sitting.left(), ask, beside_of(table, output, job, workers))

    return run_sitting(table, output, job, made, progress)


def beside_of(table: Table, output: Output, job: OverlayJob, workers: int) -> Beside:
    """What is done beside the model."""
    images = folder_of(table.place) if job.images is None else job.images
    return Beside(workers, absolute(images), absolute(output.overlays), job.drawing)


def run_sitting(
    table: Table,
    output: Output,
    job: OverlayJob,
    made: Callable[[Sitting], Records],
    progress: Progress | None = None,
) -> OverlaysDone:
    """One sitting, whatever makes the records: what it gives is kept as it comes, and joined at the end."""
    with _sitting(table, output, job) as sitting:
        count = sitting.rows_done
        before = count
        if progress is not None:
            progress(count, table.rows)
        if count < table.rows:
            # Closed by hand: what ends the loop early has to end the threads too.
            with sitting.journal.writing(0), closing(made(sitting)) as results:
                for number, records in results:
                    sitting.journal.commit(number, records)
                    count += len(records)
                    if progress is not None:
                        progress(count, table.rows)
        return sitting.join(made=count - before)


@dataclass
class Sitting:
    """One sitting of a run: what is done, and what is left."""

    table: Table
    output: Output
    job: OverlayJob
    journal: Journal
    manifest: Manifest

    def __post_init__(self) -> None:
        self._done = set(self.journal.places())

    @property
    def batches(self) -> int:
        """How many there are in all."""
        return -(-self.table.rows // self.job.batch)

    @property
    def rows_done(self) -> int:
        """How many rows were done before."""
        whole = len(self._done) * self.job.batch
        return whole - (self.batches * self.job.batch - self.table.rows if self.batches - 1 in self._done else 0)

    def left(self) -> Iterator[Batch]:
        """The batches that are left; always the same rows together, however often the run was ended."""
        return ((n, rows) for n, rows in batched_rows(self.table, self.job.batch) if n not in self._done)

    def begin(self, loaded: dict[str, Any], where: dict[str, Any]) -> None:
        """Note what model was loaded, and where.

        Raises:
            SpecError: it is another than before.
        """
        now = Manifest(dict(self.manifest.settings) | {_LOADED: loaded}, (where,))
        if _LOADED in self.manifest.settings:
            now = self.manifest.joined_by(now)
        now.save(self.output.folder)
        self.manifest = now

    def check(self, loaded: Mapping[str, Any]) -> None:
        """Raises SpecError for another model than the one of :meth:`begin`."""
        self.manifest.check({_LOADED: loaded}, known=(_LOADED,))

    def join(self, *, made: int) -> OverlaysDone:
        """Write the table of all rows."""
        counts = {"ok": 0, "partial": 0, "error": 0}
        write_table(self.output.path, self.output.table, self._counted(counts))
        return OverlaysDone(self.output.path, self.table.rows, counts["error"], counts["partial"], made)

    def _counted(self, counts: dict[str, int]) -> Iterator[dict[str, Any]]:
        places = self.journal.places()
        for number in range(self.batches):
            if number not in places:
                raise FileError(f"batch {number} of {self.output.folder} is missing: run the same command again")
            for record in self.journal.read(places[number]):
                counts[record["status"]] += 1
                yield record


def batched_rows(rows: Iterable[Row], size: int) -> Iterator[Batch]:
    """Rows in batches of ``size``, in order, with their numbers."""
    held: list[Row] = []
    for row in rows:
        held.append(row)
        if len(held) == size:
            yield row.number // size, tuple(held)
            held = []
    if held:
        yield held[0].number // size, tuple(held)


@contextmanager
def _sitting(table: Table, output: Output, job: OverlayJob) -> Iterator[Sitting]:
    settings = _settings(table, output, job)
    check_settings(output.folder, settings)
    with locked(make_folder(output.folder)):
        check_settings(output.folder, settings)
        held = Manifest.load(output.folder)
        if held is None:
            held = Manifest(settings, ())
            held.save(output.folder)
        remove_partial_files(output.folder)
        yield Sitting(table, output, job, Journal(output.folder, "rows"), held)


def _settings(table: Table, output: Output, job: OverlayJob) -> dict[str, Any]:
    return {
        "pipeline": "overlay",
        "input": {"rows": table.rows, "sha256": table.sha256, "columns": dict(table.columns)},
        "images": job.images,
        "files": output.files,
        **job.settings,
    }


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder that holds something else.

    Raises:
        SpecError: results of other settings; says which. FileError: results without a manifest, or a damaged one.
    """
    held = Manifest.load(folder)
    if held is not None:
        held.check(settings, known=(set(held.settings) | set(settings)) - {_LOADED})
    elif (folder / OVERLAYS).exists() or (folder / "shards").exists() or any(folder.glob("results.*")):
        raise FileError(f"{folder} holds results, and no {MANIFEST} that says of what: give another folder")
