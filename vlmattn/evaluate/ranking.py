"""How well scores tell things apart, when something else, such as position, tells them apart too.

A score that only counts tokens reaches a high AUROC on captions whose later mentions are more often wrong. So AUROC is
also computed over pairs (made up, not made up) that stand at about the same position:

* ``none``: all pairs.
* ``stratified``: pairs of one position stratum; strata have about equally many items, equal positions stay together.
  All pairs count alike, so large strata count more.
* ``within_image``: pairs of one picture whose positions differ by at most ``gap`` tokens.
* ``residual``: all pairs, of the score less its mean in the stratum.
* ``same_word``: pairs of one word, such as two red circles of which one is there: what a score knows beyond which words
  a model often makes up.

Intervals draw pictures again, never words.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from vlmattn.core.errors import SpecError
from vlmattn.evaluate.statistics import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Control = Literal["none", "stratified", "within_image", "residual", "same_word"]
CONTROLS: tuple[Control, ...] = ("none", "stratified", "within_image", "residual", "same_word")
BINS, GAP = 10, 6


def position_strata(positions: Sequence[int], bins: int = BINS) -> NDArray[np.int64]:
    """(n,) stratum of each item: up to ``bins`` of about equal size, equal positions together.

    >>> position_strata([0, 0, 0, 5, 9, 9], 3).tolist()
    [0, 0, 0, 1, 2, 2]

    Raises:
        SpecError: no item, or fewer than one bin.
    """
    import numpy as np

    values = np.asarray(positions, dtype=np.float64)
    if values.ndim != 1 or not len(values) or bins < 1:
        raise SpecError(f"strata need positions of items and at least one bin, got {values.shape} and {bins}")
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1], method="lower"))
    found = np.searchsorted(edges, values, side="left")
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def controlled_auroc(
    scores: Sequence[float],
    labels: Sequence[bool],
    positions: Sequence[int],
    images: Sequence[Hashable],
    *,
    control: Control = "stratified",
    words: Sequence[Hashable] | None = None,
    bins: int = BINS,
    gap: int = GAP,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """AUROC over comparable pairs, ties half, with a bootstrap interval clustered by picture; NaN without any pair.

    Args:
        labels: True for what should score higher. control: see this module. words: what each item says, for
            ``same_word``. bins: strata. gap: in tokens.

    >>> str(controlled_auroc([1, 2, 3, 4], [0, 0, 1, 1], [0, 1, 0, 1], ["a", "a", "b", "b"]).value)
    '1.0'

    Raises:
        SpecError: lengths that differ, scores that are not finite, no such control.
    """
    pairs = _Pairs(scores, labels, positions, images, control, words, bins, gap)
    values = pairs.drawn(draws, seed)
    return _interval(pairs.value, values, draws, level, seed, pairs.count)


def auroc_difference(
    a: Sequence[float],
    b: Sequence[float],
    labels: Sequence[bool],
    positions: Sequence[int],
    images: Sequence[Hashable],
    *,
    control: Control = "stratified",
    words: Sequence[Hashable] | None = None,
    bins: int = BINS,
    gap: int = GAP,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """AUROC of ``a`` less that of ``b`` on the same items, the same pictures drawn for both; see
    :func:`controlled_auroc`."""
    first, second = (_Pairs(one, labels, positions, images, control, words, bins, gap) for one in (a, b))
    values = first.drawn(draws, seed) - second.drawn(draws, seed)
    return _interval(first.value - second.value, values, draws, level, seed, first.count)


def average_precision(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Area under precision over recall, as a sum over thresholds: Σ (R_k - R_(k-1)) P_k, items of one score together.
    NaN without a positive; the share of positives is chance.

    >>> average_precision([0.9, 0.8, 0.1], [1, 0, 1])
    0.8333333333333333

    Raises:
        SpecError: lengths that differ, or scores that are not finite.
    """
    import numpy as np

    return float(_precisions(*_checked(scores, labels), np.ones((1, len(scores))))[0])


def precision_interval(
    scores: Sequence[float],
    labels: Sequence[bool],
    images: Sequence[Hashable],
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """:func:`average_precision` with a bootstrap interval clustered by picture."""
    import numpy as np

    values, positive = _checked(scores, labels)
    of_image, count = _numbered(images)
    times = _times(count, draws, seed)
    drawn = np.concatenate([_precisions(values, positive, part[:, of_image]) for part in np.array_split(times, 20)])
    return _interval(average_precision(scores, labels), drawn, draws, level, seed, count)


class _Pairs:
    """Pairs won and compared, summed for each pair of pictures, so that any draw of pictures is a quadratic form."""

    def __init__(
        self,
        scores: Any,
        labels: Any,
        positions: Sequence[int],
        images: Sequence[Hashable],
        control: Control,
        words: Sequence[Hashable] | None,
        bins: int,
        gap: int,
    ) -> None:
        import numpy as np

        values, positive = _checked(scores, labels)
        if control not in CONTROLS:
            raise SpecError(f"control must be one of {', '.join(CONTROLS)}; got {control!r}")
        at = np.asarray(positions)
        if at.shape != values.shape or len(images) != len(values):
            raise SpecError("scores, labels, positions and images must belong to the same items")
        if (control == "same_word") != (words is not None) or (words is not None and len(words) != len(values)):
            raise SpecError("words= are of control='same_word', one for every item: give both, or neither")
        strata = position_strata(at.tolist(), bins)
        said = np.zeros(len(values), dtype=np.int64) if words is None else _numbered(words)[0]
        if control == "residual":
            values = values - np.array([values[strata == s].mean() for s in range(strata.max() + 1)])[strata]
        of_image, self.count = _numbered(images)
        self.within = control == "within_image"
        self.won, self.pairs = np.zeros((2, self.count, self.count))
        false = np.flatnonzero(~positive)
        for one in np.flatnonzero(positive):
            mate = said[false] == said[one]
            if control == "stratified":
                mate = strata[false] == strata[one]
            elif self.within:
                mate = (of_image[false] == of_image[one]) & (abs(at[false] - at[one]) <= gap)
            others = false[mate]
            better = (values[one] > values[others]) + 0.5 * (values[one] == values[others])
            np.add.at(self.won[of_image[one]], of_image[others], better)
            np.add.at(self.pairs[of_image[one]], of_image[others], 1.0)
        total = self.pairs.sum()
        self.value = float(self.won.sum() / total) if total else float("nan")

    def drawn(self, draws: int, seed: int) -> NDArray[np.float64]:
        import numpy as np

        times = _times(self.count, draws, seed)
        if self.within:  # a picture drawn twice is two pictures, whose words are not compared with each other
            won, whole = times @ np.diag(self.won), times @ np.diag(self.pairs)
        else:
            won, whole = ((times @ m * times).sum(axis=1) for m in (self.won, self.pairs))
        return np.divide(won, whole, out=np.full(draws, np.nan), where=whole > 0)


def _precisions(values: NDArray[Any], positive: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float64]:
    """(D,) average precisions with (D, n) weights of items."""
    import numpy as np

    order = np.argsort(-values, kind="stable")
    ranked, good = values[order], weights[:, order] * positive[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    hits = good.cumsum(axis=1)[:, last]
    taken = weights[:, order].cumsum(axis=1)[:, last]
    total = hits[:, -1:]
    precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)
    gained = np.diff(hits, axis=1, prepend=0.0)
    area = (gained * precision).sum(axis=1)
    return np.divide(area, total[:, 0], out=np.full(len(area), np.nan), where=total[:, 0] > 0)


def _times(count: int, draws: int, seed: int) -> NDArray[np.float64]:
    """(draws, count) how often each picture is drawn."""
    import numpy as np

    if draws < 1:
        raise SpecError(f"draws must be at least 1, got {draws}")
    index = np.random.default_rng(seed).integers(0, count, (draws, count)) + np.arange(draws)[:, None] * count
    return np.bincount(index.ravel(), minlength=draws * count).reshape(draws, count).astype(np.float64)


def _numbered(images: Sequence[Hashable]) -> tuple[NDArray[np.int64], int]:
    import numpy as np

    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(one, len(numbers)) for one in images], dtype=np.int64), len(numbers)


def _checked(scores: Any, labels: Any) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    import numpy as np

    values, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if values.shape != positive.shape or values.ndim != 1 or not len(values):
        raise SpecError(f"give one label for every score, got the shapes {values.shape} and {positive.shape}")
    if not np.isfinite(values).all() or not np.isin(positive, (0, 1)).all():
        raise SpecError("scores must be finite, and labels zeros and ones: leave out what is not defined")
    return values, positive.astype(bool)


def _interval(value: float, values: NDArray[Any], draws: int, level: float, seed: int, clusters: int) -> Interval:
    import numpy as np

    kept = values[np.isfinite(values)]
    low, high = np.percentile(kept, [50 - 50 * level, 50 + 50 * level]) if len(kept) else (np.nan, np.nan)
    return Interval(value, float(low), float(high), level, draws, seed, clusters, 1 - len(kept) / len(values))
