"""Scanpaths and sets of them: what is refused, what is warned of, and that nothing is lost on the way to columns."""

from __future__ import annotations

import copy
import doctest
import math
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmattn.core.errors import SpecError
from vlmattn.gaze import Fixations, GazeWarning, Scanpath, Screen

WH = (640, 480)


@pytest.mark.parametrize("name", ["fixations", "screen"])
def test_examples(name: str) -> None:
    result = doctest.testmod(sys.modules[f"vlmattn.gaze.{name}"])
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"x": [1.0], "y": [1.0, 2.0]}, "one length"),
        ({"x": [[1.0]], "y": [1.0]}, "shape"),
        ({"x": ["left"], "y": [1.0]}, "x must be numbers"),
        ({"x": [1.0, math.nan], "y": [1.0, 2.0]}, "x must be finite, got nan for fixation 1"),
        ({"x": [1.0], "y": [math.inf]}, "y must be finite"),
        ({"x": [1.0], "y": [1.0], "duration": [0.0]}, "above 0 seconds, got 0 for fixation 0"),
        ({"x": [1.0], "y": [1.0], "duration": [-0.1]}, "above 0 seconds"),
        ({"x": [1.0], "y": [1.0], "duration": [math.nan]}, "duration must be finite"),
        ({"x": [1.0], "y": [1.0], "duration": []}, "one value for each"),
        ({"x": [1.0, 2.0], "y": [1.0, 2.0], "start": [0.5, 0.5]}, "fixation 1 starts at 0.5 s"),
        ({"x": [1.0, 2.0], "y": [1.0, 2.0], "start": [0.5, 0.1]}, "sort"),
        ({"x": [1.0], "y": [1.0], "image_wh": (0, 3)}, "image_wh"),
        ({"x": [1.0], "y": [1.0], "image_wh": (640.5, 480)}, "image_wh"),
        ({"x": [1.0], "y": [1.0], "image_wh": 640}, "image_wh"),
        ({"x": [1.0], "y": [1.0], "image_wh": (math.nan, 480)}, "image_wh"),
    ],
)
def test_what_is_no_scanpath(given_: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Scanpath(**{"image_wh": WH, **given_})


@pytest.mark.parametrize(
    ("x", "y", "duration", "message"),
    [
        ([0.1, 0.5, 0.9], [0.2, 0.3, 1.0], None, "shares"),
        ([-10.0, 3.0, 12.0], [4.0, -6.0, 0.0], None, "degrees"),
        ([100.0, 200.0], [100.0, 200.0], [200.0, 300.0], "milliseconds"),
    ],
)
def test_another_unit_is_noticed(x: list, y: list, duration: list | None, message: str) -> None:
    with pytest.warns(GazeWarning, match=message):
        Scanpath(x, y, WH, duration=duration)


def test_pixels_and_seconds_pass_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Scanpath([0.1, 0.5, 0.9], [0.2, 0.3, 1.0], (24, 24))  # a patch grid has few pixels
        Scanpath([46.0, 20.0, 3.0], [1.0, 2.0, 3.0], WH, duration=[0.1, 19.0, 30.0])
        Scanpath([0.5, 0.5], [0.5, 0.5], WH)  # too few to tell


def test_none_and_one_are_scanpaths() -> None:
    for n in (0, 1):
        path = Scanpath(np.full(n, 5.0), np.full(n, 5.0), WH, start=np.zeros(n), duration=np.ones(n))
        assert len(path) == n
        assert path.xy.shape == (n, 2)
        assert path.outside("drop") == path
        assert len(path.take([])) == 0
    assert len(Scanpath.from_points([], WH)) == 0


def test_edges_of_the_picture() -> None:
    path = Scanpath([0.0, 639.999, 640.0, -0.001, 5], [0.0, 479.999, 5, 5, 480.0], WH, duration=[1, 2, 3, 4, 5])
    assert path.on_image().tolist() == [True, True, False, False, False]
    assert path.outside("drop").duration.tolist() == [1, 2]
    clipped = path.outside("clip")
    assert clipped.on_image().all()
    assert clipped.pixels[2:].tolist() == [[639, 5], [0, 5], [5, 479]]
    assert (clipped.xy[:2] == path.xy[:2]).all()
    with pytest.raises(SpecError, match="'keep', 'drop' or 'clip'"):
        path.outside("wrap")  # type: ignore[arg-type]


def test_missing_values_are_dropped_on_request_only() -> None:
    path = Scanpath.of(
        [1, math.nan, 700, 4], [1, 2, 3, 4], WH, start=[0, 1, 2, 3], duration=[1, 1, 1, -1], outside="drop"
    )
    assert path.xy.tolist() == [[1, 1]]
    assert path.start.tolist() == [0]
    with pytest.raises(SpecError, match="one length"):
        Scanpath.of([1.0], [1.0, 2.0], WH)


def test_arrays_are_copies_that_nobody_changes() -> None:
    x = np.array([100.0, 200.0])
    path = Scanpath(x, x, WH)
    x[0] = 7
    assert path.x[0] == 100
    with pytest.raises(ValueError, match="read-only"):
        path.x[0] = 1
    assert copy.deepcopy(path) == path


def path_of(rng: np.random.Generator, n: int, **named: object) -> Scanpath:
    return Scanpath(
        rng.uniform(0, 640, n), rng.uniform(0, 480, n), WH, start=np.arange(n) * 0.3, duration=np.full(n, 0.2), **named
    )


def test_scanpaths_with_and_without_durations_are_not_pooled() -> None:
    some = [Scanpath([60.0], [70.0], WH, image="i", duration=one) for one in ([0.2], None)]
    columns = Fixations(tuple(some)).to_columns()
    del columns["scanpath"]
    with pytest.raises(SpecError, match=r"duration must be finite, got nan for fixation 1"):
        Fixations.from_columns(columns)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 6), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_columns_and_back(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    held = Fixations(
        tuple(
            Scanpath(
                rng.uniform(50, 640, n),
                rng.uniform(50, 480, n),
                WH,
                start=None if rng.random() < 0.5 else np.cumsum(rng.uniform(0.1, 1, n)),
                duration=None if rng.random() < 0.5 else rng.uniform(0.1, 1, n),
                image=f"i{rng.integers(2)}",
                subject=None if rng.random() < 0.5 else "s",
                screen=None if rng.random() < 0.5 else Screen(30.0),
            )
            for n in sizes
        )
    )
    columns = held.to_columns()
    assert Fixations.from_columns(columns) == held
    del columns["scanpath"]  # then picture, subject and task tell scanpaths apart: pooled, never lost
    timed = {p.duration is not None for p in held}
    if len(timed) == 1 and not any(p.start is not None or p.screen is not None for p in held):
        assert Fixations.from_columns(columns).count == held.count
    assert all(Scanpath.from_dict(p.to_dict()) == p for p in held)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": [1.0]}, "must have y"),
        ({"x": [1.0], "y": [1.0, 2.0]}, "one length"),
        ({"x": [1.0], "y": [1.0]}, "size is not known"),
        (
            {
                "x": [1.0, 2.0],
                "y": [1.0, 2.0],
                "scanpath": [0, 0],
                "image": ["a", "b"],
                "width": [9, 9],
                "height": [9, 9],
            },
            "image must be one value",
        ),
        ({"x": [1.0, None], "y": [1.0, 2.0], "width": [9, 9], "height": [9, 9]}, "x must be finite"),
    ],
)
def test_columns_that_are_none(columns: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Fixations.from_columns(columns)


def test_groups_and_selections() -> None:
    rng = np.random.default_rng(0)
    held = Fixations(
        tuple(
            path_of(rng, 3, image=i, subject=s, task=t, trial={"split": "train" if i == "a" else "test"})
            for i in ("b", "a")
            for s in ("s1", "s2")
            for t in ("find", None)
        )
    )
    assert list(held.by_image()) == ["b", "a"] == list(held.images)
    assert held.subjects == ("s1", "s2")
    assert held.tasks == ("find", None)
    assert [len(f) for f in held.by_task().values()] == [4, 4]
    assert held.select(split="train", subject=["s1"], task=None) == Fixations((held[5],))
    assert len(held.select(lambda p: p.image == "a")) == 4
    with pytest.raises(SpecError, match="'splat'"):
        held.select(splat="train")
    assert held.points("a").shape == (12, 2)
    assert Fixations.concatenate(held.by_subject().values()).count == held.count == 24
    assert (held[:2] + held[2:]) == held
    assert held.points("nowhere").shape == (0, 2)


def test_a_picture_has_one_size() -> None:
    with pytest.raises(SpecError, match="two sizes"):
        Fixations((Scanpath([1.0], [1.0], (9, 9), image="a"), Scanpath([1.0], [1.0], (9, 8), image="a")))
    with pytest.raises(SpecError, match="number 0 is int"):
        Fixations((1,))  # type: ignore[arg-type]


def test_resizing_keeps_the_place() -> None:
    path = Scanpath([320.0], [120.0], WH, screen=Screen(30.0, 900.0, (320.0, 240.0)))
    half = path.scaled_to((320, 240))
    assert half.xy.tolist() == [[160.0, 60.0]]
    assert half.screen == Screen(15.0, 450.0, (160.0, 120.0))
    assert path.scaled_to((320, 480)).screen is None
    assert half.scaled_to(WH) == path


@pytest.mark.parametrize(
    "bad",
    [{"x": [1.0], "y": [1.0]}, {"x": [1], "y": [1], "image_wh": [9, 9], "z": 1}, [], {"x": 1, "y": [1], "image_wh": 3},
     {"x": [1], "y": [1], "image_wh": [9, 9], "screen": 3}],
)  # fmt: skip
def test_dicts_that_are_no_scanpath(bad: object) -> None:
    with pytest.raises(SpecError):
        Scanpath.from_dict(bad)  # type: ignore[arg-type]


@given(st.floats(200, 4000), st.floats(10, 100), st.floats(20, 200), st.floats(-20, 20), st.floats(-20, 20))
@settings(max_examples=40, deadline=None)
def test_degrees(width: float, cm: float, distance: float, a: float, b: float) -> None:
    screen = Screen.from_geometry(size_px=(width, width / 2), size_cm=(cm, cm / 2), distance_cm=distance)
    assert screen.to_degrees(screen.to_pixels(a)) == pytest.approx(a)
    # A point a degrees to the right of straight ahead lies distance * tan(a) away on a flat screen.
    middle = np.array(screen.centre_xy)
    shift = screen.distance_px * np.tan(np.radians([[a, 0], [b, 0]]))
    assert float(screen.angle(middle + shift[0], middle + shift[1])) == pytest.approx(abs(a - b), abs=1e-9)
    one = screen.pixels_per_degree / 2
    assert float(screen.angle(middle - np.array([one, 0]), middle + np.array([one, 0]))) == pytest.approx(1.0)
    big = screen.scaled(2.0, offset_xy=(10.0, 20.0))
    p, q = np.array([3.0, 4.0]), np.array([50.0, 70.0])
    corner = np.array([10.0, 20.0])
    assert float(big.angle((p - corner) * 2, (q - corner) * 2)) == pytest.approx(float(screen.angle(p, q)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Screen(0.0),
        lambda: Screen(math.nan),
        lambda: Screen(True),
        lambda: Screen(30.0, distance_px=3.0),
        lambda: Screen.from_geometry(size_px=(1680, 1050), size_cm=(29.7, 47.4), distance_cm=60),
        lambda: Screen.from_geometry(size_px=(1680, 1050), size_cm=(47.4, 29.7), distance_cm=-60),
        lambda: Screen(30.0).angle((0, 0), (1, 1)),
    ],
)
def test_screens_that_are_none(make: object) -> None:
    with pytest.raises(SpecError):
        make()
