"""A measure of all pairs of scanpaths of one or two sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from vlmattn.core.errors import SpecError
from vlmattn.gaze.fixations import Scanpath
from vlmattn.gaze.scanpaths.measures import ScanpathMetric, scanpath_metric, values_of
from vlmattn.gaze.scanpaths.pairs import Array, Index, check_paths

BLOCK = 20_000
"""Pairs that are worked on at once."""


@dataclass(frozen=True, eq=False)
class ScanpathMatrix:
    """A measure of pairs of scanpaths.

    Attributes:
        metric: what was measured. values: (n, m, k) of n scanpaths with m others; k as many as the measure has parts.
        within: whether the others are the scanpaths themselves.
    """

    metric: ScanpathMetric
    values: Array
    within: bool

    def of(self, part: str | None = None) -> Array:
        """(n, m) of one part, which may be left out if there is only one.

        Raises:
            SpecError: no such part, or several and none named.
        """
        parts = self.metric.parts
        if part is None and not parts:
            return np.asarray(self.values[:, :, 0])
        if part not in parts:
            raise SpecError(f"part must be one of {list(parts)}, got {part!r}")
        return np.asarray(self.values[:, :, parts.index(part)])

    def means(self) -> dict[str, float]:
        """Mean over pairs by name, without NaN; of one set, without each scanpath's pair with itself."""
        counted = ~np.eye(len(self.values), dtype=bool) if self.within else np.ones(self.values.shape[:2], dtype=bool)
        told = {}
        for number, name in enumerate(self.metric.names):
            values = self.values[:, :, number][counted]
            known = values[~np.isnan(values)]
            told[name] = float(known.mean()) if len(known) else float("nan")
        return told


def scanpath_matrix(
    paths: Iterable[Scanpath],
    others: Iterable[Scanpath] | None = None,
    *,
    metric: str | ScanpathMetric = "scanmatch[matlab, 16x12, T 3.5]",
    workers: int = 1,
) -> ScanpathMatrix:
    """A measure of all pairs of scanpaths, many at a time.

    Args:
        paths: n scanpaths, people's where the order counts. others: m more; if None, ``paths`` with themselves. All on
            pictures of one size: ``scaled_to`` brings them there. metric: a name in ``SCANPATH_METRICS``, or a measure.
        workers: processes. Values do not depend on it. With more than one, a script needs
            ``if __name__ == "__main__":``, as always with processes.

    Raises:
        SpecError: an unknown measure, pictures of two sizes, missing durations, or fewer than one worker.

    Example:
        >>> paths = [Scanpath([10.0, 50, x], [20.0, 60, 10], (100, 100)) for x in (30, 60, 90)]
        >>> scanpath_matrix(paths, metric="dtw[sum, px]").of().tolist()
        [[0.0, 30.0, 60.0], [30.0, 0.0, 30.0], [60.0, 30.0, 0.0]]
    """
    measure = scanpath_metric(metric)
    if isinstance(workers, bool) or not isinstance(workers, (int, np.integer)) or workers < 1:
        raise SpecError(f"workers must be a whole number of 1 or more, got {workers!r}")
    mine = list(paths)
    theirs = [] if others is None else list(others)
    check_paths([*mine, *theirs])
    n = len(mine)
    m = n if others is None else len(theirs)
    mirrored = others is None and measure.symmetric
    one, other = np.triu_indices(n) if mirrored else (v.ravel() for v in np.indices((n, m)))
    values = _measured(measure, mine + theirs, one, other + (0 if others is None else n), int(workers))
    table = np.empty((n, m, len(measure.names)))
    table[one, other] = values
    if mirrored:
        table[other, one] = values
    return ScanpathMatrix(measure, table, others is None)


def _measured(metric: ScanpathMetric, paths: list[Scanpath], one: Index, other: Index, workers: int) -> Array:
    blocks = list(_blocks(len(one), workers))
    pieces: Iterable[Array]
    if workers == 1 or len(blocks) < 2:
        pieces = [values_of(metric, paths, one[b], other[b]) for b in blocks]
    else:
        context = get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(blocks)), context, _hold, (metric, paths)) as pool:
            pieces = list(pool.map(_held_values, [one[b] for b in blocks], [other[b] for b in blocks]))
    return np.concatenate([np.zeros((0, len(metric.names))), *pieces])


def _blocks(pairs: int, workers: int) -> Iterator[slice]:
    size = max(1, min(BLOCK, -(-pairs // (4 * workers)) if workers > 1 else BLOCK))
    return (slice(start, start + size) for start in range(0, pairs, size))


_HELD: list[tuple[ScanpathMetric, list[Scanpath]]] = []


def _hold(metric: ScanpathMetric, paths: list[Scanpath]) -> None:
    """What a worker process is given once."""
    _HELD[:] = [(metric, paths)]


def _held_values(one: Index, other: Index) -> Array:
    metric, paths = _HELD[0]
    return values_of(metric, paths, one, other)
