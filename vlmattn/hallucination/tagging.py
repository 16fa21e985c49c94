"""NLTK's part-of-speech tags, several times faster than NLTK gives them, and the same ones.

NLTK's tagger is a greedy averaged perceptron (Collins, "Discriminative Training Methods for Hidden Markov Models",
EMNLP 2002) over fourteen features of a token and of what stands around it. Here every feature's weights are one vector
over all tags, made the first time the feature is met, so that a decision is a sum of at most fourteen vectors. They are
added in NLTK's order, and a tie goes to the tag that is last in the alphabet, as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from vlmattn.core.optional import require


class PerceptronTags:
    """Tags by the weights of one of NLTK's perceptron taggers.

    Args:
        tagger: ``nltk.tag.perceptron.PerceptronTagger``, loaded.
    """

    def __init__(self, tagger: Any) -> None:
        self._known: dict[str, str] = dict(tagger.tagdict)
        self._weights: dict[str, dict[str, float]] = tagger.model.weights
        self._normalized = lru_cache(maxsize=1 << 16)(tagger.normalize)
        self._start, self._end = list(tagger.START), list(tagger.END)
        self._tags = sorted(tagger.model.classes, reverse=True)
        self._place = {tag: at for at, tag in enumerate(self._tags)}
        self._vectors: dict[str, np.ndarray | None] = {}

    def __call__(self, tokens: Sequence[str]) -> list[tuple[str, str]]:
        """Tokens with their tags."""
        before, before_that = self._start
        around = [*self._start, *(self._normalized(token) for token in tokens), *self._end]
        tagged = []
        for at, token in enumerate(tokens):
            tag = self._known.get(token) or self._decided(token, around[at : at + 5], before, before_that)
            tagged.append((token, tag))
            before, before_that = tag, before
        return tagged

    def _decided(self, token: str, around: Sequence[str], before: str, before_that: str) -> str:
        vectors = [v for v in map(self._vector, features(token, around, before, before_that)) if v is not None]
        if not vectors:
            return self._tags[0]
        return self._tags[int(np.add.reduce(vectors).argmax())]

    def _vector(self, feature: str) -> np.ndarray | None:
        if feature not in self._vectors:
            held = self._weights.get(feature)
            vector = None if held is None else np.zeros(len(self._tags))
            for tag, weight in (held or {}).items():
                if vector is not None and tag in self._place:
                    vector[self._place[tag]] = weight
            self._vectors[feature] = vector
        return self._vectors[feature]


def features(token: str, around: Sequence[str], before: str, before_that: str) -> tuple[str, ...]:
    """Names of a token's features, as NLTK's weights have them.

    Args:
        token: as it stands. around: it in the middle of five words, normalised. before, before_that: tags of the two
            tokens before it.
    """
    second, first, word, after, last = around
    return (
        "bias",
        f"i suffix {token[-3:]}",
        f"i pref1 {token[0] if token else ''}",
        f"i-1 tag {before}",
        f"i-2 tag {before_that}",
        f"i tag+i-2 tag {before} {before_that}",
        f"i word {word}",
        f"i-1 tag+i word {before} {word}",
        f"i-1 word {first}",
        f"i-1 suffix {first[-3:]}",
        f"i-2 word {second}",
        f"i+1 word {after}",
        f"i+1 suffix {after[-3:]}",
        f"i+2 word {last}",
    )


@lru_cache(maxsize=1)
def english_tags() -> PerceptronTags:
    """The tagger that ``nltk.pos_tag`` uses for English.

    Raises:
        DependencyMissing: NLTK is not there. LookupError: its data are not, as NLTK says it.
    """
    perceptron = require("nltk.tag.perceptron", extra="hallucination")
    return PerceptronTags(perceptron.PerceptronTagger())
