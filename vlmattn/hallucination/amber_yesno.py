"""AMBER's questions: existence, attributes and relations (Wang et al., 2023). The positive class is *no*."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.records import field, find_images, listed, read_rows, unique
from vlmattn.hallucination.amber import AMBER, AMBER_IMAGES, amber_annotations
from vlmattn.hallucination.benchmark import Item, Score, check_answers
from vlmattn.hallucination.parsers import Verdict, find_parser

_KINDS = {
    "discriminative-attribute-state": "state",
    "discriminative-attribute-number": "number",
    "discriminative-attribute-action": "action",
    "discriminative-hallucination": "existence",
}
AMBER_KINDS = ("existence", "state", "number", "action", "relation")
_ATTRIBUTES = ("state", "number", "action")
AMBER_PARSERS: tuple[str, ...] = ("amber", "strict", "lmms_eval_amber", "vlmevalkit")
"""Ways to read the answers; only ``amber`` is official, and takes nothing but Yes and No."""


@dataclass(frozen=True)
class AmberQuestion:
    """One question of AMBER. Attributes: id: its number. kind: one of ``AMBER_KINDS``. label: the right answer. text,
    image: from the query files; empty where those were not read."""

    id: str
    kind: str
    label: Verdict
    text: str = ""
    image: str = ""


@dataclass(frozen=True)
class AmberDiscriminative:
    """AMBER's 14,216 questions.

    Attributes:
        questions: all of them. parser: a name of ``YES_NO_PARSERS``; official is ``amber``. images: the folder with the
            pictures; None where only scores are wanted.

    Raises:
        SpecError: no questions, ids that occur twice, an unknown parser, or one that looks at the right answer; or
            pictures without questions read. FileError: pictures are missing.
    """

    questions: tuple[AmberQuestion, ...]
    parser: str = "amber"
    images: str | Path | None = None

    def __post_init__(self) -> None:
        if not self.questions:
            raise SpecError("AMBER needs at least one question")
        if find_parser(self.parser).needs_label:
            raise SpecError(f"parser {self.parser!r} looks at the right answer, which AMBER's counts rule out")
        unique((q.id for q in self.questions), "AMBER's questions")
        if self.images is not None and not all(q.text and q.image for q in self.questions):
            raise SpecError(f"questions to be asked need AMBER's query files, published at {AMBER}")
        self._places()

    @property
    def name(self) -> str:
        """``amber-discriminative``."""
        return "amber-discriminative"

    def items(self) -> Sequence[Item]:
        """All questions."""
        places = self._places()
        return [
            Item(q.id, places[q.image], q.text, q.image, {"label": q.label, "kind": q.kind}) for q in self.questions
        ]

    def readings(self) -> dict[str, AmberDiscriminative]:
        """The same questions by every parser, by name."""
        return {name: replace(self, parser=name) for name in AMBER_PARSERS}

    def score(self, answers: Mapping[str, str]) -> Score:
        """Accuracy, precision, recall and F1 in percent with one decimal, of all and each kind, as printed officially.

        ``vlmevalkit_…`` are the accuracies that VLMEvalKit prints instead, in percent and not rounded, by
        :func:`harness_accuracies`; its own parser is ``vlmevalkit``. ``attribute_…`` is of state, number and action
        together. Precision is of the answers *no*; of ``existence``, where *no* is always right, it is 100 as soon as
        there is one. ``unparsed`` is a share in [0, 1].

        Raises:
            SpecError: answers are missing or belong to no question.
        """
        check_answers([Item(q.id, (), "") for q in self.questions], answers)
        parse = find_parser(self.parser).parse
        said = {q.id: parse(answers[q.id], None) for q in self.questions}
        metrics = amber_metrics(self.questions, said)
        for kind in dict.fromkeys(q.kind for q in self.questions):
            metrics |= _named(kind, amber_metrics([q for q in self.questions if q.kind == kind], said))
        attributes = [q for q in self.questions if q.kind in _ATTRIBUTES]
        if attributes:
            metrics |= _named("attribute", amber_metrics(attributes, said))
        lost = [q.id for q in self.questions if said[q.id] is None]
        notes = (f"{len(lost)} answers are neither yes nor no and count as wrong: {listed(lost)}",) if lost else ()
        metrics |= harness_accuracies(self.questions, said)
        metrics["unparsed"] = len(lost) / len(self.questions)
        settings = {"scorer": "amber", "parser": self.parser, "questions": str(len(self.questions))}
        right = {q.id: float(said[q.id] == q.label) for q in self.questions}
        return Score(self.name, metrics, {"accuracy": right}, settings, notes)

    def _places(self) -> dict[str, tuple[Path, ...]]:
        return find_images(self.images, [q.image for q in self.questions], published=AMBER_IMAGES)


def amber_metrics(questions: Sequence[AmberQuestion], said: Mapping[str, Verdict | None]) -> dict[str, float]:
    """The four official numbers of some questions; F1 of the two rounded ones."""
    right = sum(said[q.id] == q.label for q in questions)
    caught = sum(said[q.id] == "no" == q.label for q in questions)
    nos, truly = sum(said[q.id] == "no" for q in questions), sum(q.label == "no" for q in questions)
    precision, recall = _percent(caught, nos), _percent(caught, truly)
    p, r = precision / 100, recall / 100
    little = 0.001 if {q.kind for q in questions} == {"existence"} else 0.0001
    f1 = round(2 * p * r / (p + r + little) * 100, 1)
    return {"accuracy": _percent(right, len(questions)), "precision": precision, "recall": recall, "f1": f1}


def harness_accuracies(questions: Sequence[AmberQuestion], said: Mapping[str, Verdict | None]) -> dict[str, float]:
    """Accuracy by group as VLMEvalKit prints it, in percent: of attributes (state, number and action together),
    existence and relations, and ``average``, the mean of the groups there are, each counted once, however large."""
    groups: dict[str, list[bool]] = {}
    for question in questions:
        group = "attribute" if question.kind in _ATTRIBUTES else question.kind
        groups.setdefault(group, []).append(said[question.id] == question.label)
    found = {f"vlmevalkit_{group}": 100 * sum(right) / len(right) for group, right in groups.items()}
    return found | {"vlmevalkit_average": sum(found.values()) / len(found)}


def amber_score(chair: float, f1: float) -> float:
    """AMBER's one number of both tasks, (100 - CHAIR + F1) / 2, all in percent.

    >>> round(amber_score(7.8, 74.7), 2)
    83.45
    """
    return (100 - chair + f1) / 2


def load_amber_questions(
    folder: str | Path, queries: str | Path | None = None, kinds: Iterable[str] = AMBER_KINDS, **options: Any
) -> AmberDiscriminative:
    """AMBER's questions from its ``data`` folder.

    Args:
        folder: with ``annotations.json``. queries: a file of ``data/query`` with texts and pictures, needed to ask but
            not to score. kinds: which. options: ``parser`` and ``images`` of :class:`AmberDiscriminative`.

    Raises:
        FileError: a file is missing, cut short, or of another schema. SpecError: an unknown kind, or a question without
            its query.
    """
    wanted = tuple(kinds)
    for kind in wanted:
        if kind not in AMBER_KINDS:
            raise SpecError(f"kind {kind!r} does not exist; kinds are {', '.join(AMBER_KINDS)}")
    found = [_question(row) for row in amber_annotations(folder) if row["type"] != "generative"]
    kept = [q for q in found if q.kind in wanted]
    return AmberDiscriminative(tuple(kept if queries is None else _with_texts(kept, queries)), **options)


def _question(row: Mapping[str, Any]) -> AmberQuestion:
    label = field(row, "truth", f"annotation {row['id']}")
    if label not in ("yes", "no"):
        raise FileError(f"annotation {row['id']}: the truth is {label!r}, and not yes or no")
    # Relations have two spellings in the official file.
    return AmberQuestion(str(row["id"]), _KINDS.get(row["type"], "relation"), label)


def _with_texts(questions: Sequence[AmberQuestion], path: str | Path) -> list[AmberQuestion]:
    rows = {str(field(r, "id", f"{path}: a query", int)): r for r in read_rows(path, published=AMBER)}
    missing = [q.id for q in questions if q.id not in rows]
    if missing:
        raise SpecError(f"{path} has no query for {len(missing)} questions: {listed(missing)}")
    where = f"{path}: a query"
    return [
        replace(q, text=field(rows[q.id], "query", where), image=field(rows[q.id], "image", where)) for q in questions
    ]


def _percent(part: int, whole: int) -> float:
    return round(part / (0.001 + whole) * 100, 1)


def _named(kind: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{kind}_{name}": value for name, value in metrics.items()}
