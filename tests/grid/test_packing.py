"""One byte a cell: what is lost, what is kept, what is refused."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import vlmattn.grid.packing
from vlmattn.core.errors import FileError, MapError
from vlmattn.grid import QuantisedGrids, quantised


@given(arrays(np.float32, (3, 7), elements=st.floats(-4, 4, width=32)))
@settings(max_examples=60, deadline=None)
def test_a_value_is_told_within_half_a_step(values: Any) -> None:
    held = quantised(values)
    assert held.levels.dtype == np.uint8
    assert (np.abs(held.values - values) <= held.step[:, None] * 0.5 + 1e-6).all()


def test_nothing_negative_keeps_zero_and_the_highest_value() -> None:
    held = quantised([[0.0, 0.1, 0.3], [0.0, 0.0, 0.0]])
    assert held.low.tolist() == [0, 0]
    assert held.levels[0, 0] == 0
    assert held.levels[0, 2] == 255
    assert held.values[0, 2] == pytest.approx(0.3, rel=1e-6)
    assert (held.values[1] == 0).all()


def test_each_map_has_its_own_step() -> None:
    held = quantised([[0.0, 1.0], [0.0, 1e-6]])
    assert held.values[1, 1] == pytest.approx(1e-6, rel=1e-5)


def test_it_goes_through_json_and_back() -> None:
    held = quantised(np.random.default_rng(0).normal(size=(2, 3, 5)))
    again = QuantisedGrids.from_dict(held.to_dict())
    assert (again.levels == held.levels).all()
    assert (again.values == held.values).all()


@pytest.mark.hostile
@pytest.mark.parametrize(
    "change",
    [
        {"levels": None}, {"levels": "%"}, {"levels": "AAAA"}, {"shape": [2, 4]}, {"shape": []}, {"shape": ["x"]},
        {"shape": [2, -3]}, {"shape": [1 << 40, 9]}, {"low": "eNoDAAAAAAE="},
    ],
)  # fmt: skip
def test_damaged_grids_are_refused(change: dict[str, Any]) -> None:
    held = quantised(np.ones((2, 3))).to_dict() | change
    with pytest.raises(FileError, match=r"packed array|quantised grids|that vlmattn packs"):
        QuantisedGrids.from_dict(held)


@pytest.mark.parametrize("values", [[[np.nan, 1]], [[np.inf]], np.zeros((2, 0)), 3.0])
def test_what_is_no_map_is_refused(values: Any) -> None:
    with pytest.raises(MapError, match=r"finite|at least|must have shape"):
        quantised(values)


def test_its_example_runs() -> None:
    assert doctest.testmod(vlmattn.grid.packing).failed == 0
