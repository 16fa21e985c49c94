"""MME: two yes-or-no questions about each picture (Fu et al., 2023, arXiv:2306.13394)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.records import find_images, listed, read_text, unique
from vlmattn.hallucination.benchmark import Item, Score, check_answers
from vlmattn.hallucination.parsers import Verdict, find_parser

MME = "github.com/BradyFU/Awesome-Multimodal-Large-Language-Models (MME)"
MME_PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
MME_HALLUCINATION = ("existence", "count", "position", "color")
MME_PARSERS: tuple[str, ...] = ("lmms_eval_mme", "vlmevalkit", "repope", "strict")
"""Ways to read the answers; the first has the official rule of the first four characters."""


@dataclass(frozen=True)
class MmeQuestion:
    """One question.

    Attributes: subtask: such as ``count``. image: the picture's file name. text, label: the question and
    its right answer. number: 1 or 2, of the picture."""

    subtask: str
    image: str
    text: str
    label: Verdict
    number: int

    @property
    def id(self) -> str:
        """Subtask, picture and number."""
        return f"{self.subtask}/{self.image}/{self.number}"


@dataclass(frozen=True)
class Mme:
    """Subtasks of MME.

    Attributes:
        questions: two of every picture. parser: a name of ``YES_NO_PARSERS`` that does not look at the right answer.
            images: the folder with one folder of pictures for each subtask; None where only scores are wanted.

    Raises:
        SpecError: no questions, a picture without exactly two, or a parser that does not fit. FileError: pictures are
        missing.
    """

    questions: tuple[MmeQuestion, ...]
    parser: str = "lmms_eval_mme"
    images: str | Path | None = None

    def __post_init__(self) -> None:
        if not self.questions:
            raise SpecError("MME needs at least one question")
        unique((q.id for q in self.questions), "MME's questions")
        if find_parser(self.parser).needs_label:
            raise SpecError(f"parser {self.parser!r} looks at the right answer, which does not go with MME")
        odd = [f"{s}/{i}" for (s, i), own in self._pictures().items() if len(own) != 2]
        if odd:
            raise SpecError(f"{len(odd)} pictures have not exactly two questions: {listed(odd)}")
        self._places()

    @property
    def name(self) -> str:
        """``mme``."""
        return "mme"

    def items(self) -> Sequence[Item]:
        """All questions."""
        places = self._places()
        return [
            Item(q.id, places[f"{q.subtask}/{q.image}"], q.text, f"{q.subtask}/{q.image}",
                 {"label": q.label, "subtask": q.subtask})
            for q in self.questions
        ]  # fmt: skip

    def readings(self) -> dict[str, Mme]:
        """The same questions by every parser, by name."""
        return {name: replace(self, parser=name) for name in MME_PARSERS}

    def score(self, answers: Mapping[str, str]) -> Score:
        """Of each subtask 100 × (share of right answers + share of pictures with both right), 0 to 200; and sums.

        ``perception`` and ``hallucination`` are sums over the subtasks of those groups, and are there where all of the
        group are; ``acc``, ``acc_plus`` and ``unparsed`` are shares of all.

        Raises:
            SpecError: answers are missing or belong to no question.
        """
        check_answers([Item(q.id, (), "") for q in self.questions], answers)
        parse = find_parser(self.parser).parse
        said = {q.id: parse(answers[q.id], None) for q in self.questions}
        right = {q.id: said[q.id] == q.label for q in self.questions}
        both = {key: all(right[q.id] for q in own) for key, own in self._pictures().items()}
        subtasks = dict.fromkeys(q.subtask for q in self.questions)
        metrics = {s: self._subtask(s, right, both) for s in subtasks}
        for group, names in (("perception", MME_PERCEPTION), ("hallucination", MME_HALLUCINATION)):
            if set(names) <= set(subtasks):
                metrics[group] = sum(metrics[name] for name in names)
        lost = [one for one, verdict in said.items() if verdict is None]
        metrics |= {"acc": sum(right.values()) / len(right), "acc_plus": sum(both.values()) / len(both)}
        metrics["unparsed"] = len(lost) / len(said)
        notes = (f"{len(lost)} answers are neither yes nor no: {listed(lost)}",) if lost else ()
        settings = {"scorer": "mme", "parser": self.parser, "questions": str(len(right))}
        return Score(self.name, metrics, {"acc": {one: float(r) for one, r in right.items()}}, settings, notes)

    def _subtask(self, name: str, right: Mapping[str, bool], both: Mapping[tuple[str, str], bool]) -> float:
        answers = [right[q.id] for q in self.questions if q.subtask == name]
        pictures = [value for (subtask, _), value in both.items() if subtask == name]
        return 100 * (sum(answers) / len(answers)) + 100 * (sum(pictures) / len(pictures))

    def _pictures(self) -> dict[tuple[str, str], list[MmeQuestion]]:
        own: dict[tuple[str, str], list[MmeQuestion]] = {}
        for question in self.questions:
            own.setdefault((question.subtask, question.image), []).append(question)
        return own

    def _places(self) -> dict[str, tuple[Path, ...]]:
        return find_images(self.images, [f"{q.subtask}/{q.image}" for q in self.questions], published=MME)


def load_mme(folder: str | Path, subtasks: Sequence[str] = MME_PERCEPTION, **options: Any) -> Mme:
    """Subtasks from ``SUBTASK.txt`` files of tab-separated picture, question and right answer.

    Result files, with the model's answer as a fourth column, are read, too; the answers are left to
    ``read_mme_answers``.

    Raises:
        FileError: a file is missing, or a line has not three or four columns.
    """
    found = [question for name in subtasks for question, _ in _lines(Path(folder), name)]
    return Mme(tuple(found), **options)


def read_mme_answers(folder: str | Path, subtasks: Sequence[str] = MME_PERCEPTION) -> dict[str, str]:
    """The answers of official result files, by id.

    Raises:
        FileError: a file is missing, or a line has no fourth column.
    """
    answers: dict[str, str] = {}
    for name in subtasks:
        for question, answer in _lines(Path(folder), name):
            if answer is None:
                raise FileError(f"{folder}/{name}.txt has no answer to {question.id}")
            answers[question.id] = answer
    return answers


def _lines(folder: Path, name: str) -> list[tuple[MmeQuestion, str | None]]:
    path = folder / f"{name}.txt"
    seen: dict[str, int] = {}
    found = []
    for number, line in enumerate(read_text(path, published=MME).split("\n"), 1):
        if not line.strip():
            continue
        cells = line.rstrip("\r").split("\t")
        if len(cells) not in (3, 4) or cells[2].strip().lower() not in ("yes", "no"):
            raise FileError(f"{path}, line {number}: expected picture, question, Yes or No, and maybe an answer")
        seen[cells[0]] = seen.get(cells[0], 0) + 1
        label: Verdict = "yes" if cells[2].strip().lower() == "yes" else "no"
        question = MmeQuestion(name, cells[0], cells[1], label, seen[cells[0]])
        found.append((question, cells[3] if len(cells) == 4 else None))
    return found
