"""Counts and times in the text format of Prometheus (exposition format 0.0.4)."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper ends of times, in seconds."""


def _labels(pairs: Sequence[tuple[str, str]]) -> str:
    if not pairs:
        return ""
    told = (f'{n}="{_escaped(v)}"' for n, v in pairs)
    return "{" + ",".join(told) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class _Times:
    """A histogram."""

    def __init__(self) -> None:
        self.counts, self.sum = [0] * (len(BUCKETS) + 1), 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum += seconds

    def lines(self, name: str) -> Iterable[str]:
        so_far = 0
        for end, count in zip((*map(str, BUCKETS), "+Inf"), self.counts, strict=True):
            so_far += count
            yield f'{name}_bucket{{le="{end}"}} {so_far}'
        yield f"{name}_sum {self.sum:.6f}"
        yield f"{name}_count {so_far}"


class Metrics:
    """What a service counts; safe to use from several threads. Its size does not depend on what clients send."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._refused: Counter[str] = Counter()
        self._times = {"request": _Times(), "wait": _Times(), "run": _Times()}
        self._batches = self._batched = 0
        self._mean_run = 0.0
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def answered(self, path: str, method: str, status: int, seconds: float) -> None:
        """One request was answered."""
        with self._lock:
            self._requests[path, method, str(status)] += 1
            self._times["request"].add(seconds)

    def refused(self, code: str) -> None:
        """One request was refused, with a code of :class:`vlmattn.service.errors.Refused`."""
        with self._lock:
            self._refused[code] += 1

    def ran(self, waits: Sequence[float], seconds: float) -> None:
        """The model ran a batch of requests that had waited so many seconds."""
        with self._lock:
            self._batches += 1
            self._batched += len(waits)
            for wait in waits:
                self._times["wait"].add(wait)
            self._times["run"].add(seconds)
            per_request = seconds / max(len(waits), 1)
            self._mean_run = per_request if self._batches == 1 else 0.8 * self._mean_run + 0.2 * per_request

    @property
    def mean_run(self) -> float:
        """Seconds per request, later runs counting for more."""
        return self._mean_run

    def text(self) -> str:
        """Everything, as Prometheus reads it."""
        gauges = {name: (told, value()) for name, (told, value) in self.gauges.items()}
        with self._lock:
            return "\n".join([*self._counters(), *_gauge_lines(gauges), *self._histograms()]) + "\n"

    def _counters(self) -> Iterable[str]:
        yield from _head("vlmattn_requests_total", "counter", "Requests answered.")
        for (path, method, status), count in sorted(self._requests.items()):
            pairs = (("path", path), ("method", method), ("status", status))
            yield f"vlmattn_requests_total{_labels(pairs)} {count}"
        yield from _head("vlmattn_refused_total", "counter", "Requests refused, by reason.")
        for code, count in sorted(self._refused.items()):
            yield f"vlmattn_refused_total{_labels((('reason', code),))} {count}"
        yield from _head("vlmattn_batches_total", "counter", "Runs of the model.")
        yield f"vlmattn_batches_total {self._batches}"
        yield from _head("vlmattn_batched_requests_total", "counter", "Requests in these runs.")
        yield f"vlmattn_batched_requests_total {self._batched}"

    def _histograms(self) -> Iterable[str]:
        told = {"request": "from first byte to answer", "wait": "waiting for the model", "run": "of the model's runs"}
        for name, times in self._times.items():
            whole = f"vlmattn_{name}_seconds"
            yield from _head(whole, "histogram", f"Seconds {told[name]}.")
            yield from times.lines(whole)


def _head(name: str, kind: str, told: str) -> tuple[str, str]:
    return f"# HELP {name} {told}", f"# TYPE {name} {kind}"


def _gauge_lines(gauges: dict[str, tuple[str, float]]) -> Iterable[str]:
    for name, (told, value) in gauges.items():
        yield from _head(f"vlmattn_{name}", "gauge", told)
        yield f"vlmattn_{name} {value:g}"
