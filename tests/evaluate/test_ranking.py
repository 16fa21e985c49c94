"""AUROC at equal position against loops over pairs, intervals against pictures drawn one by one."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from vlmattn.core.errors import SpecError
from vlmattn.evaluate import (
    CONTROLS,
    auroc,
    auroc_difference,
    average_precision,
    controlled_auroc,
    position_strata,
    precision_interval,
    ranking,
)

Words = tuple[list[float], list[bool], list[int], list[str]]


def words(seed: int = 0, pictures: int = 12) -> Words:
    rng = np.random.default_rng(seed)
    images = [f"p{n}" for n in range(pictures) for _ in range(5)]
    positions = [int(p) for _ in range(pictures) for p in np.sort(rng.choice(30, 5, replace=False))]
    labels = [bool(rng.random() < 0.1 + p / 50) for p in positions]
    scores = [float(round(rng.normal() + 0.8 * y + p / 20, 1)) for y, p in zip(labels, positions, strict=True)]
    return scores, labels, positions, images


def said(one: Words) -> list[str]:
    return [f"w{n * 7 % 5}" for n in range(len(one[0]))]


def by_hand(one: Words, control: str, bins: int = 10, gap: int = 6) -> float:
    scores, labels, positions, images = one
    spoken = said(one)
    strata = position_strata(positions, bins).tolist()
    if control == "residual":
        mean = {s: np.mean([v for v, t in zip(scores, strata, strict=True) if t == s]) for s in strata}
        scores = [v - mean[s] for v, s in zip(scores, strata, strict=True)]
    won = total = 0.0
    for a in range(len(scores)):
        for b in range(len(scores)):
            fits = labels[a] and not labels[b]
            if control == "stratified":
                fits = fits and strata[a] == strata[b]
            if control == "same_word":
                fits = fits and spoken[a] == spoken[b]
            if control == "within_image":
                fits = fits and images[a] == images[b] and abs(positions[a] - positions[b]) <= gap
            if fits:
                total += 1
                won += 1.0 if scores[a] > scores[b] else 0.5 if scores[a] == scores[b] else 0.0
    return won / total


@pytest.mark.parametrize("control", CONTROLS)
def test_pairs_are_counted_as_said(control: str) -> None:
    one = words()
    spoken = said(one) if control == "same_word" else None
    found = controlled_auroc(*one, control=control, words=spoken, draws=50)  # type: ignore[arg-type]
    assert found.value == pytest.approx(by_hand(one, control), abs=1e-12)
    assert found.low < found.value < found.high
    assert found.clusters == 12


def test_without_control_it_is_the_auroc() -> None:
    one = words()
    assert controlled_auroc(*one, control="none", draws=10).value == pytest.approx(auroc(one[0], one[1]), abs=1e-12)


@pytest.mark.parametrize("control", ["none", "within_image"])
def test_intervals_draw_whole_pictures(control: str) -> None:
    scores, labels, positions, images = words(1, pictures=6)
    names = sorted(set(images), key=images.index)
    drawn = np.random.default_rng(3).integers(0, 6, (40, 6))
    values = []
    for line in drawn:
        parts = [(n, copy) for copy, n in enumerate(line)]
        at = [(i, copy) for n, copy in parts for i, name in enumerate(images) if name == names[n]]
        again = (
            [scores[i] for i, _ in at],
            [labels[i] for i, _ in at],
            [positions[i] for i, _ in at],
            [f"{images[i]}-{copy}" for i, copy in at],
        )
        try:
            values.append(by_hand(again, control))
        except ZeroDivisionError:
            continue
    found = controlled_auroc(scores, labels, positions, images, control=control, draws=40, seed=3)  # type: ignore[arg-type]
    low, high = np.percentile(values, [2.5, 97.5])
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_position_alone_tells_nothing_at_equal_position() -> None:
    _, labels, positions, images = words(2, pictures=80)
    plain = controlled_auroc(positions, labels, positions, images, control="none", draws=200)
    equal = controlled_auroc(positions, labels, positions, images, bins=30, draws=200)
    assert plain.low > 0.6
    assert equal.value == pytest.approx(0.5, abs=0.02)
    residual = controlled_auroc(positions, labels, positions, images, control="residual", bins=30, draws=200)
    assert abs(residual.value - 0.5) < 0.06


def test_a_difference_is_of_the_same_pictures() -> None:
    scores, labels, positions, images = words(3, pictures=40)
    worse = (np.array(scores) + np.random.default_rng(0).normal(size=len(scores)) * 3).tolist()
    found = auroc_difference(scores, worse, labels, positions, images, control="none", draws=300)
    assert found.value == pytest.approx(auroc(scores, labels) - auroc(worse, labels))
    assert found.low < found.value < found.high
    same = auroc_difference(scores, scores, labels, positions, images)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_average_precision_is_the_sum_over_thresholds() -> None:
    scores, labels, _, images = words(4)
    total, area, before = sum(labels), 0.0, 0.0
    for cut in sorted(set(scores), reverse=True):
        taken = [y for v, y in zip(scores, labels, strict=True) if v >= cut]
        recall = sum(taken) / total
        area += (recall - before) * sum(taken) / len(taken)
        before = recall
    assert average_precision(scores, labels) == pytest.approx(area, abs=1e-12)
    found = precision_interval(scores, labels, images, draws=200)
    assert found.low < found.value < found.high
    assert np.isnan(average_precision([1.0, 2.0], [False, False]))


def test_strata_keep_equal_positions_together() -> None:
    positions = [0] * 50 + list(range(1, 51))
    found = position_strata(positions, 10)
    assert len(set(found[:50].tolist())) == 1
    assert len(set(found.tolist())) > 4
    assert (np.diff(found[50:]) >= 0).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scores": [float("nan"), 1.0]}, "must be finite"),
        ({"labels": [True]}, "one label for every score"),
        ({"labels": [2, 0]}, "zeros and ones"),
        ({"images": ["a"]}, "same items"),
        ({"control": "no"}, "control must be one of none"),
        ({"control": "same_word"}, "give both, or neither"),
        ({"words": ["a", "b"]}, "give both, or neither"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"bins": 0}, "at least one bin"),
    ],
)
def test_what_cannot_be_compared_is_refused(change: dict[str, object], said: str) -> None:
    given: dict[str, object] = {
        "scores": [0.0, 1.0],
        "labels": [False, True],
        "positions": [0, 1],
        "images": ["a", "b"],
    }
    with pytest.raises(SpecError, match=said):
        controlled_auroc(**(given | change))  # type: ignore[arg-type]


def test_examples() -> None:
    result = doctest.testmod(ranking)
    assert result.attempted > 0
    assert result.failed == 0
