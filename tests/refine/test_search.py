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


def test_children_overlap_by_a_share_of_themselves_inside_their_parent() -> None:
    path = search((300, 100), finder(0), SEARCHES["vstar"].but(most_looks=2, most_depth=1, overlap=0.1))
    assert {v.box_xyxy for v in path.visits[1:]} == {(0, 0, 165, 100), (135, 0, 300, 100)}


def test_near_squares_are_split_in_four_and_long_parts_in_two() -> None:
    rule = SEARCHES["vstar"].but(most_looks=9, most_depth=1, overlap=0.0)
    for wh, count in (((300, 210), 4), ((300, 200), 2), ((200, 300), 2), ((210, 300), 4)):
        assert search(wh, finder(0), rule).looks == count
    assert {v.box_xyxy for v in search((100, 300), finder(0), rule).visits[1:]} == {
        (0, 0, 100, 150), (0, 150, 100, 300)
    }  # fmt: skip


def test_the_least_size_is_of_the_shorter_side() -> None:
    rule = SEARCHES["zoomeye"].but(most_looks=99, most_depth=9, least_px=1, least_share=0.5, overlap=0.0)
    sizes = {(v.box_xyxy[2] - v.box_xyxy[0], v.box_xyxy[3] - v.box_xyxy[1]) for v in
             search((400, 100), finder(0), rule).visits}  # fmt: skip
    assert sizes == {(400, 100), (200, 50)}, "50 is half of 100, so quarters are not split again"


def test_what_is_opened_next_has_the_largest_share_of_the_whole() -> None:
    """A part with nearly all of a poor parent's attention comes after one with some of a rich one's."""

    def look(box: tuple[int, int, int, int]) -> Seen:
        x0, y0, x1, y1 = box
        whole = np.full((100, 400), 1.0, dtype=np.float32)
        whole[:, :200] = 9.0  # 90 % on the left half
        values = whole[y0:y1, x0:x1].copy()
        if box == (200, 0, 400, 100):
            values[:, :100] = 0.0  # all of the right half's own attention on its right quarter
        return Seen(0.1, PixelMap(values, np.ones_like(values, bool)))

    rule = SEARCHES["vstar"].but(most_looks=5, most_depth=2, least_px=1, least_share=0.01, overlap=0.0)
    order = [v.box_xyxy for v in search((400, 100), look, rule).visits]
    assert order[1] == (0, 0, 200, 100)
    assert set(order[2:4]) == {(0, 0, 100, 100), (100, 0, 200, 100)}, "45 % of the whole each, before the right's 10 %"
    priorities = {v.box_xyxy: v.priority for v in search((400, 100), look, rule).visits}
    assert priorities[(0, 0, 100, 100)] == pytest.approx(0.45)
    assert priorities[(300, 0, 400, 100)] == pytest.approx(0.1)


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
