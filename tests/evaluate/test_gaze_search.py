"""Search experiments: counts by hand, and an asymmetry that is put in and one that is not."""

from __future__ import annotations

import doctest
from collections.abc import Sequence

import numpy as np
import pytest

import vlmattn.evaluate.gaze.search as search_module
from vlmattn.core.errors import SpecError
from vlmattn.evaluate.gaze import (
    saccades_to_target,
    search_asymmetry,
    search_result,
    synthetic_searcher,
)
from vlmattn.gaze import Scanpath
from vlmattn.gaze.observers import Observer
from vlmattn.gaze.scanpaths import search_cdf
from vlmattn.scene import Scene

BOX = (60.0, 60.0, 90.0, 90.0)


def after(count: int | None) -> Scanpath:
    """On the target after so many saccades, or never in six fixations."""
    points = [(10.0, 10.0)] * (6 if count is None else count) + ([] if count is None else [(75.0, 75.0)])
    return Scanpath.from_points(points, (100, 100))


def test_example() -> None:
    result = doctest.testmod(search_module)
    assert result.attempted
    assert not result.failed


def test_counts_are_those_by_hand_and_those_of_the_cumulative_curve() -> None:
    paths = [after(0), after(1), after(3), after(None), after(5)]
    assert saccades_to_target(paths, [BOX] * 5, 3).tolist() == [0, 1, 3, 4, 4]
    one = search_result(paths, [BOX] * 5, steps=3, draws=200)
    assert one.fixations.value == pytest.approx(12 / 5)
    assert one.when_found == pytest.approx(4 / 3)
    assert [c.value for c in one.cdf] == search_cdf(paths, [BOX] * 5, steps=3).tolist()
    assert one.area == pytest.approx(0.2 + 0.4 + 0.4 + 0.6)
    assert np.isnan(search_result([after(None)], [BOX], draws=100).when_found)


def test_displays_are_drawn_again_with_all_their_scanpaths() -> None:
    paths = [after(1)] * 10 + [after(3)] * 10
    one = search_result(paths, [BOX] * 20, displays=["a"] * 10 + ["b"] * 10, draws=500)
    assert (one.fixations.low, one.fixations.high, one.fixations.clusters) == (1.0, 3.0, 2)


def test_an_asymmetry_that_is_there_is_found_and_one_that_is_not_is_not() -> None:
    def sooner_for_rings(scene: Scene, target: str, name: str) -> Sequence[Scanpath]:
        x, y = scene.objects[0].center_xy
        waits = 1 if target.endswith("ring") else 3
        return [Scanpath.from_points([(112.0, 112.0)] * waits + [(x, y)], scene.image_wh)] * 2

    found = search_asymmetry("red ring", "red circle", sooner_for_rings, displays=10, draws=500)
    assert (found.a.label, found.b.label) == ("red ring among red circle", "red circle among red ring")
    assert (found.a.fixations.value, found.b.fixations.value) == (1.0, 3.0)
    assert (found.difference.value, found.difference.high) == (-2.0, -2.0)
    assert found.p < 0.02
    even = search_asymmetry("red ring", "red circle", synthetic_searcher(4), displays=8, draws=500)
    assert even.difference.low < 0 < even.difference.high
    assert even.p > 0.05


def test_guidance_by_colour_makes_a_colour_singleton_easy() -> None:
    def needed(target: str, other: str) -> float:
        found = search_asymmetry(
            target, other, synthetic_searcher(4, observer=Observer(noise=0.5)), displays=6, draws=100
        )
        return found.a.fixations.value

    # A distractor of the same colour draws half as much as the target itself, one of another colour a quarter.
    assert needed("red ring", "blue ring") < needed("red ring", "red circle")


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(SpecError, match="one box per scanpath"):
        search_result([after(1)], [])
    with pytest.raises(SpecError, match="steps"):
        search_result([after(1)], [BOX], steps=-1)
    with pytest.raises(SpecError, match="2 pairs"):
        search_asymmetry("red ring", "red circle", synthetic_searcher(), displays=1)
    with pytest.raises(SpecError, match="one box per scanpath"):
        search_asymmetry("red ring", "red circle", lambda *_: [], displays=2)
