"""Batches through the model one after the other, while threads beside it read the next pictures and draw the last maps.

All queues are bounded, so memory does not grow with the table: so many batches are read ahead, and so many may wait to
be drawn before the model has to.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from vlmattn.pipelines.asking import Asked, Loaded
from vlmattn.pipelines.drawing import draw_word, finished, load_row
from vlmattn.pipelines.job import Drawing
from vlmattn.pipelines.rows import Row

Batch = tuple[int, tuple[Row, ...]]
"""Number and rows."""
AHEAD = 2


@dataclass(frozen=True)
class Beside:
    """What is done beside the model.

    Attributes:
        workers: threads. images: folder or address that relative pictures start from. files: the same that overlays
            go to. drawing: what they look like.
    """

    workers: int
    images: str
    files: str
    drawing: Drawing


def flow(
    batches: Iterable[Batch], ask: Callable[[Sequence[Loaded]], list[Asked]], beside: Beside
) -> Generator[tuple[int, list[dict[str, Any]]], None, None]:
    """Records of each batch, in the order of the batches, once all its files are written.

    Args:
        ask: the model; only called from the thread that iterates.
    """
    waiting = iter(batches)
    reading: deque[tuple[int, list[Future[Loaded]]]] = deque()
    drawing: deque[_Drawing] = deque()
    with _threads(beside.workers) as pool:

        def read(count: int) -> None:
            for number, rows in islice(waiting, count):
                reading.append((number, [pool.submit(load_row, row, beside.images) for row in rows]))

        read(AHEAD + 1)
        while reading:
            number, futures = reading.popleft()
            asked = ask([one.result() for one in futures])
            read(1)
            drawing.append(_Drawing(number, asked, [_draw(pool, one, beside) for one in asked]))
            while drawing and (len(drawing) > AHEAD or drawing[0].done):
                yield drawing.popleft().records()
        while drawing:
            yield drawing.popleft().records()


@dataclass(frozen=True)
class _Drawing:
    number: int
    asked: Sequence[Asked]
    words: Sequence[Sequence[Future[dict[str, Any]]]]

    @property
    def done(self) -> bool:
        return all(one.done() for row in self.words for one in row)

    def records(self) -> tuple[int, list[dict[str, Any]]]:
        pairs = zip(self.asked, self.words, strict=True)
        return self.number, [finished(asked, [one.result() for one in words]) for asked, words in pairs]


def _draw(pool: ThreadPoolExecutor, asked: Asked, beside: Beside) -> list[Future[dict[str, Any]]]:
    return [
        pool.submit(draw_word, asked.row, number, word, beside.drawing, beside.files)
        for number, word in enumerate(asked.words)
    ]


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that end with the context; what has not begun by then never does."""
    pool = ThreadPoolExecutor(count, thread_name_prefix="vlmattn-overlay")
    # Reading a picture sets the filters of warnings for the whole process and back, in whatever order threads come.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)
