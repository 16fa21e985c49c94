"""Whether maps say the same, and whether they say what removal says."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from vlmattn.core.errors import MapError, SpecError
from vlmattn.faithfulness import (
    Cells,
    faithfulness_correlation,
    max_sensitivity,
    occlusion,
    rank_correlation,
    top_overlap,
)

WORTH = np.array([0.1, 0.4, -0.3, 0.2])
CELLS = Cells(np.repeat(np.array([[0, 1, 2, 3]]), 2, axis=0), WORTH)
WHITE = Image.fromarray(np.full((2, 4, 3), 255, np.uint8))


def light(pictures: Sequence[Image.Image]) -> np.ndarray:
    return np.array([float((np.asarray(p)[0, :, 0] / 255) @ WORTH) for p in pictures])


@pytest.mark.parametrize("kind", ["spearman", "kendall"])
def test_rank_correlation_is_scipys(kind: str) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 40), rng.integers(0, 6, 40)
    expected = {"spearman": stats.spearmanr, "kendall": stats.kendalltau}[kind](a, b).statistic
    assert rank_correlation(a, b, kind) == pytest.approx(expected)  # type: ignore[arg-type]
    assert rank_correlation(a, np.exp(a), kind) == 1.0  # type: ignore[arg-type]


def test_a_flat_map_agrees_with_none() -> None:
    flat = [0.3, 0.3 + 1e-8, 0.3, 0.3]
    assert math.isnan(rank_correlation(flat, WORTH))
    assert math.isnan(top_overlap(WORTH, flat, 0.5))
    assert math.isnan(rank_correlation([0, 0], [0, 1]))


def test_top_overlap_by_hand() -> None:
    assert top_overlap([9, 8, 1, 0], [9, 0, 8, 1], 0.25) == 1.0
    assert top_overlap([9, 8, 1, 0], [9, 0, 8, 1], 0.5) == 0.5
    assert top_overlap([9, 8, 1, 0], [0, 1, 8, 9], 0.5) == 0.0


def test_occlusion_is_what_each_region_is_worth() -> None:
    assert occlusion(WHITE, CELLS, light, baseline="black") == pytest.approx(WORTH)


def test_faithfulness_correlation() -> None:
    assert faithfulness_correlation(WHITE, CELLS, light, share=0.5, baseline="black") == pytest.approx(1)
    opposite = Cells(CELLS.labels_hw, -WORTH)
    assert faithfulness_correlation(WHITE, opposite, light, share=0.5, baseline="black") == pytest.approx(-1)
    other = Cells(CELLS.labels_hw, np.array([1.0, 2.0, 3.0, 5.0]))
    mine = faithfulness_correlation(WHITE, other, light, runs=20, share=0.5, baseline="black")
    source = np.random.default_rng(0)
    sets = [source.choice(4, 2, replace=False) for _ in range(20)]
    assert mine == pytest.approx(
        stats.pearsonr([other.values[s].sum() for s in sets], [WORTH[s].sum() for s in sets])[0]
    )
    assert math.isnan(faithfulness_correlation(WHITE, CELLS, lambda seen: 0 * light(seen)))


def test_max_sensitivity_by_hand() -> None:
    assert max_sensitivity([3.0, 4.0], [[3.0, 4.0], [0.0, 0.0], [6.0, 8.0]]) == 1.0
    assert max_sensitivity([3.0, 4.0], [[3.0, 4.5]]) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: rank_correlation([1, 2], [1, 2, 3]),
        lambda: rank_correlation([1], [1]),
        lambda: top_overlap([1, np.nan], [1, 2]),
        lambda: max_sensitivity([0, 0], [[1, 1]]),
        lambda: max_sensitivity([1], []),
    ],
)
def test_maps_that_cannot_be_compared(call: object) -> None:
    with pytest.raises(MapError):
        call()  # type: ignore[operator]


@pytest.mark.parametrize(
    "call",
    [
        lambda: rank_correlation([1, 2], [1, 2], "pearson"),
        lambda: top_overlap([1, 2], [1, 2], 0),
        lambda: faithfulness_correlation(WHITE, CELLS, light, runs=1),
        lambda: faithfulness_correlation(WHITE, CELLS, light, share=1.0),
    ],
)
def test_options_that_do_not_exist(call: object) -> None:
    with pytest.raises(SpecError):
        call()  # type: ignore[operator]
