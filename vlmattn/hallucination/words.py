"""The objects that a caption names: words, brought to the singular, joined and looked up in a synonym table.

Two families of published scores differ in how words are brought to the singular (``pattern`` and ``lemma``); a third
needs no data at all. Nothing is downloaded: what is missing is an error that says how to get it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from vlmattn.core.errors import DependencyMissing, SpecError
from vlmattn.core.optional import require
from vlmattn.hallucination.singular import pattern_singular
from vlmattn.hallucination.synonyms import SynonymTable
from vlmattn.hallucination.tagging import english_tags

_PLAIN = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*|'s|\S")
_WORD = "[a-z0-9]+(?:-[a-z0-9]+)*"
_SIMPLE = re.compile(rf"(?:{_WORD},? )*{_WORD}\.?")
"""A sentence whose words NLTK cuts at spaces, before commas and before the last full stop alone."""
_CONTRACTED = re.compile("cannot|gimme|gonna|gotta|lemme|wanna")
"""What NLTK cuts inside of."""
_POS = {"J": "a", "V": "v", "N": "n", "R": "r"}


@dataclass(frozen=True)
class NamedObjects:
    """What one caption names, with repetitions.

    Attributes:
        words: the words found, as they were after normalisation. nodes: the object of each. indices: where the official
            programs say each word stands; after a dropped ``seat`` they are too small by their own fault. places: where
            it really stands in ``merged``. merged: all words of the caption, pairs joined, punctuation included.
    """

    words: tuple[str, ...]
    nodes: tuple[str, ...]
    indices: tuple[int, ...]
    places: tuple[int, ...]
    merged: tuple[str, ...]


@dataclass(frozen=True)
class WordFamily:
    """How a caption becomes singular words. ``words`` takes the caption in lower case."""

    name: str
    rule: str
    source: str
    words: Callable[[str], list[str]]


def named_objects(caption: str, table: SynonymTable, family: str = "lemma") -> NamedObjects:
    """The objects that a caption names, by a word family of :data:`WORD_FAMILIES`.

    >>> from vlmattn.hallucination import coco_synonyms
    >>> named_objects("Two dogs by a stop light.", coco_synonyms(), "plain").nodes
    ('dog', 'traffic light')

    Raises:
        SpecError: no such family. DependencyMissing: a package or NLTK data that the family needs is not there.
    """
    return join_and_find(find_family(family).words(caption.lower()), table)


def find_family(name: str) -> WordFamily:
    """A word family by name.

    Raises:
        SpecError: there is none; lists those there are.
    """
    if name not in WORD_FAMILIES:
        raise SpecError(f"word family {name!r} does not exist; families are {', '.join(WORD_FAMILIES)}")
    return WORD_FAMILIES[name]


def join_and_find(words: Sequence[str], table: SynonymTable) -> NamedObjects:
    """What normalised words name: pairs joined from left to right, then looked up."""
    merged, starts = _joined(words, table)
    kept = list(enumerate(merged))
    if table.seat_of_toilet and "toilet" in merged and "seat" in merged:
        kept = [(place, word) for place, word in kept if word != "seat"]
    found = [(at, place, word) for at, (place, word) in enumerate(kept) if word in table.nodes]
    return NamedObjects(
        tuple(word for _, _, word in found),
        tuple(table.nodes[word] for _, _, word in found),
        tuple(starts[at] for at, _, _ in found),
        tuple(place for _, place, _ in found),
        tuple(merged),
    )


def _joined(words: Sequence[str], table: SynonymTable) -> tuple[list[str], list[int]]:
    merged: list[str] = []
    starts: list[int] = []
    at = 0
    while at < len(words):
        pair = table.pairs.get(" ".join(words[at : at + 2]))
        starts.append(at)
        merged.append(words[at] if pair is None else pair)
        at += 1 if pair is None else 2
    return merged, starts


def tokens_of(text: str) -> list[str]:
    """NLTK's words of a text: sentences by Punkt, then Treebank tokens.

    Raises:
        DependencyMissing: NLTK, or its Punkt data for English, is not there.
    """
    return [token for sentence in _sentences()(text) for token in _cut(sentence)]


def _cut(sentence: str) -> list[str]:
    if not _SIMPLE.fullmatch(sentence) or _CONTRACTED.search(sentence):
        return _treebank()(sentence)
    if sentence[-1] == ".":
        return [*sentence[:-1].replace(",", " ,").split(" "), "."]
    return sentence.replace(",", " ,").split(" ")


def tagged(tokens: Sequence[str]) -> list[tuple[str, str]]:
    """Tokens with their Penn Treebank tags, by NLTK's tagger.

    Raises:
        DependencyMissing: NLTK, or the data of its tagger, is not there.
    """
    return _with_data(lambda: english_tags()(tokens), "averaged_perceptron_tagger_eng")


@lru_cache(maxsize=1 << 16)
def lemma(word: str, pos: str) -> str:
    """WordNet's shortest base form of a word (``a``, ``v``, ``n`` or ``r``), or the word itself.

    Raises:
        DependencyMissing: NLTK, or WordNet in its data, is not there.
    """
    stem = require("nltk.stem", extra="hallucination")
    return _with_data(lambda: stem.WordNetLemmatizer().lemmatize(word, pos), "wordnet")


def lemmas_of(tokens: Sequence[str], tags: Sequence[str]) -> list[str]:
    """Base forms of tagged tokens; any tag but those of adjectives, verbs and adverbs counts as a noun's."""
    return [lemma(token, _POS.get(tag[:1], "n")) for token, tag in zip(tokens, tags, strict=True)]


def _pattern(text: str) -> list[str]:
    return [pattern_singular(t) for t in tokens_of(text)]


def _plain(text: str) -> list[str]:
    return [pattern_singular(t) for t in _PLAIN.findall(text)]


def _lemma(text: str) -> list[str]:
    pairs = tagged(tokens_of(text))
    return lemmas_of([token for token, _ in pairs], [tag for _, tag in pairs])


@lru_cache(maxsize=1)
def _treebank() -> Callable[[str], list[str]]:
    destructive = require("nltk.tokenize.destructive", extra="hallucination")
    return destructive.NLTKWordTokenizer().tokenize


@lru_cache(maxsize=1)
def _sentences() -> Callable[[str], list[str]]:
    # NLTK's own loader looks through the user's data; a package that carries the same model serves where there is none.
    tokenize = require("nltk.tokenize", extra="hallucination")
    try:
        tokenize.sent_tokenize("")
    except LookupError:
        return _packaged_punkt()
    return tokenize.sent_tokenize


@lru_cache(maxsize=1)
def _packaged_punkt() -> Callable[[str], list[str]]:
    try:
        return require("punkt", extra="hallucination").sent_tokenize
    except (DependencyMissing, AttributeError) as error:
        raise _no_data("punkt_tab", error) from error


def _with_data(run: Callable[[], Any], name: str) -> Any:
    try:
        return run()
    except (LookupError, OSError) as error:
        raise _no_data(name, error) from error


def _no_data(name: str, error: Exception) -> DependencyMissing:
    first = next((line.strip() for line in str(error).splitlines() if line.strip(" *")), type(error).__name__)
    return DependencyMissing(
        f"this needs {name} in your NLTK data, and nothing is downloaded while scoring ({first[:120]}): "
        f"python -m nltk.downloader {name}, or the word family 'plain', which needs no data"
    )


WORD_FAMILIES: dict[str, WordFamily] = {
    f.name: f
    for f in (
        WordFamily("lemma", "NLTK tokens, tagged, to WordNet lemmas", "OPERA, PAI, lmms-eval", _lemma),
        WordFamily("pattern", "NLTK tokens, singular by pattern's rules", "CHAIR (Rohrbach et al., 2018)", _pattern),
        WordFamily("plain", "tokens by a regular expression, singular by pattern's rules; no data", "vlmattn", _plain),
    )
}
"""Every word family by name."""
