"""The same run on a cluster, by Ray Data: the same batches, the same function on each, the same store.

Every replica of the model is an actor that is given a few batches at a time. What it makes comes back to the machine
that started the run, which alone writes answers; pictures and overlays are read and written where the replica is.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

from vlmattn.core.errors import FileError, SpecError, VlmattnError
from vlmattn.core.optional import require
from vlmattn.evaluate import environment
from vlmattn.pipelines.asking import Asker
from vlmattn.pipelines.flow import Batch, Beside, flow
from vlmattn.pipelines.job import OverlayJob
from vlmattn.pipelines.places import exists, is_address, place_in
from vlmattn.pipelines.rows import Table, rows_from, rows_to
from vlmattn.pipelines.run import Output, OverlaysDone, Progress, Records, Sitting, beside_of, run_sitting

_AT_ONCE = 4
_TRIES = 5


@dataclass(frozen=True)
class Cluster:
    """Where a run goes.

    Attributes:
        replicas: of the model. gpus: per replica; 0.5 for two on one. cpus: likewise. address: of a Ray cluster;
            default: what ``RAY_ADDRESS`` says, or one on this machine, for the length of the run.

    Raises:
        SpecError: no replica, or less than nothing for each.
    """

    replicas: int = 1
    gpus: float = 0
    cpus: float = 1
    address: str | None = None

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise SpecError(f"there must be at least 1 replica, got {self.replicas}")
        if self.gpus < 0 or self.cpus < 0:
            raise SpecError(f"a replica needs 0 or more of GPUs and CPUs, got {self.gpus} and {self.cpus}")


def overlay_table_on_cluster(
    table: Table,
    output: Output,
    job: OverlayJob,
    cluster: Cluster | None = None,
    *,
    workers: int = 2,
    progress: Progress | None = None,
) -> OverlaysDone:
    """:func:`vlmattn.pipelines.overlay_table` by replicas on a cluster; the same table comes out, row by row.

    A replica that dies is started again, and its batches go through again. A run can go on with either engine.

    Args:
        workers: threads beside each replica.

    Raises:
        DependencyMissing: Ray is not installed. FileError: overlays of the replicas do not arrive where they should.
            Others as there.
    """
    wanted = cluster or Cluster()
    if workers < 1:
        raise SpecError(f"there must be at least 1 worker, got {workers}")
    ray = require("ray", extra="ray")

    def made(sitting: Sitting) -> Records:
        told = (_anywhere(job), beside_of(table, output, job, workers))
        with _ready(ray, wanted):
            yield from _records(_results(ray, sitting.left(), told, wanted), sitting)

    return run_sitting(table, output, job, made, progress)


class OverlayActor:
    """One replica of the model, as ``Dataset.map_batches`` takes it."""

    def __init__(self, job: OverlayJob, beside: Beside) -> None:
        self._ask = Asker(job.model.load(), job)
        self._beside = beside

    def __call__(self, block: dict[str, Any]) -> dict[str, list[Any]]:
        """Records of a few batches, with what made them."""
        batches = ((int(n), rows_from(rows)) for n, rows in zip(block["number"], block["rows"], strict=True))
        made = list(flow(batches, self._ask, self._beside))
        told = json.dumps([self._ask.describe(), environment(self._ask.vlm.device)])
        return {
            "number": [number for number, _ in made],
            "records": [json.dumps(records) for _, records in made],
            "told": [told] * len(made),
        }


def _results(ray: Any, left: Iterator[Batch], told: tuple[Any, ...], cluster: Cluster) -> Iterator[dict[str, Any]]:
    import ray.data as rd

    # Rows wait in Ray's store, which goes to disk where it is full.
    blocks = [ray.put(block) for block in _blocks(left)]
    made = rd.from_arrow_refs(blocks).map_batches(
        OverlayActor,
        batch_size=None,
        batch_format="numpy",
        compute=rd.ActorPoolStrategy(size=min(cluster.replicas, len(blocks)), max_tasks_in_flight_per_actor=2),
        fn_constructor_args=told,
        num_gpus=cluster.gpus or None,
        num_cpus=cluster.cpus,
        max_restarts=_TRIES,
        max_task_retries=_TRIES,
    )
    with _own_errors():
        yield from made.iter_rows()


def _blocks(left: Iterator[Batch]) -> Iterator[Any]:
    import pyarrow as pa

    while part := list(islice(left, _AT_ONCE)):
        rows = pa.array([rows_to(rows) for _, rows in part], pa.large_string())
        yield pa.table({"number": [number for number, _ in part], "rows": rows})


def _records(results: Iterable[dict[str, Any]], sitting: Sitting) -> Records:
    seen: set[int] = set()
    rest = iter(results)
    for first in islice(rest, 1):
        sitting.begin(*json.loads(first["told"]))
        rest = chain([first], rest)
    for result in rest:
        sitting.check(json.loads(result["told"])[0])
        number, records = int(result["number"]), json.loads(result["records"])
        if number in seen:  # a replica died after it had handed them over
            continue
        seen.add(number)
        _check_files(records, sitting.output)
        yield number, records


def _check_files(records: list[dict[str, Any]], output: Output) -> None:
    files = [word["file"] for record in records for word in record["words"] if word["file"]]
    if files and not exists(place_in(output.overlays, files[0])):
        raise FileError(
            f"{files[0]} was written by another machine and is not in {output.overlays} here: give --files a folder or "
            "an address that all machines share"
        )


def _anywhere(job: OverlayJob) -> OverlayJob:
    """The job with paths that mean the same in another process's folder."""
    model = job.model.model
    if os.path.isdir(model):
        job = replace(job, model=replace(job.model, model=os.path.abspath(model)))
    if job.detector is not None and not is_address(job.detector):
        job = replace(job, detector=os.path.abspath(job.detector))
    return job


@contextmanager
def _ready(ray: Any, cluster: Cluster) -> Iterator[None]:
    """Ray, quiet; one that was started here is ended here."""
    import ray.data as rd

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = rd.DataContext.get_current()
    bars, context.enable_progress_bars = context.enable_progress_bars, False
    started = not ray.is_initialized()
    if started:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(cluster.address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        if started:
            ray.shutdown()


@contextmanager
def _own_errors() -> Iterator[None]:
    """An error of ours that a replica raised, as it was there."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            inner = getattr(cause, "cause", None)
            if isinstance(inner, VlmattnError):
                raise type(inner)(str(inner)) from error
            cause = cause.__cause__ if not isinstance(inner, BaseException) else inner
        raise
