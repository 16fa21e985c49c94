"""What the service costs over ``vlm.ask`` itself, how many requests it answers, and whether its memory stays flat.

``python benchmarks/service.py --requests 2000 --clients 8``. The model in the box is served by ``vlmattn serve`` in a
process of its own, on a local socket. First one client asks and, in turn, the same questions are asked of the library
in this process: the overhead is the median of the paired ratios. Then several clients ask at once: throughput and
percentiles of latency. Resident memory of the server is read after every request of a client that counts, and its slope
is fitted by least squares over the second half; warm-up is the first half.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np

import vlmattn as va

PAGE = 4096
MODEL_QUESTIONS = ("How many objects are there?", "Is there a red circle in the picture?", "Describe the picture.")


def resident(pid: int) -> int:
    """Bytes of memory that a process holds (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE


def items(count: int) -> list[tuple[Any, bytes, str]]:
    """Pictures, their files, and questions."""
    found = []
    for index in range(count):
        scene, _ = va.scene.split_item("test", seed=0, index=index)
        stream = io.BytesIO()
        scene.image.save(stream, "PNG")
        found.append((scene.image, stream.getvalue(), MODEL_QUESTIONS[index % len(MODEL_QUESTIONS)]))
    return found


def start(path: Path, options: list[str]) -> subprocess.Popen[bytes]:
    """A server that is ready."""
    process = subprocess.Popen([sys.executable, "-m", "vlmattn", "serve", "-q", "--uds", str(path), *options])
    while process.poll() is None:
        try:
            with client(path) as asking:
                if asking.get("/readyz").status_code == 200:
                    return process
        except httpx.TransportError:  # the socket is not there yet, or nobody listens on it
            pass
        time.sleep(0.2)
    raise SystemExit("the server did not start")


def client(path: Path) -> httpx.Client:
    """One connection."""
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://service", timeout=300)


def ask(asking: httpx.Client, file: bytes, question: str, tokens: int) -> float:
    """Seconds until the answer is there."""
    begin = time.perf_counter()
    data = {"question": question, "max_new_tokens": str(tokens)}
    answer = asking.post("/v1/ask", files={"image": file}, data=data)
    answer.raise_for_status()
    return time.perf_counter() - begin


def direct(vlm: va.Vlm, image: Any, question: str, tokens: int) -> float:
    """Seconds of the same by the library: answer, grounding and boxes of every word."""
    begin = time.perf_counter()
    run = vlm.ask(image, question, max_new_tokens=tokens)
    run.grounding()
    for word in run.words():
        if any(c.isalnum() for c in word.text):
            run.map(word).box_xyxy()
    return time.perf_counter() - begin


def overhead(path: Path, pairs: int, tokens: int) -> dict[str, float]:
    """Paired ratios of a request to the same by the library."""
    vlm, asked, ratios = va.load("scene"), items(12), []
    with client(path) as asking:
        for number in range(pairs + 3):
            image, file, question = asked[number % len(asked)]
            one, two = ask(asking, file, question, tokens), direct(vlm, image, question, tokens)
            ratios.append((one / two, one - two))
    kept = ratios[3:]
    return {
        "pairs": pairs,
        "ratio_median": statistics.median(r for r, _ in kept),
        "added_ms_median": 1000 * statistics.median(s for _, s in kept),
    }


def crowd(path: Path, pid: int, requests: int, clients: int, tokens: int) -> dict[str, Any]:
    """Throughput, latencies, and memory per request."""
    asked, left, lock = items(12), iter(range(requests)), threading.Lock()
    seconds: list[float] = []
    memory: list[int] = []

    def work() -> None:
        with client(path) as asking:
            while True:
                with lock:
                    number = next(left, None)
                if number is None:
                    return
                _, file, question = asked[number % len(asked)]
                took = ask(asking, file, question, tokens)
                with lock:
                    seconds.append(took)
                    memory.append(resident(pid))
                    if not len(memory) % 200:
                        print(f"{len(memory)} of {requests}, {memory[-1] / 2**20:.0f} MiB", file=sys.stderr, flush=True)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = time.perf_counter() - begin
    return {
        "requests": len(seconds),
        "clients": clients,
        "requests_per_second": len(seconds) / whole,
        "latency_s": {f"p{p}": float(np.percentile(seconds, p)) for p in (50, 90, 95, 99, 100)},
        "memory": slope(memory),
    }


def slope(memory: list[int]) -> dict[str, float]:
    """How resident memory changes per request, over the second half."""
    half = np.asarray(memory[len(memory) // 2 :], dtype=float)
    fitted = np.polyfit(np.arange(len(half)), half, 1)[0] if len(half) > 1 else 0.0
    return {
        "first_mib": memory[0] / 2**20,
        "half_mib": float(half[0]) / 2**20,
        "last_mib": memory[-1] / 2**20,
        "bytes_per_request": float(fitted),
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=4, help="the most that an answer may have")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vlmattn-") as folder:
        path = Path(folder) / "s"
        process = start(path, ["--batch-size", str(given.batch_size), "--timeout", "300"])
        try:
            told = {"overhead": overhead(path, given.pairs, given.tokens)}
            told["crowd"] = crowd(path, process.pid, given.requests, given.clients, given.tokens)
        finally:
            process.terminate()
            process.wait(60)
    print(json.dumps(told | {"batch_size": given.batch_size, "tokens": given.tokens}, indent=2))


if __name__ == "__main__":
    main()
