"""The search without a model: where it goes, what it costs, when it stops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vlmattn.core.errors import SpecError
from vlmattn.grid import PixelMap
from vlmattn.refine import SEARCHES, SearchRule, Seen, search

WH = (320, 240)
TARGET = (290.0, 30.0)


def finder(sure_at: int, cue: bool = True) -> Any:
    """Sure once a part of at most ``sure_at`` pixels on its longer side holds the target."""
    seen = []

    def look(box: tuple[int, int, int, int]) -> Seen:
        seen.append(box)
        x0, y0, x1, y1 = box
        inside = x0 <= TARGET[0] < x1 and y0 <= TARGET[1] < y1
        size = max(x1 - x0, y1 - y0)
        confidence = (0.99 if size <= sure_at else 0.5 + 0.3 * (1 - size / 320)) if inside else 0.2
        values = np.full((y1 - y0, x1 - x0), 0.001, dtype=np.float32)
        if inside:
            values[int(TARGET[1]) - y0, int(TARGET[0]) - x0] = 100.0
        return Seen(confidence, PixelMap(values, np.ones_like(values, bool)) if cue else None)

    look.seen = seen  # type: ignore[attr-defined]
    return look


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_finds_the_small_thing(name: str) -> None:
    rule = SEARCHES[name].but(most_looks=40, most_depth=5, least_share=0.05, least_px=10)
    look = finder(100)
    path = search(WH, look, rule)
    assert path.stopped == "sure"
    x0, y0, x1, y1 = path.best.box_xyxy
    assert x0 <= TARGET[0] < x1
    assert y0 <= TARGET[1] < y1
    assert [v.box_xyxy for v in path.visits] == look.seen
    assert path.visits[0].box_xyxy == (0, 0, *WH)


def test_a_cue_saves_looks() -> None:
    rule = SEARCHES["vstar"].but(most_looks=60, most_depth=5, least_share=0.05)
    assert search(WH, finder(100), rule).looks < search(WH, finder(100, cue=False), rule).looks


def test_children_that_a_confidence_search_opens_are_all_looked_at_first() -> None:
    path = search(WH, finder(0), SEARCHES["zoomeye"].but(most_looks=8))
    assert [v.depth for v in path.visits] == [0, 1, 1, 1, 1, 2, 2, 2, 2]
    opened = max(path.visits[1:5], key=lambda v: v.seen.confidence).box_xyxy
    for visit in path.visits[5:]:
        assert opened[0] <= visit.box_xyxy[0]
        assert visit.box_xyxy[2] <= opened[2]


def test_it_stops_when_sure_when_out_of_looks_and_when_nothing_is_left() -> None:
    assert search(WH, finder(400), SEARCHES["vstar"]).looks == 0
    assert search(WH, finder(400), SEARCHES["vstar"]).stopped == "sure"
    path = search(WH, finder(0), SEARCHES["vstar"].but(most_looks=3))
    assert (path.looks, path.stopped) == (3, "looks")
    small = search((30, 20), finder(0), SEARCHES["vstar"])
    assert (small.looks, small.stopped) == (0, "done")
    assert search(WH, finder(0, cue=False), SEARCHES["zoom"]).stopped == "done"


def test_parts_lie_in_their_parents_and_cover_them() -> None:
    rule = SEARCHES["vstar"].but(most_looks=4, most_depth=1, overlap=0.0)
    path = search((320, 100), finder(0), rule)
    assert [v.box_xyxy for v in path.visits[1:]] == [(160, 0, 320, 100), (0, 0, 160, 100)]
    covered = np.zeros((240, 320), dtype=int)
    for visit in search(WH, finder(0), rule).visits[1:]:
        x0, y0, x1, y1 = visit.box_xyxy
        covered[y0:y1, x0:x1] += 1
    assert (covered == 1).all()


def test_no_part_is_smaller_than_half_of_what_may_be_split() -> None:
    rule = SEARCHES["zoomeye"].but(most_looks=200, most_depth=9, least_px=50, least_share=0.0, overlap=0.0)
    for visit in search(WH, finder(0), rule).visits:
        x0, y0, x1, y1 = visit.box_xyxy
        assert min(x1 - x0, y1 - y0) >= 25


def test_the_best_look_is_the_surest_even_if_it_was_the_first() -> None:
    path = search(WH, lambda box: Seen(0.9 if box == (0, 0, *WH) else 0.1, None), SEARCHES["vstar"])
    assert path.best.box_xyxy == (0, 0, *WH)


@pytest.mark.parametrize(
    "wrong",
    [
        {"opening": "thirds"},
        {"order": "luck"},
        {"enough": 2},
        {"enough": "very"},
        {"most_looks": 0},
        {"most_looks": True},
        {"shrink": 1.0},
        {"x": 1},
        {"shrink": 0.3},  # of a peak's window only
        {"opening": "peak", "overlap": 0.2},
    ],
)
def test_rules_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        SearchRule("mine", "test").but(**wrong)
