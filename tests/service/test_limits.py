"""Limits of size, time and number, on the application itself."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import vlmattn as va

pytest.importorskip("fastapi")
import httpx

from vlmattn.service import ServiceOptions, create_app
from vlmattn.service.errors import Refused
from vlmattn.service.guard import Exchange

SCENE, _ = va.scene.split_item("test", seed=0, index=9)
_STREAM = io.BytesIO()
SCENE.image.save(_STREAM, "PNG")
FIELDS: dict[str, Any] = {
    "files": {"image": _STREAM.getvalue()},
    "data": {"question": "Describe the picture.", "max_new_tokens": "24"},
}


@pytest.fixture(scope="module")
def vlm() -> va.Vlm:
    return va.load("scene")


def served(vlm: Any, options: ServiceOptions, work: Callable[[Any, Any], Any]) -> Any:
    """What ``work(client, desk)`` gives, run in an event loop."""
    app = create_app(vlm, options)

    async def run() -> Any:
        app.state.desk.start()
        try:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://service", timeout=60) as client:
                return await work(client, app.state.desk)
        finally:
            app.state.desk.stop()

    return asyncio.run(run())


async def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


@pytest.fixture
def busy(vlm: va.Vlm) -> Iterator[threading.Event]:
    """The model is kept by somebody else until the event is set."""
    done, taken = threading.Event(), threading.Event()

    def keep() -> None:
        with vlm.alone():
            taken.set()
            done.wait(60)

    thread = threading.Thread(target=keep)
    thread.start()
    taken.wait(5)
    yield done
    done.set()
    thread.join()


def test_one_too_many_is_told_to_come_again_and_nothing_else_waits(vlm: va.Vlm, busy: threading.Event) -> None:
    async def work(client: Any, desk: Any) -> None:
        first = [asyncio.ensure_future(client.post("/v1/ask", **FIELDS)) for _ in range(2)]
        await until(lambda: desk.worker.running == 1 and desk.worker.waiting == 1)
        refused = await client.post("/v1/ask", **FIELDS)
        assert (refused.status_code, refused.json()["error"]) == (429, "too_many_requests")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await client.get("/healthz")).status_code == 200
        text = (await client.get("/metrics")).text
        assert "vlmattn_requests_waiting 1" in text
        assert "vlmattn_requests_in_hand 2" in text
        busy.set()
        assert [one.status_code for one in await asyncio.gather(*first)] == [200, 200]
        assert (await client.post("/v1/ask", **FIELDS)).status_code == 200
        assert desk.in_hand == 0

    served(vlm, ServiceOptions(max_requests=2), work)


def test_a_request_that_waits_too_long_is_given_up_and_not_run(vlm: va.Vlm, busy: threading.Event) -> None:
    async def work(client: Any, desk: Any) -> None:
        late = await asyncio.gather(*(client.post("/v1/ask", **FIELDS) for _ in range(3)))
        assert [(one.status_code, one.json()["error"]) for one in late] == [(504, "too_late")] * 3
        assert "0.8 s" in late[0].json()["message"]
        assert desk.worker.waiting == 0
        busy.set()
        await until(lambda: desk.worker.running == 0)
        assert "vlmattn_batched_requests_total 1" in desk.metrics.text()

    served(vlm, ServiceOptions(timeout=0.8), work)


def test_a_run_that_takes_too_long_is_stopped_and_the_next_one_has_the_model(vlm: va.Vlm) -> None:
    passes = []

    def slow(*_: Any) -> None:
        passes.append(0)
        time.sleep(0.3)

    async def work(client: Any, desk: Any) -> None:
        handle = vlm.model.register_forward_hook(slow)
        try:
            late = await client.post("/v1/ask", **FIELDS)
            assert (late.status_code, late.json()["error"]) == (504, "too_late")
            await until(lambda: desk.worker.running == 0)
        finally:
            handle.remove()
        assert 1 <= len(passes) <= 12
        desk.options = ServiceOptions()
        assert (await client.post("/v1/ask", **FIELDS)).status_code == 200

    served(vlm, ServiceOptions(timeout=2.0), work)
    assert not vlm.model._forward_pre_hooks


def test_who_leaves_while_waiting_is_not_run(vlm: va.Vlm, busy: threading.Event) -> None:
    async def work(client: Any, desk: Any) -> None:
        first = asyncio.ensure_future(client.post("/v1/ask", **FIELDS))
        await until(lambda: desk.worker.running == 1)
        gone = asyncio.ensure_future(client.post("/v1/ask", **FIELDS))
        await until(lambda: desk.worker.waiting == 1)
        gone.cancel()
        await until(lambda: desk.worker.waiting == 0)
        busy.set()
        assert (await first).status_code == 200
        assert "vlmattn_batched_requests_total 1" in desk.metrics.text()
        assert desk.in_hand == 0

    served(vlm, ServiceOptions(), work)


def test_until_the_model_is_there_only_health_is_told() -> None:
    let = threading.Event()

    def load() -> Any:
        let.wait(30)
        raise ValueError("no such model")

    async def work(client: Any, desk: Any) -> None:
        assert (await client.get("/healthz")).status_code == 200
        for path in ("/readyz", "/v1/model"):
            assert (await client.get(path)).status_code == 503
        refused = await client.post("/v1/ask", **FIELDS)
        assert (refused.status_code, refused.json()["error"]) == (503, "loading")
        assert "retry-after" in refused.headers
        let.set()
        await until(lambda: desk.failed)
        assert (await client.get("/readyz")).json() == {"status": "failed"}
        assert (await client.post("/v1/ask", **FIELDS)).json()["error"] == "no_model"

    served(load, ServiceOptions(), work)


def test_a_service_that_is_being_shut_down_takes_nothing(vlm: va.Vlm) -> None:
    async def work(client: Any, desk: Any) -> None:
        desk.draining = True
        refused = await client.post("/v1/ask", **FIELDS)
        assert (refused.status_code, refused.json()["error"]) == (503, "shutting_down")
        assert (await client.get("/readyz")).json() == {"status": "shutting_down"}

    served(vlm, ServiceOptions(), work)


@pytest.mark.parametrize("bad", [False, True])
def test_requests_of_equal_settings_run_together_and_a_bad_one_spoils_no_other(vlm: va.Vlm, bad: bool) -> None:
    questions = ["How many objects are there?", "Describe the picture.", "Is there a red heart?"]
    questions += ["What is <image>?"] if bad else []

    async def work(client: Any, desk: Any) -> None:
        answers = await asyncio.gather(
            *(client.post("/v1/ask", files=FIELDS["files"], data={"question": one}) for one in questions)
        )
        assert [one.status_code for one in answers] == [200, 200, 200, *[422] * bad]
        for question, answer in zip(questions[:3], answers, strict=False):
            assert answer.json()["answer"] == vlm.ask(SCENE.image, question).answer
            assert answer.json()["seconds"]["together"] == (1 if bad else 3)

    served(vlm, ServiceOptions(batch_size=len(questions), batch_wait=5.0), work)


# -- bodies, as a server hands them over -------------------------------------------------------------------------------


class Sender:
    """Gives out messages, one after ``pause`` seconds each, and keeps what is sent back."""

    def __init__(self, *bodies: bytes, pause: float = 0.0, whole: bool = True) -> None:
        self.left, self.pause, self.whole = list(bodies), pause, whole
        self.sent: list[Any] = []

    async def receive(self) -> Any:
        await asyncio.sleep(self.pause)
        if not self.left:
            await asyncio.sleep(3600)
        body = self.left.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(self.left) or not self.whole}

    async def send(self, message: Any) -> None:
        self.sent.append(message)


def exchange(sender: Sender, *headers: tuple[bytes, bytes], **options: Any) -> Exchange:
    class Held:
        def __init__(self) -> None:
            self.options = ServiceOptions(**options)

    scope = {"type": "http", "headers": [(b"transfer-encoding", b"chunked"), *headers]}
    held: Any = Held()
    return Exchange(scope, sender.receive, sender.send, held)


async def read(found: Exchange) -> bytes:
    body, more = b"", True
    while more:
        message = await found.receive()
        body, more = body + message["body"], message["more_body"]
    return body


def test_a_body_without_a_length_is_counted_as_it_comes() -> None:
    sender = Sender(*[b"x" * 500] * 5)
    with pytest.raises(Refused, match="over the limit of 1,024 bytes") as refused:
        asyncio.run(read(exchange(sender, max_body=1024)))
    assert refused.value.status == 413
    assert len(sender.left) == 2
    assert asyncio.run(read(exchange(Sender(b"x" * 500, b"x" * 524), max_body=1024))) == b"x" * 1024


def test_a_body_that_comes_byte_by_byte_is_cut_off() -> None:
    sender = Sender(*[b"x"] * 100, pause=0.02)
    start = time.monotonic()
    with pytest.raises(Refused, match="did not arrive within 0") as refused:
        asyncio.run(read(exchange(sender, read_timeout=0.2)))
    assert refused.value.status == 408
    assert time.monotonic() - start < 3
    assert len(sender.left) > 50


def test_who_is_refused_while_sending_is_listened_to_for_a_moment_and_then_left() -> None:
    async def refuse(sender: Sender) -> list[Any]:
        found = exchange(sender)
        await found.send({"type": "http.response.start", "status": 413, "headers": []})
        await found.send({"type": "http.response.body", "body": b"no"})
        return sender.sent

    sender = Sender(b"a", b"b")
    start, first, last = asyncio.run(refuse(sender))
    assert (b"connection", b"close") in start["headers"]
    assert (first["body"], first["more_body"], last["more_body"]) == (b"no", True, False)
    assert not sender.left
    before = time.monotonic()
    asyncio.run(refuse(Sender(b"a", whole=False)))
    assert 1.5 < time.monotonic() - before < 6
