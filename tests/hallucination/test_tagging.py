"""Tags and tokens are those of NLTK, and come sooner."""

from __future__ import annotations

import random

import pytest

from vlmattn.hallucination.tagging import PerceptronTags
from vlmattn.hallucination.words import tokens_of

perceptron = pytest.importorskip("nltk.tag.perceptron")
destructive = pytest.importorskip("nltk.tokenize.destructive")

WORDS = (
    "the",
    "a",
    "dog",
    "dogs",
    "runs",
    "run",
    "red",
    "seated",
    "tied",
    "in",
    "1984",
    "well-known",
    "",
    "kite,",
    ".",
)
TAGS = ("DT", "NN", "NNS", "VBZ", "VB", "JJ", "VBN", "IN", "CD", ".")


@pytest.fixture(scope="module")
def tagger() -> object:
    # A tagger of NLTK's own making, trained on noise, so that its data are not needed and ties happen.
    rng = random.Random(0)
    made = perceptron.PerceptronTagger(load=False)
    made.train(
        [[(rng.choice(WORDS), rng.choice(TAGS)) for _ in range(rng.randint(1, 9))] for _ in range(60)], nr_iter=2
    )
    made.tagdict["in"] = "IN"
    return made


def test_tags_are_those_of_nltk(tagger: object) -> None:
    rng, ours = random.Random(1), PerceptronTags(tagger)
    seen = set()
    for _ in range(300):
        tokens = [rng.choice((*WORDS, "unseen", "x-y", "2500")) for _ in range(rng.randint(0, 12))]
        want = tagger.tag(tokens)  # type: ignore[attr-defined]
        assert ours(tokens) == want, tokens
        seen |= {tag for _, tag in want}
    assert seen == set(TAGS)


def test_ties_go_to_the_last_tag_of_the_alphabet(tagger: object) -> None:
    flat = perceptron.PerceptronTagger(load=False)
    flat.classes = flat.model.classes = {"A", "B", "C"}
    flat.model.weights = {"bias": {"A": 1.0, "B": 1.0}}
    assert PerceptronTags(flat)(["x"]) == flat.tag(["x"]) == [("x", "B")]
    flat.model.weights = {}
    assert PerceptronTags(flat)(["x"]) == flat.tag(["x"]) == [("x", "C")]


@pytest.mark.parametrize(
    "text",
    [
        "a dog, a well-known cat and 2 kites.",
        "i cannot see",
        "gonna be-gonna x.",
        "a--b",
        "1,000 dogs",
        "dogs ,cats",
        "end. ",
        "two  spaces",
        "it's",
        "etc..",
        "a, b,",
        "-x",
        "x-",
    ],
)
def test_sentences_are_cut_as_nltk_cuts_them(text: str) -> None:
    pytest.importorskip("punkt")
    from vlmattn.hallucination.words import _sentences

    treebank = destructive.NLTKWordTokenizer()
    assert tokens_of(text) == [token for one in _sentences()(text) for token in treebank.tokenize(one)]


def test_random_sentences_are_cut_as_nltk_cuts_them() -> None:
    from vlmattn.hallucination.words import _cut

    rng, treebank = random.Random(2), destructive.NLTKWordTokenizer()
    pieces = ("a", "dog", "cannot", "can", "not", "lemme", "-", ",", " ", " ", " ", ", ", ".", "'", "7", "x-y")
    for _ in range(3000):
        text = "".join(rng.choice(pieces) for _ in range(rng.randint(1, 9)))
        assert _cut(text) == treebank.tokenize(text), text
