"""Words as readers see them, and the same count whether they are listed or looked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vlmattn.core.clusters import clusters, folded, word_spans
from vlmattn.core.errors import WordNotFound
from vlmattn.core.layout import TokenKind, TokenLayout
from vlmattn.core.words import find, part_text, words

FAMILY, FLAGS, SKIN, KEYCAP = "👩\u200d👩\u200d👧", "🇫🇷🇩🇪", "👍🏽", "1\ufe0f\u20e3"
WALES = "\U0001f3f4\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f"


def layout(text: str, placeholders: tuple[tuple[int, int], ...] = (), untold: tuple[int, ...] = ()) -> TokenLayout:
    """A question with one token per character; none for characters of placeholders and those ``untold``."""
    hidden = {i for a, b in placeholders for i in range(a, b)} | set(untold)
    spans = np.array([(i, i + 1) for i in range(len(text)) if i not in hidden], dtype=np.int32).reshape(-1, 2)
    n = len(spans)
    none = np.full(n, -1, dtype=np.int32)
    kinds = np.full(n, TokenKind.QUESTION, dtype=np.int8)
    ids = np.arange(n, dtype=np.int64)
    return TokenLayout(
        text, ids, kinds, none, none, none, none, spans, (0, len(text)), n, (), placeholders=placeholders
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's a well-known cup.", ["It's", "a", "well-known", "cup", "."]),
        ("rock 'n' roll -- yes-", ["rock", "'", "n", "'", "roll", "-", "-", "yes", "-"]),
        ("snake_case 3.5", ["snake_case", "3", ".", "5"]),
        ("हिन्दी में क्या है", ["हिन्दी", "में", "क्या", "है"]),
        ("un e\u0301tat", ["un", "e\u0301tat"]),
        (f"the {FAMILY} family", ["the", FAMILY, "family"]),
        (f"{FLAGS}!", ["🇫🇷", "🇩🇪", "!"]),
        (f"{SKIN}{KEYCAP} {WALES}", [SKIN, KEYCAP, WALES]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("图片里的猫", ["图片里的猫"]),
        ("红色cup杯 3个", ["红色", "cup", "杯", "3", "个"]),
        ("", []),
        (" \n\t", []),
        ("👩\u200dab", ["👩\u200d", "ab"]),
    ],
)
def test_words_are_what_readers_take_for_words(text: str, expected: list[str]) -> None:
    assert [text[a:b] for a, b in word_spans(text)] == expected
    assert [w.text for w in words(layout(text), "question")] == expected


@pytest.mark.parametrize(
    ("text", "wanted", "places"),
    [
        ("Что на который кот?", "кот", [15]),
        ("un état démocratétat état", "état", [3, 21]),
        ("cupboard and cup", "cup", [13]),
        ("Is this the cup's cup or the cup?", "cup", [18, 29]),
        ("only the cup's", "cup", [9]),  # it does not stand alone anywhere
        ("the cup's or the cup", "the cup", [13]),
        ("STRASSE Straße straße", "strasse", [0, 8, 15]),
        ("e\u0301tat état", "ÉTAT", [0, 6]),
        ("图片里的猫是什么颜色的猫", "猫", [4, 11]),
        ("红色cup杯", "cup", [2]),
        ("컵은 어디에", "컵", [0]),
        ("แมวบนโต๊ะ", "โต๊ะ", [5]),
        ("3.5 cm in the U.S.A.", "U.S.A.", [14]),
        ("red,  red cup", "red cup", [6]),
        ("a a a", "a a", [0]),
        ("ba a a", "a a", [3]),
        (f"{FAMILY} 👩", "👩", [6]),
        ("हिन्दी हि", "हि", [7]),
        ("İstanbul", "i\u0307stanbul", [0]),
    ],
)
def test_where_a_word_is_found(text: str, wanted: str, places: list[int]) -> None:
    one = layout(text)
    found = [find(one, wanted, part="question", occurrence=n + 1) for n in range(len(places))]
    assert [f.char_span[0] for f in found] == places
    assert {f.of for f in found} == {len(places)}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("который", "кот"),
        ("démocratétat", "état"),
        (FAMILY, "👩"),
        ("हिन्दी", "ह"),
        ("e\u0301tat", "etat"),
        ("Straße", "Stras"),
        ("see cup<image>what is it", "<image>"),
        ("see cup<image>what is it", "image"),
        ("see cup<image>what is it", "cup what"),
    ],
)
def test_what_is_not_a_word_is_not_found(text: str, wanted: str) -> None:
    at = text.find("<image>")
    with pytest.raises(WordNotFound):
        find(layout(text, ((at, at + 7),) if at >= 0 else ()), wanted, part="question")


@pytest.mark.parametrize(
    ("text", "told", "listed"),
    [
        ("Look at this cup<image>\nwhat is it?", "Look at this cup\nwhat is it?", "Look at this cup what is it ?"),
        ("this<image>that", "this that", "this that"),
        ("<image>that<image>", "that", "that"),
    ],
)
def test_placeholders_are_nobodys_words(text: str, told: str, listed: str) -> None:
    places = tuple((i, i + 7) for i in range(len(text)) if text.startswith("<image>", i))
    one = layout(text, places)
    assert part_text(one, "question") == told
    assert [w.text for w in words(one, "question")] == listed.split()


def test_characters_without_a_token_are_no_word() -> None:
    assert [w.text for w in words(layout("a # b", untold=(2,)), "question")] == ["a", "b"]


ALPHABET = "aAbß'’-_ .3 éE\u0301猫犬カกा\u093f\u094dह👩\u200d🏽🇫🇷\u200cİiσςΣﬁ\n"


@settings(max_examples=400, deadline=None)
@given(st.text(ALPHABET, max_size=24))
@example("猫猫 猫猫猫")
@example("ß ss SS s")
def test_every_listed_word_is_found_under_its_own_number(text: str) -> None:
    one = layout(text)
    for word in words(one, "question"):
        assert 1 <= word.occurrence <= word.of
        again = find(one, word.text, part="question", occurrence=word.occurrence)
        assert (again.char_span, again.of) == (word.char_span, word.of)


@settings(max_examples=200, deadline=None)
@given(st.text(ALPHABET, max_size=24))
def test_clusters_and_words_lie_side_by_side(text: str) -> None:
    units = clusters(text)
    assert "".join(text[a:b] for a, b in units) == text
    edges = {a for a, _ in units} | {len(text)}
    for start, end in word_spans(text):
        assert start in edges
        assert end in edges
    one: Any = folded(text)
    assert len(one.first) == len(one.last) == len(one.text)
