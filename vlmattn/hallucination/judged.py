"""Benchmarks whose scorer asks a language model: the formats and the arithmetic are here, the model is yours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmattn.core.errors import SpecError
from vlmattn.core.records import field as value_of
from vlmattn.core.records import find_images, listed, read_rows, unique
from vlmattn.hallucination.benchmark import Item, Score, check_answers
from vlmattn.hallucination.synonyms import SynonymTable, check_objects, coco_synonyms
from vlmattn.hallucination.yesno import share

MMHAL = "huggingface.co/datasets/Shengcao1006/MMHal-Bench"
OBJECT_HALBENCH = "github.com/RLHF-V/RLHF-V (eval/)"


@dataclass(frozen=True)
class MmhalQuestion:
    """One of MMHal-Bench's questions.

    Attributes: id: its place. kind: the type of question. text: the question. answer:
    the right one. objects: on the picture. image: its file name."""

    id: str
    kind: str
    text: str
    answer: str
    objects: tuple[str, ...]
    image: str


@dataclass(frozen=True)
class Mmhal:
    """MMHal-Bench (Sun et al., 2023, arXiv:2309.14525).

    Attributes:
        questions: all of them. judge: your function from a question and a model's answer to a judge's reply, which must
            hold ``Rating: N`` with N from 0 to 6; the official one asks GPT-4. images: the folder with the pictures.

    Raises:
        SpecError: no questions, or ids that occur twice. FileError: pictures are missing.
    """

    questions: tuple[MmhalQuestion, ...]
    judge: Callable[[MmhalQuestion, str], str]
    images: str | Path | None = None

    def __post_init__(self) -> None:
        if not self.questions:
            raise SpecError("MMHal needs at least one question")
        unique((q.id for q in self.questions), "MMHal's questions")
        find_images(self.images, [q.image for q in self.questions], published=MMHAL)

    @property
    def name(self) -> str:
        """``mmhal``."""
        return "mmhal"

    def items(self) -> Sequence[Item]:
        """All questions."""
        places = find_images(self.images, [q.image for q in self.questions], published=MMHAL)
        return [Item(q.id, places[q.image], q.text, q.image, {"answer": q.answer}) for q in self.questions]

    def score(self, answers: Mapping[str, str]) -> Score:
        """``rating`` (0 to 6), ``hallucination`` (share of ratings below 3), and ratings of each kind of question.

        Raises:
            SpecError: answers are missing or belong to no question, or the judge gave no text.
        """
        check_answers([Item(q.id, (), "") for q in self.questions], answers)
        replies = {q.id: self.judge(q, answers[q.id]) for q in self.questions}
        ratings = {one: mmhal_rating(reply) for one, reply in replies.items()}
        lost = [one for one, reply in replies.items() if len(_ratings(reply)) != 1]
        metrics = {
            "rating": sum(ratings.values()) / len(ratings),
            "hallucination": sum(r < 3 for r in ratings.values()) / len(ratings),
            "unparsed": len(lost) / len(ratings),
        }
        for kind in dict.fromkeys(q.kind for q in self.questions):
            own = [ratings[q.id] for q in self.questions if q.kind == kind]
            metrics[f"rating_{kind}"] = sum(own) / len(own)
        outcomes = {
            "rating": {one: float(r) for one, r in ratings.items()},
            "hallucination": {one: float(r < 3) for one, r in ratings.items()},
        }
        notes = (f"{len(lost)} replies of the judge hold no single rating and count as 0: {listed(lost)}",)
        settings = {"scorer": "mmhal", "judge": getattr(self.judge, "__name__", "given")}
        return Score(self.name, metrics, outcomes, settings, notes if lost else ())


def mmhal_rating(reply: str) -> int:
    """The rating in a judge's reply, 0 to 6; 0 where it names none or several, as in the official program.

    >>> mmhal_rating("Good. Rating: 5"), mmhal_rating("Rating: 5 ... or rating: 2")
    (5, 0)

    Raises:
        SpecError: a judge that gave no text.
    """
    found = _ratings(reply)
    return found[0] if len(found) == 1 else 0


def load_mmhal(
    path: str | Path, judge: Callable[[MmhalQuestion, str], str], *, images: str | Path | None = None
) -> Mmhal:
    """MMHal-Bench from its JSON file, the template or one with answers.

    Raises:
        FileError: missing, cut short, or of another schema; pictures are missing.
    """
    rows = read_rows(path, published=MMHAL)
    return Mmhal(tuple(_mmhal(row, n, f"{path}: row {n + 1}") for n, row in enumerate(rows)), judge, images)


@dataclass(frozen=True)
class ObjectHalBench:
    """Object HalBench (Yu et al., 2023, arXiv:2312.00849): CHAIR over objects that a language model reads off captions.

    Attributes:
        truth: objects of each picture by item id. prompts: of each item. extract: your function from a caption to the
            objects it says are there, in the singular; the official one asks GPT-3.5. table: words and objects.
            images: file of each item, in ``folder``. folder: with the pictures; None where only scores are wanted.

    Raises:
        SpecError: no items, other ids in ``prompts`` or ``images``, or an unknown object. FileError: pictures are
        missing.
    """

    truth: Mapping[str, frozenset[str]]
    prompts: Mapping[str, str]
    extract: Callable[[str], Sequence[str]]
    table: SynonymTable = field(default_factory=coco_synonyms)
    images: Mapping[str, str] = field(default_factory=dict)
    folder: str | Path | None = None

    def __post_init__(self) -> None:
        if not self.truth:
            raise SpecError("Object HalBench needs at least one picture with its objects")
        if set(self.prompts) != set(self.truth) or (self.images and set(self.images) != set(self.truth)):
            raise SpecError("prompts and images of Object HalBench must be of the same ids as the truth")
        check_objects(self.table, (o for there in self.truth.values() for o in there), "the truth")
        self._places()

    @property
    def name(self) -> str:
        """``object-halbench``."""
        return "object-halbench"

    def items(self) -> Sequence[Item]:
        """One prompt each."""
        places = self._places()
        return [
            Item(one, places.get(self.images.get(one, ""), ()), self.prompts[one], self.images.get(one, one),
                 {"objects": sorted(there)})
            for one, there in self.truth.items()
        ]  # fmt: skip

    def score(self, answers: Mapping[str, str]) -> Score:
        """Shares in [0, 1]: ``response`` (of captions that name an object, those that name one not there: the published
        response-level rate), ``chair_s`` (the same of all captions), ``object`` (of objects named, those not there) and
        ``recall``; and ``length`` in words.

        Each object counts once a caption; a caption of three words or fewer names none.

        Raises:
            SpecError: answers are missing or belong to no item.
        """
        check_answers([Item(one, (), "") for one in self.truth], answers)
        counts = {one: self._counts(answers[one], there) for one, there in self.truth.items()}
        sums = {name: sum(row[name] for row in counts.values()) for name in next(iter(counts.values()))}
        metrics = {
            "response": share(sums["chair_s"], sums["speaks"]),
            "chair_s": share(sums["chair_s"], len(counts)),
            "object": share(sums["hallucinated"], sums["objects"]),
            "recall": share(sums["recalled"], sums["truth"]),
            "length": share(sums["length"], len(counts)),
        }
        outcomes = {name: {one: row[name] for one, row in counts.items()} for name in sums}
        extract = getattr(self.extract, "__name__", "given")
        settings = {"scorer": "object-halbench", "table": self.table.name, "extract": extract}
        return Score(self.name, metrics, outcomes, settings)

    def _counts(self, caption: str, there: frozenset[str]) -> dict[str, float]:
        said = [] if len(caption.split(" ")) <= 3 else dict.fromkeys(w.lower() for w in self.extract(caption))
        nodes = [self.table.nodes[word] for word in said if word in self.table.nodes]
        wrong = [node for node in nodes if node not in there]
        return {
            "chair_s": float(bool(wrong)),
            "speaks": float(bool(nodes)),
            "hallucinated": float(len(wrong)),
            "objects": float(len(nodes)),
            "recalled": float(len(set(nodes) & there)),
            "truth": float(len(there)),
            "length": float(len(caption.split(" "))),
        }

    def _places(self) -> dict[str, tuple[Path, ...]]:
        return find_images(self.folder, list(self.images.values()), published=OBJECT_HALBENCH)


def _ratings(reply: str) -> list[int]:
    if not isinstance(reply, str):
        raise SpecError(f"a judge must reply with text, got {type(reply).__name__}")
    low = reply.lower()
    return [n for n in range(7) if f"rating: {n}" in low]


def _mmhal(row: Mapping[str, Any], number: int, where: str) -> MmhalQuestion:
    source = str(row.get("image_src", ""))
    image = source.rsplit("/", 1)[-1] or str(value_of(row, "image_id", where))
    objects = tuple(value_of(row, "image_content", where, list))
    texts = [value_of(row, name, where) for name in ("question_type", "question", "gt_answer")]
    return MmhalQuestion(str(number), texts[0], texts[1], texts[2], objects, image)
