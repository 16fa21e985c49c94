"""Which words name which object: synonym tables, the package's own and those of other projects from the user's copy.

A table is what CHAIR knows of language. Two tables give two scores, so every score says which one made it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.records import listed, read_text
from vlmattn.hallucination.coco_words import COCO_WORDS

CHAIR_PUBLISHED = "github.com/LisaAnne/Hallucination (data/synonyms.txt)"
_CHAIR_MD5 = "fdf03d16beb2507696d1b881c958904d"
_YOUNG = ("baby", "adult")
_ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub")
_CHAIR_PAIRS = (
    "motor bike", "motor cycle", "air plane", "traffic light", "street light", "traffic signal", "stop light",
    "fire hydrant", "stop sign", "parking meter", "suit case", "sports ball", "baseball bat", "baseball glove",
    "tennis racket", "wine glass", "hot dog", "cell phone", "mobile phone", "teddy bear", "hair drier", "potted plant",
    "bow tie", "laptop computer", "stove top oven", "home plate", "train track",
)  # fmt: skip
_SUPPRESSED = ("home plate", "train track")


@dataclass(frozen=True)
class SynonymTable:
    """Words and the objects they name.

    Attributes:
        name: what scores call it. nodes: object by word, in lower case where it is to be found; both may be of two
            words. pairs: what two neighbouring words are read as; a pair that is no word of ``nodes`` hides its parts.
            seat_of_toilet: whether, in a caption with the word toilet, every seat is taken for the toilet's.

    Raises:
        SpecError: no words, or an empty name.
    """

    name: str
    nodes: Mapping[str, str]
    pairs: Mapping[str, str]
    seat_of_toilet: bool = True

    def __post_init__(self) -> None:
        if not self.name or not self.nodes:
            raise SpecError("a synonym table needs a name and at least one word")
        object.__setattr__(self, "nodes", MappingProxyType(dict(self.nodes)))
        object.__setattr__(self, "pairs", MappingProxyType(dict(self.pairs)))

    @property
    def objects(self) -> tuple[str, ...]:
        """The objects, each once, in order."""
        return tuple(dict.fromkeys(self.nodes.values()))

    @property
    def never_found(self) -> tuple[str, ...]:
        """Words of the table that no caption can match: with capitals, stray spaces, or parts never joined."""
        joined = {word for pair, word in self.pairs.items() if pair.count(" ") == 1}
        return tuple(w for w in self.nodes if w != w.lower() or w != w.strip() or (" " in w and w not in joined))

    def node(self, word: str) -> str:
        """The object that a word names.

        Raises:
            SpecError: the table lacks the word.
        """
        if word not in self.nodes:
            raise SpecError(f"the synonym table {self.name} has no word {word!r}")
        return self.nodes[word]


def read_chair_synonyms(path: str | Path) -> SynonymTable:
    """The table of a user's copy of CHAIR's ``synonyms.txt``, with every quirk that its scores depend on.

    Its name is ``chair`` where the file is the published one, byte for byte, else ``chair-`` with a part of its hash.
    Words with a leading space, a capital or three parts are kept and never match (:attr:`SynonymTable.never_found`).

    Raises:
        FileError: missing, or without words.
    """
    text = read_text(path, published=CHAIR_PUBLISHED)
    digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    nodes: dict[str, str] = {}
    for line in text.strip().split("\n"):
        words = line.strip().split(", ")
        nodes |= dict.fromkeys(words, words[0])
    if len(nodes) < 2:
        raise FileError(f"{path} holds no synonyms: one object a line was expected, its words after commas")
    name = "chair" if digest == _CHAIR_MD5 else f"chair-{digest[:8]}"
    return SynonymTable(name, nodes, _chair_pairs())


@lru_cache(maxsize=1)
def coco_synonyms() -> SynonymTable:
    """The package's own table of the 80 COCO categories: ``vlmattn-coco``.

    It is not CHAIR's table, and its scores are not comparable with published ones.

    >>> coco_synonyms().node("bagel"), len(coco_synonyms().objects)
    ('donut', 80)
    """
    table = open_synonyms("vlmattn-coco", COCO_WORDS)
    return SynonymTable(table.name, table.nodes, dict(table.pairs) | _chair_modifiers())


def open_synonyms(name: str, words: Mapping[str, Iterable[str]]) -> SynonymTable:
    """A table of any vocabulary: for each object its words, of one or two parts; the object names itself.

    >>> open_synonyms("fruit", {"apple": ["granny smith"]}).node("granny smith")
    'apple'

    Raises:
        SpecError: a word of more than two parts or with capitals, or one that names two objects.
    """
    nodes: dict[str, str] = {}
    for node, others in words.items():
        for word in (node, *others):
            if word != " ".join(word.lower().split()) or not word or word.count(" ") > 1:
                raise SpecError(f"{word!r} of {node!r} must be one or two words in lower case")
            if nodes.setdefault(word, node) != node:
                raise SpecError(f"{word!r} names both {nodes[word]!r} and {node!r}")
    return SynonymTable(name, nodes, {w: w for w in nodes if " " in w} | {w: w for w in _SUPPRESSED})


def check_objects(table: SynonymTable, objects: Iterable[str], what: str) -> None:
    """Refuse objects that a table does not know.

    Raises:
        SpecError: says which.
    """
    known = set(table.objects)
    strange: Sequence[str] = sorted({o for o in objects if o not in known})
    if strange:
        raise SpecError(f"{what} names objects that are not in the table {table.name}: {listed(strange)}")


def _chair_pairs() -> dict[str, str]:
    return {pair: pair for pair in _CHAIR_PAIRS} | _chair_modifiers() | {"wine glas": "wine glass"}


def _chair_modifiers() -> dict[str, str]:
    young = {f"{age} {animal}": animal for age in _YOUNG for animal in _ANIMALS}
    return young | {
        "passenger jet": "jet",
        "passenger train": "train",
        "bow tie": "tie",
        "toilet seat": "toilet",
    }
