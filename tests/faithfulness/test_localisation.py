"""Measures of a map against a mask: cases by hand, and the same numbers from scikit-learn and scikit-image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import roc_auc_score

from vlmattn.core.errors import MapError, SpecError
from vlmattn.faithfulness import best_iou, box_mask, energy_inside, iou_at, pixel_auc, pointing

HEAT = np.array([[0.0, 1.0, 2.0], [8.0, 4.0, -1.0]])
THING = np.array([[False, False, True], [True, False, False]])
MEASURES: tuple[Callable[..., Any], ...] = (pointing, energy_inside, iou_at, pixel_auc, lambda h, m: best_iou(h, m)[0])
HEATS = arrays(np.float64, (4, 5), elements=st.integers(-3, 6).map(float))
MASKS = arrays(np.bool_, (4, 5))


def test_by_hand() -> None:
    assert pointing(HEAT, THING) == 1.0
    assert pointing(HEAT, ~THING) == 0.0
    assert energy_inside(HEAT, THING) == 10 / 15
    assert energy_inside(HEAT, THING, negative="shift") == 12 / 20
    assert iou_at(HEAT, THING, 0.5) == 1 / 3  # from 3.5 on: 8 and 4
    assert iou_at(HEAT, THING, 1.0) == 1 / 2
    assert best_iou(HEAT, THING) == (2 / 3, 2.0)
    assert pixel_auc(HEAT, THING) == 7 / 8  # of 2 x 4 pairs only 2 < 4 is wrong


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("mask", [np.zeros((2, 3), bool), np.ones((2, 3), bool)])
def test_no_mask_or_a_full_one_is_no_question(measure: Callable[..., float], mask: np.ndarray) -> None:
    assert math.isnan(measure(HEAT, mask))


def test_a_flat_map_gets_chance() -> None:
    flat = np.full((2, 3), 0.1)
    assert pointing(flat, THING) == pytest.approx(2 / 6)
    assert energy_inside(flat, THING) == pytest.approx(2 / 6)
    assert pixel_auc(flat, THING) == 0.5
    assert iou_at(flat, THING) == iou_at(flat, THING, "otsu") == 0.0
    assert math.isnan(energy_inside(flat, THING, negative="shift"))
    assert math.isnan(energy_inside(-flat, THING))
    # as good as flat: rounding makes no threshold
    assert iou_at(flat + 1e-16 * HEAT, THING, "otsu") == 0.0


def test_a_threshold_of_all_keeps_the_highest_despite_rounding() -> None:
    heat = np.array([[0.1, 0.7, 0.3]])
    for low in np.linspace(-0.7, 0.7, 41):
        assert iou_at(heat + low, np.array([[False, True, False]]), 1.0) == 1.0


def test_tolerance_counts_pixels_round_the_mask() -> None:
    heat, mask = np.zeros((1, 9)), np.zeros((1, 9), bool)
    heat[0, 4], mask[0, 0] = 1, True
    assert [pointing(heat, mask, tolerance=t) for t in (0, 3.9, 4)] == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: pointing([[np.nan, 1]], [[True, False]]), MapError),
        (lambda: pixel_auc([[1, 2]], [[True], [False]]), MapError),
        (lambda: energy_inside([1, 2], [True, False]), MapError),
        (lambda: pointing(HEAT, THING, tolerance=-1), SpecError),
        (lambda: iou_at(HEAT, THING, 1.5), SpecError),
        (lambda: iou_at(HEAT, THING, "best"), SpecError),  # type: ignore[arg-type]
        (lambda: energy_inside(HEAT, THING, negative="abs"), SpecError),  # type: ignore[arg-type]
        (lambda: box_mask((4, 4), (2, 2, 2, 3)), MapError),
        (lambda: box_mask((4, 4), (0, float("nan"), 2, 3)), MapError),
        (lambda: box_mask((4, 4), (4, 0, 9, 9)), MapError),
        (lambda: box_mask((4, 4), (0.6, 0, 1.4, 4)), MapError),  # between two middles
    ],
)
def test_refused(call: Callable[[], Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        call()


def test_boxes_are_x_then_y_and_cut_at_the_border() -> None:
    assert np.argwhere(box_mask((4, 2), (2.5, 0.6, 99, 99))).tolist() == [[1, 2], [1, 3]]


@given(HEATS, MASKS)
@settings(max_examples=60, deadline=None)
def test_properties(heat: np.ndarray, mask: np.ndarray) -> None:
    if mask.all() or not mask.any():
        return
    assert pixel_auc(heat, mask) == pytest.approx(roc_auc_score(mask.ravel(), heat.ravel()))
    assert pointing(heat, mask) + pointing(heat, ~mask) == pytest.approx(1)
    assert pixel_auc(heat, mask) + pixel_auc(-heat, mask) == pytest.approx(1)
    best, level = best_iou(heat, mask)
    each = [((heat >= t) & mask).sum() / ((heat >= t) | mask).sum() for t in np.unique(heat)]
    assert best == pytest.approx(max(each))
    assert ((heat >= level) & mask).sum() / ((heat >= level) | mask).sum() == pytest.approx(best)
    inside = energy_inside(heat, mask)
    if not math.isnan(inside):
        assert inside + energy_inside(heat, ~mask) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(4))
def test_otsu_is_that_of_scikit_image(seed: int) -> None:
    from skimage.filters import threshold_otsu

    rng = np.random.default_rng(seed)
    heat = np.concatenate([rng.normal(0, 1, (20, 30)), rng.normal(5, 0.5, (20, 10))], axis=1)
    mask = np.zeros((20, 40), bool)
    mask[:, 28:] = True
    high = heat > threshold_otsu(heat)
    half_a_bin = np.ptp(heat) / 256
    near = np.abs(heat - threshold_otsu(heat)) <= half_a_bin  # they say the middle of a bin, we its upper edge
    expected = (high & mask).sum() / (high | mask).sum()
    assert iou_at(heat, mask, "otsu") == pytest.approx(expected, abs=near.sum() / (high | mask).sum() + 1e-12)
    assert near.sum() <= 4
