"""One thread that runs the model, and what waits for it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vlmattn.service.errors import Refused

if TYPE_CHECKING:
    from vlmattn.service.metrics import Metrics


class GivenUp(Exception):
    """Nobody waits any more for what is running."""


class Job:
    """One request for the model.

    Attributes:
        payload: what is asked. key: jobs of equal keys may run together. deadline: on ``time.monotonic()``. future: of
            the answer. waited: seconds until it ran.
    """

    def __init__(self, payload: Any, *, key: Hashable, deadline: float) -> None:
        self.payload, self.key, self.deadline = payload, key, deadline
        self.future: Future[Any] = Future()
        self.since, self.waited = time.monotonic(), 0.0
        self.given_up = False

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.given_up or time.monotonic() > self.deadline


def check_wanted(jobs: Sequence[Job]) -> None:
    """Raises GivenUp if nobody waits for any of the jobs."""
    if all(job.over for job in jobs):
        raise GivenUp


@contextmanager
def stopped_when_given_up(model: Any, jobs: Sequence[Job]) -> Iterator[None]:
    """Every pass of the model inside the context first looks whether somebody still waits for its result."""

    def look(*_: Any) -> None:
        check_wanted(jobs)

    handle = model.register_forward_pre_hook(look)
    try:
        yield
    finally:
        handle.remove()


class Worker:
    """Runs jobs one batch after the other, first come first served, in a thread of its own.

    Args:
        run: from jobs of one key to one answer or exception each, in order; an exception that it raises itself is that
            of all of them. batch_size, batch_wait: as in :class:`vlmattn.service.ServiceOptions`.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Job]], Sequence[Any]],
        metrics: Metrics,
        *,
        batch_size: int = 1,
        batch_wait: float = 0.0,
    ) -> None:
        self._run, self._metrics = run, metrics
        self._batch_size, self._batch_wait = batch_size, batch_wait
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        self.running = 0

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    def start(self, first: Callable[[], None] | None = None) -> None:
        """Begin; ``first`` is done in the thread before any job."""
        self._closing = False
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, args=(first,), name="vlmattn-model", daemon=True)
            self._thread.start()

    def submit(self, job: Job) -> None:
        """Let a job wait for its turn.

        Raises:
            Refused: the worker is being closed.
        """
        with self._changed:
            if self._closing:
                raise Refused(503, "shutting_down", "the service is being shut down", headers={"Retry-After": "5"})
            self._waiting.append(job)
            self._changed.notify()

    def give_up(self, job: Job) -> None:
        """Nobody waits for a job: it is not run, or stopped before the model's next pass."""
        with self._changed:
            job.given_up = True
            if job in self._waiting:
                self._waiting.remove(job)

    def close(self, patience: float = 5.0) -> None:
        """Take no more jobs, finish those there are, and end the thread if it is done in ``patience`` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(patience)

    # -- in the thread -------------------------------------------------------------------------------------------------

    def _work(self, first: Callable[[], None] | None) -> None:
        if first is not None:
            first()
        while True:
            batch = self._next()
            if batch is None:
                return
            batch = [job for job in batch if not job.over and job.future.set_running_or_notify_cancel()]
            if batch:
                self._finish(batch)

    def _next(self) -> list[Job] | None:
        with self._changed:
            while not self._waiting:
                if self._closing:
                    return None
                self._changed.wait()
            first = self._waiting.popleft()
            batch, until = [first], time.monotonic() + self._batch_wait
            while self._batch_size > 1:
                self._take_equal(batch)
                left = until - time.monotonic()
                if len(batch) >= self._batch_size or left <= 0 or self._closing:
                    break
                self._changed.wait(left)
            return batch

    def _take_equal(self, batch: list[Job]) -> None:
        for job in [job for job in self._waiting if job.key == batch[0].key][: self._batch_size - len(batch)]:
            self._waiting.remove(job)
            batch.append(job)

    def _finish(self, batch: list[Job]) -> None:
        start = time.monotonic()
        for job in batch:
            job.waited = start - job.since
        self.running = len(batch)
        try:
            results: Sequence[Any] = self._run(batch)
        except Exception as error:  # noqa: BLE001 (the thread outlives whatever happens in a run)
            results = [error] * len(batch)
        finally:
            self.running = 0
            self._metrics.ran([job.waited for job in batch], time.monotonic() - start)
        for job, result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)
