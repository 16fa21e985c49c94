"""Words, tokens, rows and columns of a trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.traces import ANSWER, QUESTION, layout, trace
from vlmattn.capture import CaptureSpec
from vlmattn.core.errors import MapError, SpecError, WordNotFound


def test_texts() -> None:
    one = trace()
    assert one.question == QUESTION
    assert one.answer == ANSWER
    assert one.answer_tokens == (16, 17, 18, 19)
    assert "2 layers x 2 heads x 12 rows x 6 image tokens" in repr(one)


def test_words_are_numbered_among_equals() -> None:
    words = trace().words("answer")
    assert [w.text for w in words] == ["red", ",", "not", "Red"]
    assert [(w.occurrence, w.of) for w in words] == [(1, 2), (1, 1), (1, 1), (2, 2)]
    assert [w.tokens for w in words] == [(16,), (17,), (18,), (19,)]
    assert words[3].label == "Red (answer, 2 of 2)"


@pytest.mark.parametrize(
    ("what", "options", "tokens", "label"),
    [
        ("red", {}, (16,), "red (answer, 1 of 2)"),
        ("RED", {"occurrence": 2}, (19,), "Red (answer, 2 of 2)"),
        ("red", {"part": "question"}, (11,), "red (question, 1 of 2)"),
        ("red", {"part": "question", "occurrence": 2}, (13,), "red (question, 2 of 2)"),
        ("cup", {}, (12,), "cup"),
        ("red cup", {}, (11, 12), "red cup"),
        ("not  red", {}, (18, 19), "not Red"),
        (None, {}, (16, 17, 18, 19), ANSWER),
        (None, {"part": "question"}, (9, 10, 11, 12, 13, 14), QUESTION),
        (0, {}, (16,), "red"),
        (-1, {}, (19,), "Red"),
    ],
)
def test_find(what: Any, options: dict[str, Any], tokens: tuple[int, ...], label: str) -> None:
    found = trace().find(what, **options)
    assert found.tokens == tokens
    assert found.label == label


@pytest.mark.parametrize(
    ("what", "options", "error", "message"),
    [
        ("mug", {}, WordNotFound, "'mug' does not occur in the answer or the question.*'cup'"),
        ("cups", {}, WordNotFound, "Did you mean 'cup'"),
        ("re", {}, WordNotFound, "Words there"),
        ("cup", {"part": "answer"}, WordNotFound, "in the answer"),
        ("red", {"occurrence": 3}, SpecError, "occurs 2 times"),
        ("", {}, SpecError, "is empty"),
        (4, {}, SpecError, "the answer has 4 tokens"),
        (-5, {}, SpecError, "the answer has 4 tokens"),
    ],
)
def test_find_refuses(what: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        trace().find(what, **options)


def test_answer_tokens_take_the_row_before_them_and_prompt_tokens_their_own() -> None:
    one = trace()
    assert one.positions[one.rows_of((16, 19))].tolist() == [15, 18]
    assert one.positions[one.rows_of((12,))].tolist() == [12]
    assert one.positions[one.rows_of((16, 12), "query")].tolist() == [16, 12]
    assert one.positions[one.rows_of((16, 12), "predicting")].tolist() == [15, 11]


def test_rows_that_were_not_kept_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(MapError, match=r"positions \[3\] were not kept .*rows=\('question', 'answer'\)"):
        trace().rows_of((3,), "query")


def test_layers_and_pictures_that_are_not_there() -> None:
    with pytest.raises(SpecError, match=r"layers \[7\] were not kept; kept are \[0, 1\]"):
        trace().layer_slots([7])
    with pytest.raises(SpecError, match="picture 1 does not exist"):
        trace().image_columns(1)
    with pytest.raises(SpecError, match="segment 'answers'"):
        trace().mass("answers")


def test_shapes_are_checked() -> None:
    with pytest.raises(MapError, match=r"attn_lhqk must have shape \(L, H, Q, K\) = \(2, 2, 12, 6\)"):
        trace(attn_lhqk=np.zeros((2, 2, 11, 6)))
    with pytest.raises(MapError, match="mass_lhqs"):
        trace(mass_lhqs=np.zeros((2, 2, 12, 3), dtype=np.float32))


@pytest.mark.parametrize(
    ("rule", "convention", "positions"),
    [
        ("word:red", None, [11, 13]),
        ("word:red cup", None, [11, 12]),
        ("word:red", "predicting", [10, 12]),
        (("word:cup", "last"), None, [12, 15]),
    ],
)
def test_rows_of_a_chosen_word(rule: Any, convention: Any, positions: list[int]) -> None:
    assert CaptureSpec(rows=rule, convention=convention).prompt_positions(layout()).tolist() == positions


def test_rows_of_a_word_that_is_not_there() -> None:
    with pytest.raises(WordNotFound, match="'mug' does not occur in the question"):
        CaptureSpec(rows="word:mug").prompt_positions(layout())
    with pytest.raises(SpecError, match="word:"):
        CaptureSpec(rows="word:")


def test_heads_are_made_one_over_those_that_were_kept() -> None:
    full = trace()
    values, masses = full.attn_lhqk.copy(), full.mass_lhqs.copy()
    values[0, 1], masses[0, 1] = np.nan, np.nan
    uneven = trace(heads=((1,), (0, 1)), attn_lhqk=values, mass_lhqs=masses)
    for how, by_hand in (("mean", np.mean), ("max", np.max)):
        for array in (values, masses):
            want = np.stack([array[0, 0], by_hand(array[1], axis=0)])
            assert np.array_equal(uneven.over_heads(array, how=how), want)  # type: ignore[arg-type]
            assert np.array_equal(uneven.over_heads(array[1:], [1], how=how), want[1:])  # type: ignore[arg-type]
    assert np.array_equal(full.over_heads(full.attn_lhqk), full.attn_lhqk.mean(1))
    assert np.array_equal(uneven.over_heads(values[:, :1]), values[:, 0])
    with pytest.raises(MapError, match=r"\(L, H, …\) with L = 2, got"):
        full.over_heads(values[:1])


@pytest.mark.parametrize("heads", [((0, 1),), ((0, 1), ()), ((0, 1), (0, 1, 2))])
def test_heads_must_be_named_for_every_layer(heads: Any) -> None:
    with pytest.raises(MapError, match=r"heads must name 1 to H = 2 heads for each of L = 2 layers"):
        trace(heads=heads)


def test_later_columns_are_not_out_of_window() -> None:
    seen = np.ones((2, 12, 6), dtype=bool)
    seen[0, 0, [0, 5]] = False  # row at position 8, columns at 2 and 8
    seen[1, 0, 5] = False
    one = trace(visible_lqk=seen, positions=np.array([7, *range(9, 20)]))
    assert np.argwhere(one.out_of_window_lqk).tolist() == [[0, 0, 0]]
    assert not trace().out_of_window_lqk.any()
