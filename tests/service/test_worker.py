"""The thread that runs the model, and what waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from vlmattn.service.errors import Refused
from vlmattn.service.metrics import Metrics
from vlmattn.service.worker import GivenUp, Job, Worker, check_wanted, stopped_when_given_up


class Model:
    """Answers each payload with itself once it is let; counts passes."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.let, self.hooks = threading.Event(), dict[int, Any]()
        self.let.set()

    def __call__(self, jobs: Sequence[Job]) -> list[Any]:
        self.batches.append([job.payload for job in jobs])
        self.let.wait(5)
        return [ValueError("no") if job.payload == "wrong" else job.payload for job in jobs]


def job(payload: Any, *, key: Any = 0, seconds: float = 5.0) -> Job:
    return Job(payload, key=key, deadline=time.monotonic() + seconds)


@pytest.fixture
def model() -> Model:
    return Model()


def started(model: Model, **options: Any) -> Worker:
    worker = Worker(model, Metrics(), **options)
    worker.start()
    return worker


def held(model: Model, worker: Worker) -> Job:
    """A job that runs until the model is let."""
    model.let.clear()
    first = job("first", key="alone")
    worker.submit(first)
    while not model.batches:
        time.sleep(0.001)
    return first


def test_answers_come_in_order_and_errors_go_to_their_own_job(model: Model) -> None:
    worker = started(model)
    jobs = [job(payload) for payload in ("a", "wrong", "b")]
    for one in jobs:
        worker.submit(one)
    assert jobs[0].future.result(5) == "a"
    with pytest.raises(ValueError, match="no"):
        jobs[1].future.result(5)
    assert jobs[2].future.result(5) == "b"
    assert model.batches == [["a"], ["wrong"], ["b"]]
    worker.close()


def test_equal_jobs_run_together_up_to_the_limit_and_others_keep_their_turn(model: Model) -> None:
    worker = started(model, batch_size=3)
    held(model, worker)
    jobs = [job(n, key="even" if n % 2 == 0 else "odd") for n in range(9)]
    for one in jobs:
        worker.submit(one)
    model.let.set()
    assert [one.future.result(5) for one in jobs] == list(range(9))
    assert model.batches[1:] == [[0, 2, 4], [1, 3, 5], [6, 8], [7]]
    worker.close()


def test_a_batch_waits_for_more_but_not_longer_than_it_may(model: Model) -> None:
    worker = started(model, batch_size=2, batch_wait=0.2)
    alone = job("alone")
    start = time.monotonic()
    worker.submit(alone)
    alone.future.result(5)
    assert time.monotonic() - start >= 0.2
    pair = [job("one"), job("two")]
    worker.submit(pair[0])
    time.sleep(0.02)
    worker.submit(pair[1])
    for one in pair:
        one.future.result(5)
    assert model.batches[-1] == ["one", "two"]
    worker.close()


def test_what_nobody_waits_for_is_not_run(model: Model) -> None:
    worker = started(model)
    first = held(model, worker)
    gone, late, cancelled, wanted = job("gone"), job("late", seconds=0.0), job("cancelled"), job("wanted")
    for one in (gone, late, cancelled, wanted):
        worker.submit(one)
    worker.give_up(gone)
    cancelled.future.cancel()
    assert worker.waiting == 3
    model.let.set()
    assert wanted.future.result(5) == "wanted"
    assert first.future.result(5) == "first"
    assert model.batches == [["first"], ["wanted"]]
    worker.close()


def test_a_run_that_fails_as_a_whole_fails_every_job_and_the_thread_lives_on() -> None:
    def run(jobs: Sequence[Job]) -> list[Any]:
        if jobs[0].payload == "broken":
            raise RuntimeError("all of it")
        return [1]

    worker = Worker(run, Metrics())
    worker.start()
    broken, fine = job("broken"), job("fine")
    worker.submit(broken)
    worker.submit(fine)
    with pytest.raises(RuntimeError, match="all of it"):
        broken.future.result(5)
    assert fine.future.result(5) == 1
    assert worker.running == 0
    worker.close()


def test_closing_finishes_what_there_is_and_refuses_what_comes(model: Model) -> None:
    worker = started(model)
    first = held(model, worker)
    waiting = job("waiting")
    worker.submit(waiting)
    closing = threading.Thread(target=worker.close)
    closing.start()
    while not worker._closing:
        time.sleep(0.001)
    with pytest.raises(Refused, match="shut down") as refused:
        worker.submit(job("late"))
    assert refused.value.status == 503
    model.let.set()
    closing.join(5)
    assert (first.future.result(0), waiting.future.result(0)) == ("first", "waiting")
    worker.start()
    again = job("again")
    worker.submit(again)
    assert again.future.result(5) == "again"
    worker.close()


def test_passes_stop_only_when_nobody_of_a_batch_waits_and_the_hook_is_gone_then() -> None:
    torch = pytest.importorskip("torch")
    model, jobs = torch.nn.Linear(2, 2), [job("a"), job("b")]
    jobs[0].given_up = True
    with stopped_when_given_up(model, jobs):
        model(torch.zeros(2))
        jobs[1].deadline = 0.0
        with pytest.raises(GivenUp):
            model(torch.zeros(2))
    assert not model._forward_pre_hooks
    with pytest.raises(GivenUp):
        check_wanted(jobs)


def test_times_are_counted_in_their_buckets_and_names_of_clients_are_escaped() -> None:
    metrics = Metrics()
    metrics.answered("/v1/ask", "POST", 200, 0.3)
    metrics.answered('/"\\', "GET", 404, 100_000.0)
    metrics.ran([0.1, 0.2], 1.0)
    text = metrics.text()
    assert 'vlmattn_requests_total{path="/v1/ask",method="POST",status="200"} 1' in text
    assert 'path="/\\"\\\\"' in text
    assert 'vlmattn_request_seconds_bucket{le="0.25"} 0' in text
    assert 'vlmattn_request_seconds_bucket{le="0.5"} 1' in text
    assert 'vlmattn_request_seconds_bucket{le="120.0"} 1' in text
    assert 'vlmattn_request_seconds_bucket{le="+Inf"} 2' in text
    assert "vlmattn_request_seconds_count 2" in text
    assert "vlmattn_wait_seconds_count 2" in text
    assert "vlmattn_batches_total 1" in text
    assert metrics.mean_run == 0.5
