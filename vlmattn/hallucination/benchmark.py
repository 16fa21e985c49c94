"""What a benchmark is to a runner: items to answer, and a score of the answers, joined by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from vlmattn.core.errors import SpecError
from vlmattn.display import Tabular, Told, facts, html_table, panel, said


@dataclass(frozen=True)
class Item:
    """One thing to answer.

    Attributes:
        id: unique in its benchmark, and the same in every run of it. images: of the prompt, in order: paths, or
            pictures held in memory. prompt: the user's words, as the benchmark's protocol has them. image_id: which
            picture it is about, for statistics clustered by picture; empty for none. truth: what the scorer knows of
            it, plain values.

    Raises:
        SpecError: an empty id.
    """

    id: str
    images: tuple[str | Path | Image.Image, ...]
    prompt: str
    image_id: str = ""
    truth: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.id:
            raise SpecError("an item needs an id")


@dataclass(frozen=True)
class Score(Told, Tabular):
    """What a scorer made of answers.

    Attributes:
        benchmark: its name. metrics: numbers by name; NaN where one is not defined. outcomes: per item id, the number
            that each metric's mean is taken of, for paired tests: ``{"accuracy": {"17": 1.0, …}}``. settings: how it
            was scored: parser, scorer, protocol, tables, with whatever makes two scores comparable. notes: what else
            is to be known, such as how many answers were not understood.
    """

    benchmark: str
    metrics: Mapping[str, float]
    outcomes: Mapping[str, Mapping[str, float]]
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict per item: its id, and the number that each metric's mean is taken of, where it has one."""
        ids = dict.fromkeys(one for values in self.outcomes.values() for one in values)
        return [{"id": one} | {n: values[one] for n, values in self.outcomes.items() if one in values} for one in ids]

    def __str__(self) -> str:
        return f"{self.benchmark}: " + ", ".join(f"{name} {said(value)}" for name, value in self.metrics.items())

    def _repr_html_(self) -> str:
        body = html_table(("metric", "value"), list(self.metrics.items()))
        return panel(self.benchmark, body, facts(self.settings), note=" · ".join(self.notes))

    def to_dict(self) -> dict[str, Any]:
        """Plain values; None for what is not known."""
        metrics = {name: None if value != value else value for name, value in self.metrics.items()}
        outcomes = {name: dict(values) for name, values in self.outcomes.items()}
        told = {"benchmark": self.benchmark, "metrics": metrics, "outcomes": outcomes}
        return told | {"settings": dict(self.settings), "notes": list(self.notes)}


@runtime_checkable
class Benchmark(Protocol):
    """Items and their scorer.

    A runner asks for :meth:`items`, whose order and ids must be the same every time for the same data, has them
    answered in any order, by any number of processes, and gives all answers by id to :meth:`score`. Loading checks the
    data: by the time there is a benchmark, every picture that an item names exists.
    """

    @property
    def name(self) -> str:
        """What it is called, with its variant: ``pope-adversarial``."""
        ...

    def items(self) -> Sequence[Item]:
        """All items, in order."""
        ...

    def score(self, answers: Mapping[str, str]) -> Score:
        """The score of answers by item id.

        Raises:
            SpecError: answers are missing, or belong to no item; says which.
        """
        ...


def check_answers(items: Sequence[Item], answers: Mapping[str, str]) -> None:
    """Refuse answers that are not those of the items, one each.

    Raises:
        SpecError: ids that occur twice, items without an answer, or answers without an item.
    """
    ids = [item.id for item in items]
    twice = sorted({one for one in ids if ids.count(one) > 1}) if len(set(ids)) < len(ids) else []
    missing = [one for one in ids if one not in answers]
    unknown = sorted(set(answers) - set(ids))
    for told, found in (("occur twice", twice), ("have no answer", missing), ("are of no item", unknown)):
        if found:
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            raise SpecError(f"{len(found)} ids {told}: {', '.join(found[:5])}{more}")
