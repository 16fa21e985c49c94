"""HallusionBench: questions in pairs about figures and their edits (Guan et al., 2023, arXiv:2310.14566)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.records import field, find_images, listed, read_rows, unique
from vlmattn.hallucination.benchmark import Item, Score, check_answers
from vlmattn.hallucination.parsers import Verdict, find_parser
from vlmattn.hallucination.yesno import share

HALLUSION = "github.com/tianyi-lab/HallusionBench"
Judgement = Literal["correct", "incorrect", "unclear"]
Judge = Callable[["HallusionQuestion", str], Judgement]
HALLUSION_RULES: tuple[str, ...] = ("yes_substring", "vlmevalkit", "strict")
"""Ways to judge without a model: an answer says yes if the letters occur (else no); or a parser's yes or no."""


@dataclass(frozen=True)
class HallusionQuestion:
    """One question. Attributes: category: VD (needs the figure) or VS (the figure supplements). subcategory, set_id,
    figure_id, question_id: where it belongs. text, label: the question and its right answer. file: of the figure, empty
    for none."""

    category: str
    subcategory: str
    set_id: str
    figure_id: str
    question_id: str
    text: str
    label: Verdict
    file: str = ""

    @property
    def id(self) -> str:
        """Its five parts, joined by ``_``, as VLMEvalKit has them."""
        return "_".join((self.category, self.subcategory, self.set_id, self.figure_id, self.question_id))

    @property
    def pair(self) -> tuple[str, ...]:
        """The same question about every figure of a set: all must be right for qAcc."""
        return self.category, self.subcategory, self.set_id, self.question_id

    @property
    def figure(self) -> tuple[str, ...]:
        """All questions about a figure: all must be right for fAcc."""
        return self.category, self.subcategory, self.set_id, self.figure_id

    @property
    def without_figure(self) -> bool:
        """Whether it is one of VS that is asked without any figure."""
        return self.category == "VS" and self.figure_id == "0"


@dataclass(frozen=True)
class HallusionBench:
    """The benchmark or a part of it.

    Attributes:
        questions: all of them. rule: a name of ``HALLUSION_RULES``; not used with a judge. judge: your function from
            question and answer to ``"correct"``, ``"incorrect"`` or ``"unclear"``: the official one asks GPT-4.
            images: the folder with the figures; None where only scores are wanted.

    Raises:
        SpecError: no questions, ids that occur twice, or an unknown rule. FileError: figures are missing.
    """

    questions: tuple[HallusionQuestion, ...]
    rule: str = "yes_substring"
    judge: Judge | None = None
    images: str | Path | None = None

    def __post_init__(self) -> None:
        if not self.questions:
            raise SpecError("HallusionBench needs at least one question")
        unique((q.id for q in self.questions), "HallusionBench's questions")
        if self.rule not in HALLUSION_RULES:
            raise SpecError(f"rule {self.rule!r} does not exist; rules are {', '.join(HALLUSION_RULES)}")
        self._places()

    @property
    def name(self) -> str:
        """``hallusionbench``."""
        return "hallusionbench"

    def items(self) -> Sequence[Item]:
        """All questions; those without a figure have no picture."""
        places = self._places()
        return [Item(q.id, places.get(q.file, ()), q.text, "_".join(q.figure), {"label": q.label})
                for q in self.questions]  # fmt: skip

    def readings(self) -> dict[str, HallusionBench]:
        """The same questions by every rule, by name."""
        return {rule: replace(self, rule=rule, judge=None) for rule in HALLUSION_RULES}

    def score(self, answers: Mapping[str, str]) -> Score:
        """``a_acc`` of questions, ``q_acc`` of pairs and ``f_acc`` of figures, in [0, 1].

        An answer is right if judged correct; unclear is right, too, for a question without the figure it supplements.
        ``f_acc`` leaves those questions out, as the official program does; ``f_acc_all`` does not. ``vlmevalkit_…`` are
        of questions with a figure alone, where unclear is wrong, as that harness has them; see
        :func:`harness_accuracies`.

        Raises:
            SpecError: answers are missing or belong to no question, or a judge said something else.
        """
        check_answers([Item(q.id, (), "") for q in self.questions], answers)
        told = {q.id: self._judged(q, answers[q.id]) for q in self.questions}
        right = {q.id: told[q.id] == "correct" or (told[q.id] == "unclear" and q.without_figure)
                 for q in self.questions}  # fmt: skip
        drawn = [q for q in self.questions if not q.without_figure]
        unclear = [q.id for q in self.questions if told[q.id] == "unclear"]
        metrics = {
            "a_acc": sum(right.values()) / len(right),
            "q_acc": _all_right([(q.pair, right[q.id]) for q in self.questions]),
            "f_acc": _all_right([(q.figure, right[q.id]) for q in drawn]),
            "f_acc_all": _all_right([(q.figure, right[q.id]) for q in self.questions]),
            **harness_accuracies(self.questions, {one: said == "correct" for one, said in told.items()}),
            "unparsed": len(unclear) / len(right),
        }
        settings = {"scorer": "hallusionbench", "rule": self._told(), "questions": str(len(right))}
        notes = (f"{len(unclear)} answers are unclear: {listed(unclear)}",) if unclear else ()
        outcomes = {"a_acc": {one: float(value) for one, value in right.items()}}
        return Score(self.name, metrics, outcomes, settings, notes)

    def _told(self) -> str:
        return self.rule if self.judge is None else f"judge {getattr(self.judge, '__name__', 'given')}"

    def _judged(self, question: HallusionQuestion, answer: str) -> Judgement:
        if self.judge is not None:
            told = self.judge(question, answer)
            if told not in ("correct", "incorrect", "unclear"):
                raise SpecError(f"a judge must say correct, incorrect or unclear; of {question.id} it said {told!r}")
            return told
        if self.rule == "yes_substring":
            said: Verdict | None = "yes" if "yes" in answer.lower() else "no"
        else:
            said = find_parser(self.rule).parse(answer, None)
        return "unclear" if said is None else "correct" if said == question.label else "incorrect"

    def _places(self) -> dict[str, tuple[Path, ...]]:
        return find_images(self.images, [q.file for q in self.questions if q.file], published=HALLUSION)


def harness_accuracies(questions: Sequence[HallusionQuestion], right: Mapping[str, bool]) -> dict[str, float]:
    """VLMEvalKit's numbers, in [0, 1], of questions with a figure; its headline is ``vlmevalkit_average``, their mean.

    Pairs and figures are told apart by subcategory, set and number. NaN where no question has a figure.
    """
    drawn = [q for q in questions if q.file]
    if not drawn:
        return dict.fromkeys(
            ("vlmevalkit_a_acc", "vlmevalkit_q_acc", "vlmevalkit_f_acc", "vlmevalkit_average"), math.nan
        )
    found = {
        "vlmevalkit_a_acc": sum(right[q.id] for q in drawn) / len(drawn),
        "vlmevalkit_q_acc": _all_right([((q.subcategory, q.set_id, q.question_id), right[q.id]) for q in drawn]),
        "vlmevalkit_f_acc": _all_right([((q.subcategory, q.set_id, q.figure_id), right[q.id]) for q in drawn]),
    }
    return found | {"vlmevalkit_average": sum(found.values()) / len(found)}


def load_hallusionbench(path: str | Path, **options: Any) -> HallusionBench:
    """The benchmark from ``HallusionBench.json``.

    Args:
        path: the file. options: ``rule``, ``judge`` and ``images`` of :class:`HallusionBench`.

    Raises:
        FileError: missing, cut short, or of another schema.
    """
    rows = read_rows(path, published=HALLUSION)
    return HallusionBench(tuple(_question(row, f"{path}: row {n}") for n, row in enumerate(rows, 1)), **options)


def _question(row: Mapping[str, Any], where: str) -> HallusionQuestion:
    names = ("category", "subcategory", "set_id", "figure_id", "question_id", "question")
    category, subcategory, set_id, figure_id, question_id, text = (field(row, name, where) for name in names)
    label = field(row, "gt_answer", where)
    if label not in ("0", "1"):
        raise FileError(f"{where}: gt_answer is {label!r}, and not 0 or 1")
    file = row.get("filename") or ""
    right: Verdict = "yes" if label == "1" else "no"
    place = str(file).removeprefix("./")
    return HallusionQuestion(category, subcategory, set_id, figure_id, question_id, text, right, place)


def _all_right(rows: Sequence[tuple[tuple[str, ...], bool]]) -> float:
    groups: dict[tuple[str, ...], bool] = {}
    for group, right in rows:
        groups[group] = groups.get(group, True) and right
    return share(sum(groups.values()), len(groups))
