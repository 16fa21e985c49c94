"""POPE: is there a … in the image? (Li et al., 2023, arXiv:2305.10355), with RePOPE's labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.records import field, find_images, listed, read_rows, unique
from vlmattn.hallucination.benchmark import Item, Score, check_answers
from vlmattn.hallucination.parsers import Verdict
from vlmattn.hallucination.yesno import (
    YES_NO_PROTOCOLS,
    YesNoProtocol,
    cell,
    confusion,
    find_protocol,
    share,
    understood,
)

PUBLISHED = "github.com/RUCAIBox/POPE (output/coco), and its pictures as COCO val2014 at cocodataset.org"
REPOPE = "github.com/YanNeu/RePOPE"
POPE_PROMPTS: dict[str, str] = {
    "official": "{}",
    "llava": "{}\nAnswer the question using a single word or phrase.",
    "vlmevalkit": "{} Please answer yes or no.",
}
"""What is put around a question, by protocol."""
_CELLS = ("tp", "fp", "tn", "fn", "lost_yes", "lost_no")


@dataclass(frozen=True)
class PopeQuestion:
    """One question of POPE.

    Attributes:
        id: unique in its benchmark. split: such as ``adversarial``. image: the picture's file name. text: the question.
            label: the right answer.
    """

    id: str
    split: str
    image: str
    text: str
    label: Verdict

    @property
    def key(self) -> tuple[str, str]:
        """What it is whatever its number: picture and question, with the misprint of early files mended."""
        return self.image, same_question(self.text)


@dataclass(frozen=True)
class Pope:
    """A POPE benchmark: questions of one or more splits, and how their answers are scored.

    Attributes:
        questions: all of them, in order. images: the folder with the pictures; None where only scores are wanted.
            protocol: how answers are read and counted, a name of ``YES_NO_PROTOCOLS``. prompt: a name of
            ``POPE_PROMPTS``. labels: whose they are: ``pope`` or ``repope``.

    Raises:
        SpecError: no questions, ids that occur twice, or an unknown protocol or prompt.
        FileError: pictures are missing.
    """

    questions: tuple[PopeQuestion, ...]
    images: str | Path | None = None
    protocol: str = "official"
    prompt: str = "llava"
    labels: str = "pope"

    def __post_init__(self) -> None:
        if not self.questions:
            raise SpecError("POPE needs at least one question")
        unique((q.id for q in self.questions), "POPE's questions")
        find_protocol(self.protocol)
        if self.prompt not in POPE_PROMPTS:
            raise SpecError(f"prompt {self.prompt!r} does not exist; prompts are {', '.join(POPE_PROMPTS)}")
        find_images(self.images, [q.image for q in self.questions], published=PUBLISHED)

    @property
    def name(self) -> str:
        """``pope-`` and its splits."""
        return f"{self.labels}-{'-'.join(self.splits)}"

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in order of their first question."""
        return tuple(dict.fromkeys(q.split for q in self.questions))

    def items(self) -> Sequence[Item]:
        """All questions as things to answer."""
        places = find_images(self.images, [q.image for q in self.questions], published=PUBLISHED)
        around = POPE_PROMPTS[self.prompt]
        return [
            Item(q.id, places[q.image], around.format(q.text), q.image, {"label": q.label, "split": q.split,
            "question": q.text})
            for q in self.questions
        ]  # fmt: skip

    def readings(self) -> dict[str, Pope]:
        """The same questions by every protocol, by name."""
        return {name: replace(self, protocol=name) for name in YES_NO_PROTOCOLS}

    def score(self, answers: Mapping[str, str]) -> Score:
        """Accuracy, precision, recall, F1, yes ratio and unparsed share; of all answers, and of each split if several.

        With several splits ``mean_f1`` and ``mean_accuracy`` are the means over splits that papers print, while ``f1``
        and ``accuracy`` are of all answers together, where each question about a thing that is there counts once for
        every split. Undefined ratios are NaN.

        Raises:
            SpecError: answers are missing or belong to no question.
        """
        check_answers([Item(q.id, (), q.text) for q in self.questions], answers)
        protocol = find_protocol(self.protocol)
        said = {q.id: understood(answers[q.id], q.label, protocol) for q in self.questions}
        metrics = self._metrics(said, protocol)
        lost = [q.id for q in self.questions if said[q.id] is None]
        notes = (f"{len(lost)} answers are neither yes nor no: {listed(lost)}",) if lost else ()
        return Score(self.name, metrics, self._outcomes(said, protocol), self._settings(protocol), notes)

    def _metrics(self, said: Mapping[str, Verdict | None], protocol: YesNoProtocol) -> dict[str, float]:
        whole = confusion((q.label, said[q.id]) for q in self.questions)
        metrics = whole.metrics(protocol.unparsed)
        if len(self.splits) > 1:
            rows = {
                s: confusion((q.label, said[q.id]) for q in self.questions if q.split == s).metrics(protocol.unparsed)
                for s in self.splits
            }
            for of in ("accuracy", "f1"):
                metrics[f"mean_{of}"] = share(sum(row[of] for row in rows.values()), len(rows))
            metrics |= {f"{split}_{of}": value for split, row in rows.items() for of, value in row.items()}
        return metrics | {name: float(getattr(whole, name)) for name in _CELLS}

    def _outcomes(self, said: Mapping[str, Verdict | None], protocol: YesNoProtocol) -> dict[str, dict[str, float]]:
        kept = [q for q in self.questions if protocol.unparsed != "drop" or said[q.id] is not None]
        outcomes = {"accuracy": {q.id: float(said[q.id] == q.label) for q in kept}}
        for name in _CELLS:
            outcomes[name] = {q.id: float(cell(q.label, said[q.id]) == name) for q in self.questions}
        return outcomes

    def _settings(self, protocol: YesNoProtocol) -> dict[str, str]:
        return {
            "scorer": protocol.name,
            "parser": protocol.parser,
            "unparsed": protocol.unparsed,
            "prompt": self.prompt,
            "labels": self.labels,
            "questions": str(len(self.questions)),
        }


def same_question(text: str) -> str:
    """A question without the misprint ("imange") of early files and of files made by the official builder."""
    return text.split("\n")[0].strip().replace("imange", "image")


def load_pope(folder: str | Path, splits: Iterable[str] = ("random", "popular", "adversarial"), **options: Any) -> Pope:
    """POPE from the official files in a folder: ``coco_pope_random.json`` and so on, or one file for each split.

    Both layouts are read: JSON lines (COCO) and arrays (A-OKVQA, GQA). The file of October 2023 has 3,000 questions in
    each split of COCO; an earlier one has 2,910 in ``random``: its name says so, ``random2910``. With one split the ids
    are the files' own numbers; with several, the split stands before them: ``popular-17``.

    Args:
        folder: with the files. splits: which. options: fields of :class:`Pope`.

    Raises:
        FileError: a file is missing, cut short, of several schemas, or bears the name of an official file but has
            not its number of questions.
    """
    names = tuple(splits)
    found: list[PopeQuestion] = []
    for split in names:
        path = _file(Path(folder), split)
        rows = read_rows(path, published=PUBLISHED)
        _check_whole(path, split, len(rows))
        found += questions_of(rows, split, before=f"{split}-" if len(names) > 1 else "")
    return Pope(tuple(found), **options)


def questions_of(rows: Sequence[Mapping[str, Any]], split: str, *, before: str = "") -> list[PopeQuestion]:
    """Questions from rows of a POPE file, of PAI's layout with several questions a row, too.

    Raises:
        FileError: a row lacks a field, or its label is neither yes nor no.
    """
    flat = [one for number, row in enumerate(rows, 1) for one in _flat(row, number)]
    if split == "random" and len(flat) == 2910:
        split = "random2910"
    return [_question(row, number, split, before) for number, row in enumerate(flat, 1)]


def relabel(pope: Pope, rows: Sequence[Mapping[str, Any]]) -> Pope:
    """A POPE with RePOPE's labels: joined by picture and question; ambiguous questions, which have none, are left out.

    Raises:
        SpecError: a row belongs to no question of the benchmark, or two rows contradict each other.
    """
    labels: dict[tuple[str, str], Verdict] = {}
    for question in questions_of(rows, "repope"):
        if labels.setdefault(question.key, question.label) != question.label:
            raise SpecError(f"the question {question.text!r} about {question.image} has two labels")
    known = {q.key for q in pope.questions}
    strange = [f"{image}: {text}" for image, text in labels if (image, text) not in known]
    if strange:
        raise SpecError(f"{len(strange)} labels belong to no question of {pope.name}: {listed(strange)}")
    kept = tuple(PopeQuestion(q.id, q.split, q.image, q.text, labels[q.key]) for q in pope.questions if q.key in labels)
    return Pope(kept, pope.images, pope.protocol, pope.prompt, "repope")


def _file(folder: Path, split: str) -> Path:
    if folder.is_file():
        return folder
    ends = (f"_{split}.json", f"_{split}.jsonl", f"_{split}.json.gz", f"_{split}.jsonl.gz")
    found = sorted(p for p in folder.glob("*") if p.name.endswith(ends))
    if len(found) != 1:
        named = f"{len(found)} files" if found else "no file"
        raise FileError(f"{named} in {folder} for the split {split!r} (*_{split}.json); published at {PUBLISHED}")
    return found[0]


def _check_whole(path: Path, split: str, count: int) -> None:
    # JSON lines that end early are still JSON lines; only the official files have a known number of them.
    whole = (3000, 2910) if split == "random" else (3000,)
    official = path.name.removesuffix(".gz") in (f"coco_pope_{split}.json", f"coco_pope_{split}.jsonl")
    if official and count not in whole:
        raise FileError(
            f"{path} has {count} questions and should have {' or '.join(map(str, whole))}: get it again from "
            f"{PUBLISHED}, or give a part of it another name"
        )


def _flat(row: Mapping[str, Any], number: int) -> list[Mapping[str, Any]]:
    if not isinstance(row.get("text"), list):
        return [row]
    labels = field(row, "label", f"row {number}", list)
    if len(labels) != len(row["text"]):
        raise FileError(f"row {number} has {len(row['text'])} questions and {len(labels)} labels")
    chat = row.get("chat_id", number - 1)
    pairs = enumerate(zip(row["text"], labels, strict=True), 1)
    return [{"question_id": f"{chat}-{i}", "image": row.get("image"), "text": t, "label": a} for i, (t, a) in pairs]


def _question(row: Mapping[str, Any], number: int, split: str, before: str) -> PopeQuestion:
    where = f"row {number} of {split}"
    label = field(row, "label", where)
    if label not in ("yes", "no"):
        raise FileError(f"{where}: the label is {label!r}, and not yes or no")
    name = field(row, "question_id", where, (int, str))
    return PopeQuestion(f"{before}{name}", split, field(row, "image", where), field(row, "text", where), label)
