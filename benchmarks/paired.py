"""Paired measurements: the same questions, or the same work, under two conditions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vlmattn.evaluate import statistics


def cpu_seconds(run: Callable[[], Any]) -> float:
    """CPU time of this process that one call takes."""
    start = time.process_time()
    run()
    return time.process_time() - start


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Exact two-sided p-value that as many questions got better as worse (McNemar, 1947); 1 where none changed."""
    return statistics.mcnemar(after, before).p


def difference(
    before: Sequence[float], after: Sequence[float], *, seed: int = 0, draws: int = 2000
) -> dict[str, float]:
    """Mean of after - before with its 95 % percentile bootstrap interval over questions."""
    change = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    rng = np.random.default_rng(seed)
    means = change[rng.integers(0, len(change), (draws, len(change)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": float(change.mean()), "low": float(low), "high": float(high)}
