"""CHAIR: objects in captions that are not in the picture (Rohrbach et al., 2018, arXiv:1809.02156, Eq. 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vlmattn.core.errors import SpecError
from vlmattn.core.records import find_images, listed
from vlmattn.hallucination.benchmark import Item, Score, check_answers
from vlmattn.hallucination.synonyms import SynonymTable, check_objects, coco_synonyms
from vlmattn.hallucination.words import WORD_FAMILIES, NamedObjects, find_family, named_objects
from vlmattn.hallucination.yesno import share

COCO = "cocodataset.org (val2014.zip, annotations_trainval2014.zip)"
CHAIR_PROMPTS: dict[str, str] = {
    "opera": "Please describe this image in detail.",
    "pai": "Please help me describe the image in detail.",
    "lmms_eval": "Provide a detailed description of the given image.",
    "amber": "Describe this image.",
}
"""How captions are asked for, by protocol; the wording and the length allowed move CHAIR more than most methods do."""


@dataclass(frozen=True)
class CaptionScore:
    """One caption against what is there.

    Attributes:
        named: what it names, with repetitions. hallucinated: (word, object) of each mention of a thing that is not
            there. truth: what is there.
    """

    named: NamedObjects
    hallucinated: tuple[tuple[str, str], ...]
    truth: frozenset[str]

    @property
    def counts(self) -> dict[str, float]:
        """The numbers that all metrics are sums and ratios of; all but the first two count tokens, not kinds."""
        kinds = set(self.named.nodes)
        return {
            "chair_s": float(bool(self.hallucinated)),
            "recalled": float(len(kinds & self.truth)),
            "kinds": float(len(kinds)),
            "truth": float(len(self.truth)),
            "hallucinated": float(len(self.hallucinated)),
            "objects": float(len(self.named.nodes)),
            "length": float(len(self.named.merged)),
        }


def score_caption(caption: str, truth: Iterable[str], table: SynonymTable, family: str = "lemma") -> CaptionScore:
    """What a caption names, and what of it is not there.

    >>> from vlmattn.hallucination import coco_synonyms
    >>> score_caption("A dog and a cat.", ["dog"], coco_synonyms(), "plain").hallucinated
    (('cat', 'cat'),)
    """
    named = named_objects(caption, table, family)
    there = frozenset(truth)
    pairs = zip(named.words, named.nodes, strict=True)
    return CaptionScore(named, tuple((word, node) for word, node in pairs if node not in there), there)


def chair_metrics(counts: Mapping[str, float], captions: int) -> dict[str, float]:
    """Metrics of summed counts, all in [0, 1] but ``length`` (words and punctuation marks of a caption).

    ``chair_s``: share of captions that name something not there; ``chair_i``: share of mentions, repetitions counted;
    ``recall``: share of what is there that is named; ``precision``: share of the kinds named that are there, so that
    1 - precision is not ``chair_i``. Published programs print percent, and the length in captions of 100 words. NaN
    where nothing is named, or nothing is there.
    """
    precision = share(counts["recalled"], counts["kinds"])
    recall = share(counts["recalled"], counts["truth"])
    return {
        "chair_s": share(counts["chair_s"], captions),
        "chair_i": share(counts["hallucinated"], counts["objects"]),
        "recall": recall,
        "length": share(counts["length"], captions),
        "precision": precision,
        "f1": share(2 * precision * recall, precision + recall),
    }


@dataclass(frozen=True)
class Chair:
    """Captions of pictures whose objects are known.

    Attributes:
        truth: the objects of each picture, by picture id. table: words and objects. family: a name of
            ``WORD_FAMILIES``. images: the folder with the pictures, None where only scores are wanted. files: the
            picture's file by id; the names of COCO val2014 where it is empty. prompt: a name of ``CHAIR_PROMPTS``.
            source: where the truth is from, for the settings of scores.

    Raises:
        SpecError: no pictures, an unknown family, prompt or object. FileError: pictures are missing.
    """

    truth: Mapping[str, frozenset[str]]
    table: SynonymTable = field(default_factory=coco_synonyms)
    family: str = "lemma"
    images: str | Path | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    prompt: str = "opera"
    source: str = "given"

    def __post_init__(self) -> None:
        if not self.truth:
            raise SpecError("CHAIR needs at least one picture with its objects")
        find_family(self.family)
        if self.prompt not in CHAIR_PROMPTS:
            raise SpecError(f"prompt {self.prompt!r} does not exist; prompts are {', '.join(CHAIR_PROMPTS)}")
        check_objects(self.table, (o for objects in self.truth.values() for o in objects), "the truth")
        self._places()

    @property
    def name(self) -> str:
        """``chair``."""
        return "chair"

    def items(self) -> Sequence[Item]:
        """One picture each, to be described."""
        places = self._places()
        ask = CHAIR_PROMPTS[self.prompt]
        return [
            Item(one, places[self._file(one)], ask, one, {"objects": sorted(objects)})
            for one, objects in self.truth.items()
        ]

    def readings(self) -> dict[str, Chair]:
        """The same captions by every word family, by name; the truth stays as it is."""
        return {name: replace(self, family=name) for name in WORD_FAMILIES}

    def score(self, answers: Mapping[str, str]) -> Score:
        """CHAIR_s and CHAIR_i with recall, length, precision and F1 beside them: see :func:`chair_metrics`.

        Raises:
            SpecError: captions are missing or belong to no picture. DependencyMissing: the word family needs data.
        """
        return self._score_of(self._rows(answers), answers)

    def _rows(self, answers: Mapping[str, str]) -> dict[str, CaptionScore]:
        check_answers([Item(one, (), "") for one in self.truth], answers)
        return {one: score_caption(answers[one], there, self.table, self.family) for one, there in self.truth.items()}

    def _score_of(self, rows: Mapping[str, CaptionScore], answers: Mapping[str, str]) -> Score:
        counts = {one: row.counts for one, row in rows.items()}
        sums = {name: sum(row[name] for row in counts.values()) for name in next(iter(counts.values()))}
        outcomes = {name: {one: row[name] for one, row in counts.items()} for name in sums}
        return Score(self.name, chair_metrics(sums, len(rows)), outcomes, self._settings(), self._notes(rows, answers))

    def official(self, answers: Mapping[str, str]) -> dict[str, Any]:
        """What the official programs write: every sentence with its words, and ``overall_metrics``.

        Raises:
            SpecError: as :meth:`score`.
        """
        rows = self._rows(answers)
        score = self._score_of(rows, answers)
        names = {"CHAIRs": "chair_s", "CHAIRi": "chair_i", "Recall": "recall", "Precision": "precision", "F1": "f1"}
        overall = {theirs: score.metrics[ours] for theirs, ours in names.items()}
        length = 0.01 * sum(score.outcomes["length"].values()) / len(rows)
        sentences = [_sentence(one, answers[one], row) for one, row in rows.items()]
        return {"sentences": sentences, "overall_metrics": overall | {"Len": length}}

    def _places(self) -> dict[str, tuple[Path, ...]]:
        return find_images(self.images, [self._file(one) for one in self.truth], published=COCO)

    def _file(self, one: str) -> str:
        if self.files:
            if one not in self.files:
                raise SpecError(f"no file is given for the picture {one}")
            return self.files[one]
        return f"COCO_val2014_{one.zfill(12)}.jpg"

    def _settings(self) -> dict[str, str]:
        return {
            "scorer": "chair",
            "family": self.family,
            "table": self.table.name,
            "truth": self.source,
            "prompt": self.prompt,
            "captions": str(len(self.truth)),
        }

    def _notes(self, rows: Mapping[str, CaptionScore], answers: Mapping[str, str]) -> tuple[str, ...]:
        empty = [one for one in rows if not answers[one].strip()]
        silent = [one for one, row in rows.items() if not row.named.nodes and one not in set(empty)]
        told = []
        if empty:
            told.append(f"{len(empty)} captions are empty and count as free of hallucination: {listed(empty)}")
        if silent:
            told.append(f"{len(silent)} captions name no object of the table {self.table.name}: {listed(silent)}")
        return tuple(told)


def _sentence(one: str, caption: str, row: CaptionScore) -> dict[str, Any]:
    named, wrong = row.named, set(row.hallucinated)
    pairs = list(zip(named.words, named.nodes, strict=True))
    at = [place for place, pair in zip(named.indices, pairs, strict=True) if pair in wrong]
    kinds = set(named.nodes)
    recall = len(kinds & row.truth) / len(row.truth) if row.truth else 0.0
    return {
        "image_id": int(one) if one.isdigit() else one,
        "caption": caption,
        "mscoco_hallucinated_words": [list(pair) for pair in row.hallucinated],
        "mscoco_gt_words": sorted(row.truth),
        "mscoco_generated_words": list(named.nodes),
        "hallucination_idxs": at,
        "words": list(named.merged),
        "metrics": {
            "CHAIRs": int(bool(wrong)),
            "CHAIRi": len(row.hallucinated) / len(pairs) if pairs else 0,
            "Recall": recall,
            "Len": 0,
        },
    }
