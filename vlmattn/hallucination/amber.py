"""AMBER's captions: hallucination, coverage and cognition (Wang et al., 2023, arXiv:2311.07397, section 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmattn.core.errors import DependencyMissing, FileError, SpecError
from vlmattn.core.optional import require
from vlmattn.core.records import field, find_images, read_object, read_rows, read_text, unique
from vlmattn.hallucination.benchmark import Item, Score, check_answers
from vlmattn.hallucination.words import lemma, tagged, tokens_of

AMBER = "github.com/junyangwang0410/AMBER (data/)"
AMBER_IMAGES = "the pictures that github.com/junyangwang0410/AMBER links to"
Similarity = Callable[[str, str], float]
_NEAR = 0.8
_START = 0.001
"""What the official totals start from, so that nothing is divided by zero; a perfect single caption prints Hal 0.1."""


@dataclass(frozen=True)
class AmberImage:
    """What is on one of AMBER's pictures.

    Attributes:
        id: its number. truth: words for what is there. hallu: words for what models tend to see there.
    """

    id: str
    truth: tuple[str, ...]
    hallu: tuple[str, ...]


@dataclass(frozen=True)
class AmberCounts:
    """One caption of AMBER. Attributes: nouns: of the vocabulary. hallucinated: of them. covered, truth: words of the
    picture, named and all. imagined, hallu: words that models tend to see, named and all."""

    nouns: int
    hallucinated: int
    covered: int
    truth: int
    imagined: int
    hallu: int


def amber_nouns(text: str) -> list[str]:
    """The noun lemmas of a text, capitals kept, so that a noun with one never matches: as the official program does.

    Raises:
        DependencyMissing: NLTK or its data is not there.
    """
    return [lemma(token, "n") for token, tag in tagged(tokens_of(text)) if tag.startswith("NN")]


def exact_similarity(a: str, b: str) -> float:
    """1 for the same word, else 0: without word vectors. Its scores are not AMBER's, and say ``exact``."""
    return float(a == b)


def spacy_similarity(model: str = "en_core_web_lg") -> Similarity:
    """Cosine of spaCy's word vectors, as the official program has it (with its large English model).

    Raises:
        DependencyMissing: spaCy or the model is not installed.
    """
    spacy = require("spacy", extra="amber")
    try:
        pipeline = spacy.load(model)
    except OSError as error:
        raise DependencyMissing(f"spaCy's model {model} is needed: python -m spacy download {model}") from error
    known: dict[str, Any] = {}

    def similar(a: str, b: str) -> float:
        for word in (a, b):
            if word not in known:
                known[word] = pipeline(word)
        return float(known[a].similarity(known[b]))

    similar.__name__ = model
    return similar


AMBER_SUMS: tuple[str, ...] = ("official", "lmms_eval")
"""Ways to sum up captions: the official program's, or lmms-eval's, which adds its 0.001 once per picture."""


@dataclass(frozen=True)
class AmberGenerative:
    """AMBER's 1,004 captions.

    Attributes:
        pictures: what is on each. related: for each word, those that mean much the same. harmless: words that are never
            a hallucination. similarity: of two words, 0 to 1; more than 0.8 counts as the same. nouns: of a text.
            images: the folder with ``AMBER_1.jpg`` and so on; None where only scores are wanted. sums: ``"official"``
            or ``"lmms_eval"``, whose sums start anew for every picture and whose percents are not rounded.

    Raises:
        SpecError: unknown sums, no pictures, ids that occur twice, or a word without an entry in ``related``.
        FileError: pictures are missing.
    """

    pictures: tuple[AmberImage, ...]
    related: Mapping[str, Sequence[str]]
    harmless: frozenset[str]
    similarity: Similarity = exact_similarity
    nouns: Callable[[str], Sequence[str]] = amber_nouns
    images: str | Path | None = None
    sums: str = "official"

    def __post_init__(self) -> None:
        if self.sums not in AMBER_SUMS:
            raise SpecError(f"sums {self.sums!r} do not exist; there are {', '.join(AMBER_SUMS)}")
        if not self.pictures:
            raise SpecError("AMBER needs at least one picture")
        unique((p.id for p in self.pictures), "AMBER's pictures")
        for picture in self.pictures:
            for word in (*picture.truth, *picture.hallu):
                if word not in self.related:
                    raise SpecError(f"the word {word!r} of picture {picture.id} has no related words (relation.json)")
        self._places()

    @property
    def name(self) -> str:
        """``amber-generative``."""
        return "amber-generative"

    def items(self) -> Sequence[Item]:
        """One picture each, to be described."""
        places = self._places()
        return [
            Item(p.id, places[_file(p.id)], "Describe this image.", p.id, {"truth": p.truth, "hallu": p.hallu})
            for p in self.pictures
        ]

    def score(self, answers: Mapping[str, str]) -> Score:
        """``chair``, ``cover``, ``hal`` and ``cog`` in percent with one decimal, as the official program prints them.

        Raises:
            SpecError: captions are missing or belong to no picture. DependencyMissing: nouns cannot be found.
        """
        check_answers([Item(p.id, (), "") for p in self.pictures], answers)
        vocabulary = {*self.related, *(word for words in self.related.values() for word in words)}
        rows = {}
        for picture in self.pictures:
            kept = [noun for noun in self.nouns(answers[picture.id]) if noun in vocabulary]
            rows[picture.id] = count_nouns(kept, picture, self.related, self.harmless, self.similarity)
        settings = {"scorer": f"amber, {self.sums}", "similarity": self._told(), "nouns": self.nouns.__name__}
        return Score(
            self.name, _generative_metrics(list(rows.values()), self.sums), _generative_outcomes(rows), settings
        )

    def readings(self) -> dict[str, AmberGenerative]:
        """The same captions with every way to sum up, by name."""
        return {sums: replace(self, sums=sums) for sums in AMBER_SUMS}

    def _told(self) -> str:
        return "exact" if self.similarity is exact_similarity else getattr(self.similarity, "__name__", "given")

    def _places(self) -> dict[str, tuple[Path, ...]]:
        return find_images(self.images, [_file(p.id) for p in self.pictures], published=AMBER_IMAGES)


def count_nouns(
    nouns: Sequence[str],
    picture: AmberImage,
    related: Mapping[str, Sequence[str]],
    harmless: frozenset[str],
    similarity: Similarity,
) -> AmberCounts:
    """What the nouns of one caption name.

    A noun may name a thing that models tend to see and a thing that is there at once: both are counted.
    """
    safe, imagined = _Words(picture.truth, related), _Words(picture.hallu, related)
    wrong = 0
    for noun in nouns:
        if noun in harmless or safe.mark(noun):
            continue
        imagined.mark(noun)
        imagined.mark_near(noun, similarity)
        wrong += not safe.mark_near(noun, similarity)
    return AmberCounts(
        len(nouns), wrong, len(safe.marked), len(picture.truth), len(imagined.marked), len(picture.hallu)
    )


class _Words:
    """Words of a picture with those related to them before them, each with its owner's place."""

    def __init__(self, words: Sequence[str], related: Mapping[str, Sequence[str]]) -> None:
        owned = [(other, at) for at, word in enumerate(words) for other in related[word]]
        self.owned = owned + [(word, at) for at, word in enumerate(words)]
        self.marked: set[int] = set()

    def mark(self, noun: str) -> bool:
        return self._mark(lambda word: word == noun)

    def mark_near(self, noun: str, similarity: Similarity) -> bool:
        return self._mark(lambda word: similarity(noun, word) > _NEAR)

    def _mark(self, same: Callable[[str], bool]) -> bool:
        owner = next((at for word, at in self.owned if same(word)), None)
        if owner is not None:
            self.marked.add(owner)
        return owner is not None


def load_amber(folder: str | Path, **options: Any) -> AmberGenerative:
    """AMBER's captions from its ``data`` folder: ``annotations.json``, ``relation.json``, ``safe_words.txt``.

    Args:
        folder: with the files. options: ``similarity``, ``nouns`` and ``images`` of :class:`AmberGenerative`.

    Raises:
        FileError: a file is missing, cut short, or of another schema; says where it is published.
    """
    rows = [row for row in amber_annotations(folder) if row["type"] == "generative"]
    pictures = tuple(AmberImage(str(r["id"]), _words(r, "truth"), _words(r, "hallu")) for r in rows)
    related = read_object(Path(folder) / "relation.json", published=AMBER)
    harmless = read_text(Path(folder) / "safe_words.txt", published=AMBER).split()
    return AmberGenerative(pictures, related, frozenset(harmless), **options)


def amber_annotations(folder: str | Path) -> list[dict[str, Any]]:
    """The rows of ``annotations.json``, checked for their ids and types.

    Raises:
        FileError: missing, cut short, or of another schema.
    """
    plain, packed = Path(folder) / "annotations.json", Path(folder) / "annotations.json.gz"
    rows = read_rows(packed if packed.exists() and not plain.exists() else plain, published=AMBER)
    for number, row in enumerate(rows, 1):
        field(row, "id", f"annotation {number}", int)
        field(row, "type", f"annotation {number}")
    unique((str(row["id"]) for row in rows), "AMBER's annotations")
    return rows


def _file(one: str) -> str:
    return f"AMBER_{one}.jpg"


def _words(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    words = tuple(field(row, name, f"annotation {row['id']}", list))
    if not words:
        raise FileError(f"annotation {row['id']} has no words for {name!r}")
    return words


def _generative_metrics(rows: Sequence[AmberCounts], sums: str) -> dict[str, float]:
    one_by_one = sums == "lmms_eval"

    def percent(part: float, whole: float) -> float:
        # In the official order of operations, on which the last digit depends.
        return part / ((_START * len(rows) if one_by_one else _START) + whole) * 100

    clean = sum(row.hallucinated == 0 for row in rows)
    found = {
        "chair": percent(sum(r.hallucinated for r in rows), sum(r.nouns for r in rows)),
        "cover": percent(sum(r.covered for r in rows), sum(r.truth for r in rows)),
        "hal": 100 - percent(clean, len(rows)),
        "cog": percent(sum(r.imagined for r in rows), sum(r.hallu for r in rows)),
    }
    return found if one_by_one else {name: round(value, 1) for name, value in found.items()}


def _generative_outcomes(rows: Mapping[str, AmberCounts]) -> dict[str, dict[str, float]]:
    names = ("nouns", "hallucinated", "covered", "truth", "imagined", "hallu")
    outcomes = {name: {one: float(getattr(row, name)) for one, row in rows.items()} for name in names}
    return outcomes | {"hal": {one: float(row.hallucinated > 0) for one, row in rows.items()}}
