"""The real thing: ``vlmattn serve`` in a process of its own, with clients of every kind."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vlmattn as va
from vlmattn.cli import main

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
import httpx

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="the system has no local sockets")
QUESTIONS = ("How many objects are there?", "Is there a red heart?", "What color is the ring?", "Describe the picture.")


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


SCENES = [va.scene.split_item("test", seed=0, index=index)[0] for index in (2, 9)]
FILES = [png(scene.image) for scene in SCENES]


class Served:
    """A process that serves the scene model on a local socket."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.path, self.log = folder / "s", folder / "log"
        self.log_file = self.log.open("wb")
        command = [sys.executable, "-m", "vlmattn", "serve", "--uds", str(self.path), *options]
        self.process = subprocess.Popen(command, stderr=self.log_file)

    def wait(self) -> None:
        end = time.monotonic() + 180
        while not self.ready():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end
            time.sleep(0.1)

    def ready(self) -> bool:
        with socket.socket(socket.AF_UNIX) as asking:
            if asking.connect_ex(str(self.path)):  # not there yet, or nobody listens on it
                return False
        with self.client() as client:
            return client.get("/readyz").status_code == 200

    def client(self) -> httpx.Client:
        return httpx.Client(transport=httpx.HTTPTransport(uds=str(self.path)), base_url="http://service", timeout=120)

    def raw(self, *parts: bytes) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(60)
        made.connect(str(self.path))
        for part in parts:
            made.sendall(part)
        return made

    def metric(self, name: str) -> float:
        with self.client() as client:
            lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    folder = Path(tempfile.mkdtemp(prefix="vlmattn-"))  # a local socket's path must be short
    limits = (
        "--max-body",
        "3",
        "--read-timeout",
        "8",
        "--write-timeout",
        "2",
        "--max-requests",
        "250",
        "--timeout",
        "240",
    )
    found = Served(folder, *limits, "--batch-size", "8", "--batch-wait-ms", "5")
    try:
        yield found
    finally:
        if found.process.poll() is None:
            found.process.kill()
        found.process.wait()
        found.log_file.close()
        shutil.rmtree(folder)


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    served.wait()
    with served.client() as found:
        yield found


def request(body: bytes, length: int | None = None, kind: str = "application/json") -> bytes:
    head = f"POST /v1/ask HTTP/1.1\r\nHost: service\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


def everything(connection: socket.socket) -> bytes:
    found = b""
    while part := connection.recv(65536):
        found += part
    return found


def test_two_hundred_at_once_get_the_answers_that_each_would_get_alone(client: httpx.Client, served: Served) -> None:
    wanted = [(number, question) for number in range(len(FILES)) for question in QUESTIONS]

    async def one(session: httpx.AsyncClient, number: int, question: str) -> Any:
        files, data = {"image": FILES[number]}, {"question": question, "max_new_tokens": "12"}
        return await session.post("/v1/ask", files=files, data=data)

    async def all_of_them() -> list[Any]:
        transport = httpx.AsyncHTTPTransport(uds=str(served.path), limits=httpx.Limits(max_connections=None))
        async with httpx.AsyncClient(transport=transport, base_url="http://service", timeout=240) as session:
            return await asyncio.gather(*(one(session, *wanted[n % len(wanted)]) for n in range(200)))

    answers = asyncio.run(all_of_them())
    assert [one.status_code for one in answers] == [200] * 200
    vlm = va.load("scene")
    for at, (number, question) in enumerate(wanted):
        run = vlm.ask(SCENES[number].image, question, max_new_tokens=12)
        boxes = [run.map(w).box_xyxy() for w in run.words() if any(c.isalnum() for c in w.text)]
        for answer in answers[at :: len(wanted)]:
            assert answer.json()["answer"] == run.answer
            assert [tuple(word["box_xyxy"]) for word in answer.json()["words"]] == boxes
    assert max(one.json()["seconds"]["together"] for one in answers) > 1
    assert served.metric("vlmattn_requests_in_hand") == 0


@pytest.mark.hostile
def test_what_is_too_large_is_refused_before_it_is_there(client: httpx.Client, served: Served) -> None:
    with served.raw(request(b"", length=10**12)) as connection:
        assert everything(connection).startswith(b"HTTP/1.1 413 ")
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    head = b"POST /v1/ask HTTP/1.1\r\nHost: s\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    with served.raw(head, *[chunk] * 64) as connection:
        assert everything(connection).startswith(b"HTTP/1.1 413 ")
    found = client.post("/v1/ask", files={"image": b"x" * 4 * 2**20}, data={"question": "a"})
    assert (found.status_code, found.json()["error"]) == (413, "body_too_large")


@pytest.mark.hostile
def test_garbage_cut_pictures_and_other_kinds_of_bodies(client: httpx.Client, served: Served) -> None:
    noise = np.random.default_rng(0).bytes(2000)
    for file, status in ((noise, 415), (FILES[0][:-2000], 422), (b"", 415), (b"GIF89a", 415)):
        assert client.post("/v1/ask", files={"image": file}, data={"question": "a"}).status_code == status
    assert client.post("/v1/ask", content=noise, headers={"content-type": "application/json"}).status_code == 400
    assert client.post("/v1/ask", content=noise, headers={"content-type": "image/png"}).status_code == 415
    with served.raw(noise + b"\r\n\r\n") as connection:
        assert everything(connection).startswith(b"HTTP/1.1 400 ")


@pytest.mark.hostile
def test_slow_senders_are_cut_off_and_others_served_meanwhile(client: httpx.Client, served: Served) -> None:
    start = time.monotonic()
    headless, bodiless = served.raw(b"POST /v1/ask HTTP/1.1\r\nHost:"), served.raw(request(b"{", length=50))
    assert client.get("/healthz").status_code == 200
    with headless, bodiless:
        for _ in range(24):
            try:
                headless.sendall(b"x")
                bodiless.sendall(b" ")
            except (BrokenPipeError, ConnectionResetError):
                break
            time.sleep(0.5)
        answer = everything(bodiless)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"] == "too_slow"
        assert everything_or_reset(headless) == b""
    assert time.monotonic() - start < 40


def everything_or_reset(connection: socket.socket) -> bytes:
    try:
        return everything(connection)
    except ConnectionResetError:
        return b""


@pytest.mark.hostile
def test_who_does_not_read_is_cut_off(client: httpx.Client, served: Served) -> None:
    rng = np.random.default_rng(0)
    file = png(Image.fromarray(rng.integers(0, 256, (700, 900, 3), dtype=np.uint8)))
    body = {"image": base64.b64encode(file).decode(), "question": QUESTIONS[0], "overlay": "png", "max_new_tokens": 2}
    answered = 'vlmattn_requests_total{path="/v1/ask",method="POST",status="200"}'
    before, end = served.metric(answered), time.monotonic() + 60
    with served.raw(request(json.dumps(body).encode())) as connection:
        while served.metric(answered) == before and served.metric("vlmattn_requests_in_hand") < 1:
            assert time.monotonic() < end
            time.sleep(0.05)
        while served.metric("vlmattn_requests_in_hand"):
            assert time.monotonic() < end
            time.sleep(0.1)
        time.sleep(3)
        answer = everything_or_reset(connection)
    assert len(answer) < len(file)
    assert client.get("/healthz").status_code == 200


def test_who_hangs_up_is_forgotten(client: httpx.Client, served: Served) -> None:
    body = {"image": base64.b64encode(FILES[0]).decode(), "question": "Describe the picture.", "check": True}
    before = served.metric('vlmattn_refused_total{reason="client_gone"}')
    for cut in (200, None):
        served.raw(request(json.dumps(body).encode())[:cut]).close()
    end = time.monotonic() + 60
    while served.metric('vlmattn_refused_total{reason="client_gone"}') < before + 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert served.metric("vlmattn_requests_in_hand") == 0


def test_when_told_to_stop_it_finishes_what_it_has(client: httpx.Client, served: Served) -> None:
    body = {"image": base64.b64encode(FILES[0]).decode(), "question": "Describe the picture."}
    open_ones = [served.raw(request(json.dumps(body | {"max_new_tokens": n}).encode())) for n in (9, 10, 11, 12)]
    while served.metric("vlmattn_requests_in_hand") < 4:
        time.sleep(0.01)
    served.process.send_signal(signal.SIGTERM)
    for connection in open_ones:
        with connection:
            assert everything(connection).startswith(b"HTTP/1.1 200 ")
    assert served.process.wait(60) == 0
    assert not served.path.exists()
    told = [line for line in served.log.read_text().splitlines() if "Invalid HTTP request" not in line]
    assert told == [f"vlmattn: scene on unix:{served.path}"]


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--max-requests", "0"], "max_requests must be a whole number from 1 to 100,000, got 0"),
        (["--timeout", "nan"], "timeout must be a number of seconds from 0.1 to 86400"),
        (["--batch-wait-ms", "-1"], "batch_wait must be a number of seconds"),
        (["--max-body", "0"], "max_body must be"),
        (["--port", "70000"], "--port"),
        (["--uds", "x", "--port", "1"], "leave out --host and --port"),
        (["--allow-origin", "example.org"], "an origin is written https://example.org"),
        (["--token-file", "no-such-file"], "the token file 'no-such-file' cannot be read: No such file"),
        (["--uds", "."], "there is something else"),
        (["--uds", "no/such/folder/s"], "cannot listen on 'no/such/folder/s': No such file"),
        (["--uds", "s", "--model", "no-such-model"], "no-such-model"),
    ],
)
def test_options_that_cannot_be_end_in_one_line(
    options: list[str], text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as done:
        main(["serve", *options])
    told = capsys.readouterr().err
    assert (done.value.code, told.count("\n")) == (2, 1), told
    assert text in told
    assert not list(tmp_path.iterdir())


def test_a_token_that_anybody_could_guess_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_text("short\n")
    with pytest.raises(SystemExit) as done:
        main(["serve", "--token-file", str(tmp_path / "token")])
    assert done.value.code == 2
    assert "at least 16" in capsys.readouterr().err


def test_a_port_that_is_taken_ends_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "vlmattn", "serve", "--port", port], capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr
