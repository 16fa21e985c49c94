"""Benchmarks on drawn scenes, where what is there is known exactly: no download, no annotator, no label noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from vlmattn.core.errors import SpecError
from vlmattn.core.records import listed
from vlmattn.hallucination.benchmark import Item, Score, check_answers
from vlmattn.hallucination.chair import chair_metrics
from vlmattn.hallucination.parsers import Verdict
from vlmattn.hallucination.yesno import YES_NO_PROTOCOLS, cell, confusion, find_protocol, understood
from vlmattn.scene import Question, Scene, split_item
from vlmattn.scene.captions import mentioned

_CAPTION = "Describe the picture."


@dataclass(frozen=True)
class ScenePresence:
    """Is there a … in drawn scenes: POPE's task with known truth.

    Attributes:
        split: of the scene generator: ``adversarial``, ``popular``, ``random`` and others with such questions.
            count: scenes. seed: of the scenes. protocol: a name of ``YES_NO_PROTOCOLS``.

    Raises:
        SpecError: no such split or protocol, no scenes, or none with such a question.
    """

    split: str = "adversarial"
    count: int = 100
    seed: int = 0
    protocol: str = "strict"

    def __post_init__(self) -> None:
        _check_count(self.count)
        find_protocol(self.protocol)
        if not self.items():
            raise SpecError(f"{self.count} scenes of the split {self.split!r} have no question of presence")

    @property
    def name(self) -> str:
        """``scene-presence-`` and the split."""
        return f"scene-presence-{self.split}"

    def items(self) -> Sequence[Item]:
        """The questions, pictures in memory."""
        return [
            Item(f"{index}-{number}", (scene.image,), question.text, str(index),
                 {"label": question.answer, "foil": question.foil})
            for index in range(self.count)
            for scene, questions in (_drawn(self.split, self.seed, index),)
            for number, question in enumerate(questions)
            if question.kind == "exist"
        ]  # fmt: skip

    def readings(self) -> dict[str, ScenePresence]:
        """The same scenes by every protocol, by name."""
        return {name: replace(self, protocol=name) for name in YES_NO_PROTOCOLS}

    def score(self, answers: Mapping[str, str]) -> Score:
        """Accuracy, precision, recall, F1, yes ratio and unparsed share, all in [0, 1].

        Raises:
            SpecError: answers are missing or belong to no question.
        """
        items = self.items()
        check_answers(items, answers)
        protocol = find_protocol(self.protocol)
        labels: dict[str, Verdict] = {item.id: item.truth["label"] for item in items}
        said = {one: understood(answers[one], label, protocol) for one, label in labels.items()}
        lost = [one for one, verdict in said.items() if verdict is None]
        kept = [one for one in labels if protocol.unparsed != "drop" or said[one] is not None]
        outcomes = {"accuracy": {one: float(said[one] == labels[one]) for one in kept}}
        for name in ("tp", "fp", "tn", "fn", "lost_yes", "lost_no"):
            outcomes[name] = {one: float(cell(labels[one], said[one]) == name) for one in labels}
        metrics = confusion((labels[one], said[one]) for one in labels).metrics(protocol.unparsed)
        settings = {"scorer": protocol.name, "parser": protocol.parser, "unparsed": protocol.unparsed}
        settings |= {"scenes": str(self.count), "seed": str(self.seed)}
        notes = (f"{len(lost)} answers are neither yes nor no: {listed(lost)}",) if lost else ()
        return Score(self.name, metrics, outcomes, settings, notes)


@dataclass(frozen=True)
class SceneCaptions:
    """Captions of drawn scenes: CHAIR over coloured shapes.

    Attributes:
        split: of the scene generator. count: scenes. seed: of the scenes.

    Raises:
        SpecError: no such split, or no scenes.
    """

    split: str = "test"
    count: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        _check_count(self.count)
        _drawn(self.split, self.seed, 0)

    @property
    def name(self) -> str:
        """``scene-captions-`` and the split."""
        return f"scene-captions-{self.split}"

    def items(self) -> Sequence[Item]:
        """One scene each, to be described, pictures in memory."""
        drawn = (_drawn(self.split, self.seed, index) for index in range(self.count))
        return [
            Item(str(index), (scene.image,), _asked(questions), str(index), {"objects": sorted(scene.names)})
            for index, (scene, questions) in enumerate(drawn)
        ]

    def score(self, answers: Mapping[str, str]) -> Score:
        """CHAIR_s, CHAIR_i, recall, precision, F1 and length in words, as :func:`chair_metrics` has them.

        Raises:
            SpecError: captions are missing or belong to no scene.
        """
        check_answers([Item(str(index), (), "") for index in range(self.count)], answers)
        counts = {
            str(i): _counts(answers[str(i)], _drawn(self.split, self.seed, i)[0].names) for i in range(self.count)
        }
        sums = {name: sum(row[name] for row in counts.values()) for name in counts["0"]}
        outcomes = {name: {one: row[name] for one, row in counts.items()} for name in sums}
        settings = {"scorer": "chair", "table": "scene", "scenes": str(self.count), "seed": str(self.seed)}
        return Score(self.name, chair_metrics(sums, self.count), outcomes, settings)


@lru_cache(maxsize=4096)
def _drawn(split: str, seed: int, index: int) -> tuple[Scene, tuple[Question, ...]]:
    return split_item(split, seed, index)


def _asked(questions: Sequence[Question]) -> str:
    return next((q.text for q in questions if q.kind == "caption"), _CAPTION)


def _counts(caption: str, there: set[str]) -> dict[str, float]:
    named = mentioned(caption)
    wrong = [name for name in named if name not in there]
    return {
        "chair_s": float(bool(wrong)),
        "recalled": float(len(there & set(named))),
        "kinds": float(len(set(named))),
        "truth": float(len(there)),
        "hallucinated": float(len(wrong)),
        "objects": float(len(named)),
        "length": float(len(caption.split())),
    }


def _check_count(count: int) -> None:
    if count < 1:
        raise SpecError(f"there must be at least one scene, got {count}")
