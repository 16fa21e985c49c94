"""The same answers by every parser, scorer and protocol: how much of a number is the reading of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from vlmattn.core.errors import DependencyMissing, SpecError
from vlmattn.display import Tabular, Told, columns_of, html_table, panel
from vlmattn.hallucination.benchmark import Benchmark, Score


@runtime_checkable
class ReadInSeveralWays(Protocol):
    """A benchmark whose answers are read in more than one way."""

    def readings(self) -> Mapping[str, Benchmark]:
        """The benchmark in each way, by name."""
        ...


@dataclass(frozen=True)
class Readings(Told, Tabular):
    """Scores of the same answers.

    Attributes:
        scores: by the name of the way they were read. missing: ways that need what is not installed, and what that is.
    """

    scores: Mapping[str, Score]
    missing: Mapping[str, str]

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict per way of reading: its name, and its metrics."""
        return [{"reading": name} | dict(score.metrics) for name, score in self.scores.items()]

    def __str__(self) -> str:
        return "\n".join(f"{name}: {score}" for name, score in self.scores.items())

    def _repr_html_(self) -> str:
        spread = {"reading": "largest less smallest", **self.spread}
        lacking = " · ".join(f"{name}: {why}" for name, why in self.missing.items())
        return panel(
            "the same answers, read in every way", html_table(*columns_of([*self.to_dicts(), spread])), note=lacking
        )

    @property
    def spread(self) -> dict[str, float]:
        """Of each metric that all scores have, the largest value less the smallest."""
        rows = [score.metrics for score in self.scores.values()]
        names = [name for name in rows[0] if all(name in row for row in rows)] if rows else []
        return {name: max(row[name] for row in rows) - min(row[name] for row in rows) for name in names}


def read_every_way(benchmark: Benchmark, answers: Mapping[str, str]) -> Readings:
    """The score of the same answers in every way the benchmark knows.

    Ways whose packages or data are not there are told, and left out.

    Raises:
        SpecError: the benchmark knows one way only, or the answers do not fit.
    """
    if not isinstance(benchmark, ReadInSeveralWays):
        raise SpecError(f"{benchmark.name} is read in one way only")
    scores: dict[str, Score] = {}
    missing: dict[str, str] = {}
    for name, way in benchmark.readings().items():
        try:
            scores[name] = way.score(answers)
        except DependencyMissing as error:
            missing[name] = str(error)
    return Readings(scores, missing)
