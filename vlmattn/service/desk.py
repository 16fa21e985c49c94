"""What the routes of a service share: the model, the worker, the limits, the counts."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import Request

from vlmattn.service.asking import Found, check_choices, key_of, run_batch
from vlmattn.service.errors import ClientGone, Refused, log
from vlmattn.service.guard import retry_after
from vlmattn.service.metrics import Metrics
from vlmattn.service.options import ServiceOptions
from vlmattn.service.reading import Wanted, receive, wanted_of
from vlmattn.service.worker import GivenUp, Job, Worker

if TYPE_CHECKING:
    from vlmattn.api import Vlm

_T = TypeVar("_T")


class Desk:
    """Takes requests in, lets the model answer them one after the other, and hands answers out.

    Args:
        model: a :class:`vlmattn.Vlm`, or a function that loads one; it is called in the worker's thread.
        when_loaded: told None once the model is loaded, or what went wrong.
    """

    def __init__(
        self,
        model: Vlm | Callable[[], Vlm],
        options: ServiceOptions,
        when_loaded: Callable[[BaseException | None], None] | None = None,
    ) -> None:
        self.options, self.metrics = options, Metrics()
        self._load = model if callable(model) else None
        self._vlm: Vlm | None = None if callable(model) else model
        self._when_loaded = when_loaded
        self.in_hand = 0
        self.failed = False
        self.draining = False
        self.worker = Worker(self._run, self.metrics, batch_size=options.batch_size, batch_wait=options.batch_wait)
        self._pool: ThreadPoolExecutor | None = None
        self.metrics.gauges = {
            "requests_in_hand": ("Requests being read, waiting, running or being written.", lambda: self.in_hand),
            "requests_waiting": ("Requests that wait for the model.", lambda: self.worker.waiting),
            "requests_running": ("Requests that the model runs.", lambda: self.worker.running),
            "ready": ("1 if the model is loaded and requests are taken.", lambda: float(self.state == "ready")),
        }

    # -- its life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to load the model, if it is not there yet, and to work."""
        self.draining = False
        self._pool = self._pool or ThreadPoolExecutor(self.options.threads, thread_name_prefix="vlmattn-pictures")
        self.worker.start(self._loaded if self._vlm is None or self._when_loaded is not None else None)

    def stop(self) -> None:
        """Take nothing more; what runs is finished."""
        self.draining = True
        self.worker.close()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _loaded(self) -> None:
        error: BaseException | None = None
        try:
            self._vlm = self._load() if self._load is not None else self._vlm
        except BaseException as found:  # noqa: BLE001 (told to whoever started the service)
            error, self.failed = found, True
        if self._when_loaded is not None:
            self._when_loaded(error)
        elif error is not None:
            log.error("the model could not be loaded: %s", error)

    @property
    def state(self) -> str:
        """``ready``, ``loading``, ``failed`` (to load) or ``shutting_down``."""
        if self.draining:
            return "shutting_down"
        if self._vlm is None:
            return "failed" if self.failed else "loading"
        return "ready"

    @property
    def vlm(self) -> Vlm:
        """The model.

        Raises:
            Refused: it is not loaded yet.
        """
        if self.failed:
            raise Refused(503, "no_model", "the model could not be loaded; the service's log says why")
        if self._vlm is None:
            raise Refused(503, "loading", "the model is still being loaded: try again", headers=retry_after(5))
        return self._vlm

    # -- before a body is read -----------------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raises Refused while the model is loaded, and once the service is being shut down."""
        if self.draining:
            raise Refused(503, "shutting_down", "the service is being shut down", headers=retry_after(5))
        _ = self.vlm

    def check_room(self) -> None:
        """Raises Refused if too many requests are in hand, this one counted."""
        most = self.options.max_requests
        if self.in_hand > most:
            wait = self.metrics.mean_run * (self.worker.waiting + 1)
            raise Refused(
                429, "too_many_requests", f"{most} requests are in hand already: try again", headers=retry_after(wait)
            )

    # -- one request ---------------------------------------------------------------------------------------------------

    async def answer(self, request: Request, prepare: Callable[[Wanted], None], tell: Callable[[Found], _T]) -> _T:
        """Read a request, run it, and make its answer with ``tell``; pictures are read and drawn in other threads.

        Args:
            prepare: may change what is wanted before it runs. tell: from what was found to the answer.

        Raises:
            Refused: it cannot be read or run, or takes too long. ClientGone: nobody waits for the answer.
            VlmattnError: the picture, the question or the options cannot be used.
        """
        received = await receive(request, self.options)
        deadline = time.monotonic() + self.options.timeout

        def made() -> Wanted:
            wanted = wanted_of(received, self.options)
            prepare(wanted)
            check_choices(self.vlm, wanted)
            return wanted

        gone = asyncio.ensure_future(_disconnected(request))
        try:
            wanted = await self._until(deadline, gone, self._in_pool(made))
            job = Job(wanted, key=key_of(wanted), deadline=deadline)
            found = await self._until(deadline, gone, self._found(job))
            return await self._until(deadline, gone, self._in_pool(lambda: tell(found)))
        finally:
            gone.cancel()

    async def _found(self, job: Job) -> Found:
        self.worker.submit(job)
        try:
            found: Found = await asyncio.wrap_future(job.future)
            return found
        except GivenUp:
            raise self._late() from None
        except asyncio.CancelledError:
            self.worker.give_up(job)
            raise

    def _in_pool(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        if self._pool is None:
            self.start()
        return asyncio.get_running_loop().run_in_executor(self._pool, contextvars.copy_context().run, work)

    async def _until(self, deadline: float, gone: asyncio.Future[None], doing: Any) -> Any:
        task = asyncio.ensure_future(doing)
        try:
            left = max(deadline - time.monotonic(), 0)
            done, _ = await asyncio.wait({task, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if task in done:
                return task.result()
            raise ClientGone if gone in done else self._late()
        finally:
            if not task.done():
                task.cancel()

    def _late(self) -> Refused:
        return Refused(
            504,
            "too_late",
            f"no answer within {self.options.timeout:g} s, so it was given up: try again, or ask for less",
        )

    def _run(self, jobs: Sequence[Job]) -> list[Any]:
        return run_batch(self.vlm, jobs, self.options.max_words)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
