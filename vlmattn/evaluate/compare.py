"""Two scores of one benchmark, item by item: differences with intervals, tests, and correction for asking often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.files import write_json
from vlmattn.evaluate.statistics import Interval, bootstrap, holm, mcnemar, paired_bootstrap, permutation_test, ratio
from vlmattn.hallucination.benchmark import Benchmark, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Counts = NDArray[np.float64]

_SUMS: dict[str, tuple[Mapping[str, float], Mapping[str, float]]] = {
    "precision": ({"tp": 1}, {"tp": 1, "fp": 1}),
    "recall": ({"tp": 1}, {"tp": 1, "fn": 1, "lost_yes": 1}),
    "f1": ({"tp": 2}, {"tp": 2, "fp": 1, "fn": 1, "lost_yes": 1}),
    "chair_i": ({"hallucinated": 1}, {"objects": 1}),
    "object": ({"hallucinated": 1}, {"objects": 1}),
    "response": ({"chair_s": 1}, {"speaks": 1}),
}
_OF_CAPTIONS: dict[str, tuple[Mapping[str, float], Mapping[str, float]]] = {
    "precision": ({"recalled": 1}, {"kinds": 1}),
    "recall": ({"recalled": 1}, {"truth": 1}),
    "f1": ({"recalled": 2}, {"kinds": 1, "truth": 1}),
}
_OF_AMBER: dict[str, tuple[Mapping[str, float], Mapping[str, float]]] = {
    "chair": ({"hallucinated": 100}, {"nouns": 1}),
    "cover": ({"covered": 100}, {"truth": 1}),
    "cog": ({"imagined": 100}, {"hallu": 1}),
}
_COUNTS = frozenset((
    "tp", "fp", "tn", "fn", "lost_yes", "lost_no", "hallucinated", "objects", "kinds", "truth", "recalled",
    "speaks", "nouns", "covered", "imagined", "hallu",
))  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """One metric of two scores.

    Attributes:
        metric: its name. a, b: the values. difference: of a less b, by paired bootstrap over clusters. p: two-sided, by
            exchange of the two systems on whole clusters. adjusted_p: by Holm over all metrics compared. mcnemar_p:
            exact, of items, where each item's outcome is 0 or 1 and every item is its own cluster; else None.
    """

    metric: str
    a: float
    b: float
    difference: Interval
    p: float
    adjusted_p: float
    mcnemar_p: float | None


@dataclass(frozen=True)
class Comparison:
    """Two scores compared.

    Attributes: benchmark: its name. items, clusters: how many. differences: of each metric. notes:
    what else is to be known, such as settings that differ."""

    benchmark: str
    items: int
    clusters: int
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def clusters_of(benchmark: Benchmark) -> dict[str, str]:
    """Which picture each item is about; an item without one is its own."""
    return {item.id: item.image_id or item.id for item in benchmark.items()}


def intervals(
    score: Score, clusters: Mapping[str, str] | None = None, *, draws: int = 10_000, level: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """The interval of each metric that sums of outcomes give, pictures drawn again.

    Raises:
        SpecError: an item without a cluster.
    """
    found = {}
    for metric in metrics_of(score):
        ids, counts = counts_of(score, metric)
        found[metric] = bootstrap(counts, ratio, clusters=_clusters(ids, clusters), draws=draws, level=level, seed=seed)
    return found


def compare(
    a: Score, b: Score, clusters: Mapping[str, str] | None = None, *, draws: int = 10_000, seed: int = 0
) -> Comparison:
    """How two scores of the same items differ, metric by metric.

    Args:
        a, b: the scores. clusters: picture of each item (:func:`clusters_of`); each item is its own where it is None.
            draws: of bootstrap and permutation. seed: of both.

    Raises:
        SpecError: of other benchmarks, of other items, read by other scorers or tables, or with nothing in common.
    """
    _check_same(a, b)
    rows = [_difference(a, b, metric, clusters, draws, seed) for metric in metrics_of(a) if metric in metrics_of(b)]
    if not rows:
        raise SpecError(f"the scores of {a.benchmark} have no outcome of items in common")
    adjusted = holm([row.p for row in rows])
    whole = tuple(
        Difference(r.metric, r.a, r.b, r.difference, r.p, p, r.mcnemar_p) for r, p in zip(rows, adjusted, strict=True)
    )
    ids = {one for outcomes in a.outcomes.values() for one in outcomes}
    groups = len(ids) if clusters is None else len({clusters.get(one, one) for one in ids})
    return Comparison(a.benchmark, len(ids), groups, whole, _told(a, b))


def metrics_of(score: Score) -> tuple[str, ...]:
    """Metrics that are ratios of sums of the score's outcomes, in its order."""
    return tuple(name for name in score.metrics if _terms(score, name) is not None)


def counts_of(score: Score, metric: str) -> tuple[list[str], Counts]:
    """Ids, and (items, 2) part and whole of a metric: the sum of the one over that of the other is the metric.

    Raises:
        SpecError: the metric is no ratio of sums of outcomes.
    """
    import numpy as np

    terms = _terms(score, metric)
    if terms is None:
        raise SpecError(f"{metric!r} of {score.benchmark} is no ratio of sums; {', '.join(metrics_of(score))} are")
    part, whole = terms
    ids = list(score.outcomes[next(iter(part))])
    rows = [[_sum(score, part, one), _sum(score, whole, one) if whole else 1.0] for one in ids]
    return ids, np.array(rows, dtype=np.float64)


def save_score(path: str | Path, score: Score, clusters: Mapping[str, str]) -> Path:
    """Write a score as JSON, with the clusters of its items, for :func:`load_score`."""
    return write_json(path, score.to_dict() | {"clusters": dict(clusters)})


def load_score(path: str | Path) -> tuple[Score, dict[str, str]]:
    """A score and the clusters of its items.

    Raises:
        FileError: missing, cut short, or no score.
    """
    from vlmattn.core.records import read_object

    held = read_object(path)
    try:
        metrics = {name: float("nan") if value is None else float(value) for name, value in held["metrics"].items()}
        outcomes = {n: {one: float(v) for one, v in values.items()} for n, values in held["outcomes"].items()}
        notes = tuple(str(note) for note in held.get("notes", ()))
        score = Score(str(held["benchmark"]), metrics, outcomes, dict(held.get("settings", {})), notes)
        return score, {str(one): str(group) for one, group in held.get("clusters", {}).items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FileError(f"{path} holds no score written by vlmattn ({type(error).__name__}: {error})") from error


def _terms(score: Score, metric: str) -> tuple[Mapping[str, float], Mapping[str, float]] | None:
    for table in (_OF_AMBER if "nouns" in score.outcomes else {}, _OF_CAPTIONS, _SUMS):
        if metric in table:
            part, whole = table[metric]
            if set(part) <= set(score.outcomes) and set(whole) <= set(score.outcomes):
                return part, _without_lost(whole, score)
    if metric == "yes_ratio" and "tp" in score.outcomes and score.settings.get("unparsed") == "wrong":
        return {"tp": 1, "fp": 1}, {}
    if metric in score.outcomes and metric not in _COUNTS:
        # AMBER prints this one in percent.
        return {metric: 100.0 if metric == "hal" or score.benchmark == "amber-discriminative" else 1.0}, {}
    return None


def _without_lost(whole: Mapping[str, float], score: Score) -> Mapping[str, float]:
    wrong = score.settings.get("unparsed", "wrong") == "wrong"
    return {name: weight for name, weight in whole.items() if wrong or name != "lost_yes"}


def _sum(score: Score, terms: Mapping[str, float], one: str) -> float:
    return sum(weight * score.outcomes[name][one] for name, weight in terms.items())


def _difference(
    a: Score, b: Score, metric: str, clusters: Mapping[str, str] | None, draws: int, seed: int
) -> Difference:
    ids, first = counts_of(a, metric)
    others, second = counts_of(b, metric)
    if set(ids) != set(others):
        raise SpecError(f"{metric} of the two scores is of different items, {len(ids)} and {len(others)}")
    place = {one: at for at, one in enumerate(others)}
    second = second[[place[one] for one in ids]]
    groups = _clusters(ids, clusters)
    gap = paired_bootstrap(first, second, ratio, clusters=groups, draws=draws, seed=seed)
    p = permutation_test(first, second, ratio, clusters=groups, draws=draws, seed=seed)
    alone = groups is None or len(set(groups)) == len(ids)
    exact = mcnemar(first[:, 0].tolist(), second[:, 0].tolist()).p if alone and _is_binary(first, second) else None
    return Difference(metric, _whole(first), _whole(second), gap, p, p, exact)


def _is_binary(*tables: Counts) -> bool:
    import numpy as np

    return all(bool((t[:, 1] == 1).all()) and bool(np.isin(t[:, 0], (0.0, 1.0)).all()) for t in tables)


def _whole(counts: Counts) -> float:
    return float(ratio(counts.sum(axis=0)[None])[0])


def _clusters(ids: Sequence[str], clusters: Mapping[str, str] | None) -> list[str] | None:
    if clusters is None:
        return None
    lost = [one for one in ids if one not in clusters]
    if lost:
        raise SpecError(f"{len(lost)} items have no cluster: {', '.join(lost[:5])}")
    return [clusters[one] for one in ids]


def _check_same(a: Score, b: Score) -> None:
    if a.benchmark != b.benchmark:
        raise SpecError(f"scores of different benchmarks, {a.benchmark} and {b.benchmark}, cannot be compared")
    for name in sorted({*a.settings, *b.settings} - {"prompt"}):
        if a.settings.get(name) != b.settings.get(name):
            raise SpecError(
                f"the scores differ in {name} ({a.settings.get(name)} and {b.settings.get(name)}): score both answers "
                "in the same way first"
            )


def _told(a: Score, b: Score) -> tuple[str, ...]:
    prompts = a.settings.get("prompt"), b.settings.get("prompt")
    asked = () if prompts[0] == prompts[1] else (f"the prompts differ: {prompts[0]} and {prompts[1]}",)
    return asked + tuple(f"a: {note}" for note in a.notes) + tuple(f"b: {note}" for note in b.notes)
