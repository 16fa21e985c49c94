"""How sure a score is, and whether two scores differ: intervals and tests whose unit is the picture.

Six questions about one picture are not six independent ones, so what is drawn again is pictures (clusters), with all
that belongs to them. Everything random takes a seed, and gives the same numbers for it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlmattn.core.errors import SpecError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Sums = Callable[[NDArray[np.float64]], NDArray[np.float64]]

_BLOCK = 1 << 22


@dataclass(frozen=True)
class Interval:
    """A number with its uncertainty.

    Attributes:
        value: the number itself. low, high: ends of the interval. level: its coverage, such as 0.95. draws: how often
            the clusters were drawn again; 0 for a closed form. seed: of the draws. clusters: how many there are.
            undefined: share of the draws in which the number was not defined, such as a ratio over nothing; they are
            left out.
    """

    value: float
    low: float
    high: float
    level: float = 0.95
    draws: int = 0
    seed: int = 0
    clusters: int = 0
    undefined: float = 0.0

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class McNemar:
    """Two systems on the same yes-or-no outcomes.

    Attributes:
        only_a, only_b: how many outcomes only one of them has. p: two-sided, exact. mid_p: the same with half the
            probability of what was seen, less conservative. chi2, chi2_corrected: the statistics of McNemar (1947) and
            Edwards (1948), for comparison with programs that use them; NaN where nothing differs.
    """

    only_a: int
    only_b: int
    p: float
    mid_p: float
    chi2: float
    chi2_corrected: float


def mcnemar(a: Sequence[float | bool], b: Sequence[float | bool]) -> McNemar:
    """Exact test that a and b have as many outcomes that the other has not (McNemar, 1947); p is 1 if none differ.

    >>> mcnemar([1, 1, 1, 0], [0, 0, 0, 0]).p
    0.25

    Raises:
        SpecError: of different lengths, empty, or not of zeros and ones.
    """
    from scipy.stats import binom

    first, second = _binary(a, "a"), _binary(b, "b")
    _same_length(first, second)
    only_a, only_b = int((first & ~second).sum()), int((~first & second).sum())
    total, least = only_a + only_b, min(only_a, only_b)
    if total == 0:
        return McNemar(0, 0, 1.0, 1.0, float("nan"), float("nan"))
    tail = float(binom.cdf(least, total, 0.5))
    p = min(1.0, 2 * tail)
    mid = min(1.0, 2 * tail - float(binom.pmf(least, total, 0.5)))
    gap = abs(only_a - only_b)
    return McNemar(only_a, only_b, p, mid, gap**2 / total, max(gap - 1, 0) ** 2 / total)


def bootstrap(
    counts: Any,
    statistic: Sums,
    *,
    clusters: Sequence[Hashable] | None = None,
    draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a function of sums, clusters drawn with replacement (Efron, 1979).

    Args:
        counts: (items, kinds) numbers whose column sums are all that the statistic needs; a mean needs the outcomes
            and a column of ones. statistic: from (draws, kinds) sums to (draws,) numbers. clusters: of each item; each
            item is its own where it is None.

    >>> import numpy as np
    >>> counts = np.array([[1.0, 2.0], [0.0, 3.0], [2.0, 2.0]])
    >>> bootstrap(counts, ratio, seed=1).value
    0.42857142857142855

    Raises:
        SpecError: no items, no draws, a level outside of (0, 1), or lengths that differ.
    """
    import numpy as np

    table = by_cluster(counts, clusters)
    _check_draws(draws, level)
    values = statistic(_resampled(table, draws, seed))
    return _percentile(float(statistic(table.sum(axis=0)[None])[0]), np.asarray(values), level, seed, len(table))


def paired_bootstrap(
    a: Any,
    b: Any,
    statistic: Sums,
    *,
    clusters: Sequence[Hashable] | None = None,
    draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of ``statistic(a) - statistic(b)`` with the same clusters drawn for both; see :func:`bootstrap`.

    Raises:
        SpecError: as there, or a and b are of different shapes.
    """
    import numpy as np

    first, second = by_cluster(a, clusters), by_cluster(b, clusters)
    _same_length(first, second)
    _check_draws(draws, level)
    drawn = _resampled(np.hstack([first, second]), draws, seed)
    kinds = first.shape[1]
    values = statistic(drawn[:, :kinds]) - statistic(drawn[:, kinds:])
    value = float(statistic(first.sum(axis=0)[None])[0] - statistic(second.sum(axis=0)[None])[0])
    return _percentile(value, np.asarray(values), level, seed, len(first))


def permutation_test(
    a: Any,
    b: Any,
    statistic: Sums,
    *,
    clusters: Sequence[Hashable] | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> float:
    """Two-sided p-value that the systems could change places on any cluster: (1 + #as far apart) / (1 + draws).

    All 2^clusters exchanges are counted exactly where there are no more of them than draws.

    Raises:
        SpecError: as :func:`paired_bootstrap`.
    """
    import numpy as np

    first, second = by_cluster(a, clusters), by_cluster(b, clusters)
    _same_length(first, second)
    _check_draws(draws, 0.5)
    seen = abs(_gap(first.sum(axis=0)[None], second.sum(axis=0)[None], statistic)[0])
    count = len(first)
    exact = 2**count <= draws if count < 60 else False
    far = total = 0
    for swapped in _exchanges(count, draws, seed, exact=exact):
        moved = swapped @ (second - first)
        gaps = np.abs(_gap(first.sum(axis=0) + moved, second.sum(axis=0) - moved, statistic))
        far += int((gaps >= seen - 1e-12).sum())
        total += len(swapped)
    return far / total if exact else (1 + far) / (1 + total)


def ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Statistic of columns (part, whole): their ratio, NaN over nothing; a mean where the second is of ones."""
    import numpy as np

    whole = sums[:, 1]
    return np.divide(sums[:, 0], whole, out=np.full(len(sums), np.nan), where=whole != 0)


def by_cluster(counts: Any, clusters: Sequence[Hashable] | None) -> NDArray[np.float64]:
    """(clusters, kinds) sums of (items, kinds) counts, clusters in order of their first item.

    Raises:
        SpecError: no items, not two axes, not finite, or another number of clusters than items.
    """
    import numpy as np

    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2 or not table.size:
        raise SpecError(f"counts must be (items, kinds) and not empty, got the shape {table.shape}")
    if not np.isfinite(table).all():
        raise SpecError("counts must be finite: leave out what is not defined")
    if clusters is None:
        return table
    if len(clusters) != len(table):
        raise SpecError(f"{len(table)} items need as many clusters, got {len(clusters)}")
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(one, len(numbers)) for one in clusters])
    sums = np.zeros((len(numbers), table.shape[1]))
    np.add.at(sums, index, table)
    return sums


def wilson(successes: int, total: int, *, level: float = 0.95) -> Interval:
    """Score interval of one share of independent outcomes (Wilson, 1927).

    >>> str(wilson(223, 500))
    '0.4460 [0.4030, 0.4898]'

    Raises:
        SpecError: counts that cannot be.
    """
    from scipy.stats import norm

    if not 0 <= successes <= total or total < 1 or not 0 < level < 1:
        raise SpecError(f"{successes} of {total} at the level {level} is not possible")
    z, p = float(norm.ppf((1 + level) / 2)), successes / total
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * (p * (1 - p) / total + z * z / (4 * total * total)) ** 0.5
    return Interval(p, middle - half, middle + half, level, clusters=total)


def standard_error(
    scores: Sequence[float], clusters: Sequence[Hashable] | None = None, *, few_clusters: bool = True
) -> float:
    """Standard error of a mean; of clustered scores by Miller (2024, arXiv:2411.00640, Eq. 4).

    Args:
        scores: one a item. clusters: of each item. few_clusters: multiply the variance by C / (C - 1), as inspect_ai
            does and lmms-eval does not.

    Raises:
        SpecError: fewer than two scores or clusters.
    """
    import numpy as np

    values = np.asarray(scores, dtype=np.float64)
    if len(values) < 2:
        raise SpecError(f"a standard error needs at least two scores, got {len(values)}")
    if clusters is None:
        return float(values.std(ddof=1) / len(values) ** 0.5)
    sums = by_cluster((values - values.mean())[:, None], clusters)
    if len(sums) < 2:
        raise SpecError("a clustered standard error needs at least two clusters")
    if few_clusters:
        return float((len(sums) / (len(sums) - 1) * (sums**2).sum()) ** 0.5 / len(values))
    within = (sums**2).sum() - ((values - values.mean()) ** 2).sum()
    return float((values.var(ddof=1) / len(values) + within / len(values) ** 2) ** 0.5)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted so that any false finding among them is as rare as the level says (Holm, 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]

    Raises:
        SpecError: a value outside of [0, 1].
    """
    order, count = _order(p_values)
    adjusted, most = [0.0] * count, 0.0
    for rank, at in enumerate(order):
        most = max(most, min(1.0, (count - rank) * p_values[at]))
        adjusted[at] = most
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted so that the share of false findings is as the level says (Benjamini and Hochberg, 1995).

    >>> benjamini_hochberg([0.01, 0.04, 0.03])
    [0.03, 0.04, 0.04]

    Raises:
        SpecError: a value outside of [0, 1].
    """
    order, count = _order(p_values)
    adjusted, least = [0.0] * count, 1.0
    for rank in range(count, 0, -1):
        at = order[rank - 1]
        least = min(least, p_values[at] * count / rank)
        adjusted[at] = least
    return adjusted


def auroc(scores: Sequence[float], labels: Sequence[float | bool]) -> float:
    """Chance that a positive scores higher than a negative, ties half (Mann and Whitney, 1947); NaN without either.

    >>> auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75

    Raises:
        SpecError: lengths that differ, scores that are not finite, labels that are not zeros and ones.
    """
    import numpy as np
    from scipy.stats import rankdata

    values, positive = np.asarray(scores, dtype=np.float64), _binary(labels, "labels")
    _same_length(values, positive)
    if not np.isfinite(values).all():
        raise SpecError("scores must be finite")
    many, few = int(positive.sum()), int((~positive).sum())
    if not many or not few:
        return float("nan")
    return float((rankdata(values)[positive].sum() - many * (many + 1) / 2) / (many * few))


def _resampled(table: NDArray[np.float64], draws: int, seed: int) -> NDArray[np.float64]:
    # One block of draws at a time: the same numbers as of one matrix, without its memory.
    import numpy as np

    rng = np.random.default_rng(seed)
    count, at_once = len(table), max(1, _BLOCK // len(table))
    blocks = []
    for start in range(0, draws, at_once):
        size = min(at_once, draws - start)
        index = rng.integers(0, count, (size, count)) + np.arange(size)[:, None] * count
        times = np.bincount(index.ravel(), minlength=size * count).reshape(size, count)
        blocks.append(times @ table)
    return np.concatenate(blocks)


def _percentile(value: float, values: NDArray[np.float64], level: float, seed: int, clusters: int) -> Interval:
    import numpy as np

    kept = values[np.isfinite(values)]
    low, high = np.percentile(kept, [50 - 50 * level, 50 + 50 * level]) if len(kept) else (np.nan, np.nan)
    lost = 1 - len(kept) / len(values)
    return Interval(value, float(low), float(high), level, len(values), seed, clusters, lost)


def _exchanges(count: int, draws: int, seed: int, *, exact: bool) -> Any:
    import numpy as np

    if exact:
        yield (np.arange(2**count)[:, None] >> np.arange(count) & 1).astype(np.float64)
        return
    rng = np.random.default_rng(seed)
    at_once = max(1, _BLOCK // count)
    for start in range(0, draws, at_once):
        yield rng.integers(0, 2, (min(at_once, draws - start), count)).astype(np.float64)


def _gap(a: NDArray[np.float64], b: NDArray[np.float64], statistic: Sums) -> NDArray[np.float64]:
    # An exchange that leaves one side undefined is as far from the other as can be.
    import numpy as np

    return np.nan_to_num(statistic(a) - statistic(b), nan=np.inf)


def _binary(values: Sequence[float | bool], what: str) -> NDArray[np.bool_]:
    import numpy as np

    array = np.asarray(values)
    if array.ndim != 1 or not array.size or not np.isin(array, (0, 1)).all():
        raise SpecError(f"{what} must be a list of zeros and ones, and not empty")
    return array.astype(bool)


def _same_length(a: Any, b: Any) -> None:
    if a.shape != b.shape:
        raise SpecError(f"what is compared must belong to the same items, got the shapes {a.shape} and {b.shape}")


def _check_draws(draws: int, level: float) -> None:
    if draws < 1 or not 0 < level < 1:
        raise SpecError(f"draws must be at least 1 and the level between 0 and 1, got {draws} and {level}")


def _order(p_values: Sequence[float]) -> tuple[list[int], int]:
    if not all(0 <= p <= 1 for p in p_values):
        raise SpecError("p-values must lie in [0, 1]")
    return sorted(range(len(p_values)), key=lambda at: p_values[at]), len(p_values)
