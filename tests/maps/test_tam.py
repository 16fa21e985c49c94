"""Every step of the token activation map against a plain loop."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest

import vlmattn.maps.attribution
import vlmattn.maps.tam
from vlmattn.core.errors import MapError, SpecError
from vlmattn.maps.tam import (
    activations,
    interference,
    joint_minmax,
    least_squares_scale,
    rank_gaussian,
    without_interference,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("module", [vlmattn.maps.tam, vlmattn.maps.attribution])
def test_examples(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def test_activations_are_never_negative() -> None:
    assert activations([[-3.0, 0.5], [0.0, -1e-9]]).tolist() == [[0.0, 0.5], [0.0, 0.0]]


def test_interference_is_a_weighted_sum(rng: np.random.Generator) -> None:
    text, maps = rng.random(5), rng.random((5, 12))
    wanted = [sum(text[k] / (text.sum() + 1e-8) * maps[k, n] for k in range(5)) for n in range(12)]
    assert np.allclose(interference(text, maps), wanted, rtol=1e-12)
    assert interference(np.zeros(2), np.ones((2, 3))).tolist() == [0, 0, 0]
    assert interference(np.zeros(0), np.zeros((0, 3))).tolist() == [0, 0, 0]
    with pytest.raises(MapError, match=r"\(K, N\)"):
        interference(text, maps[:4])


def test_the_scale_is_that_of_least_squares(rng: np.random.Generator) -> None:
    image, against = rng.random(30), rng.random(30)
    best = least_squares_scale(image, against)
    errors = {s: ((image - s * against) ** 2).sum() for s in (best - 1e-3, best, best + 1e-3)}
    assert min(errors, key=errors.__getitem__) == best
    assert best == pytest.approx(float(np.linalg.lstsq(against[:, None], image, rcond=None)[0][0]))
    assert least_squares_scale(image, np.zeros(30)) == 0


def test_what_is_left_is_cut_at_zero(rng: np.random.Generator) -> None:
    image, against = rng.random(30), rng.random(30)
    s = least_squares_scale(image, against)
    left = without_interference(image, against)
    assert np.allclose(left, [max(0.0, a - s * b) for a, b in zip(image, against, strict=True)])
    assert (left == 0).any()
    assert without_interference(image, np.zeros(30)).tolist() == image.tolist()


def test_picture_and_text_share_a_scale() -> None:
    image, text = joint_minmax([2.0, 4.0], [10.0, 3.0])
    assert image.tolist() == [0.0, 0.25]
    assert text.tolist() == [1.0, 0.125]
    assert joint_minmax([2.0, 2.0], [2.0])[0].tolist() == [0.0, 0.0]
    assert joint_minmax([2.0, 4.0], [])[0].tolist() == [0.0, 1.0]


def plain_filter(grid: np.ndarray, size: int) -> np.ndarray:
    half = size // 2
    padded = np.pad(grid, half, mode="reflect")
    out = np.zeros_like(grid)
    for r in range(grid.shape[0]):
        for c in range(grid.shape[1]):
            window = sorted(padded[r : r + size, c : c + size].ravel())
            mean = sum(window) / len(window)
            if mean == 0:
                continue
            sigma = math.sqrt(sum((v - mean) ** 2 for v in window) / len(window)) / mean
            middle = len(window) // 2
            if sigma == 0:
                out[r, c] = window[middle]
                continue
            weights = [math.exp(-((i - middle) ** 2) / (2 * sigma**2)) for i in range(len(window))]
            out[r, c] = sum(w * v for w, v in zip(weights, window, strict=True)) / sum(weights)
    return out


@pytest.mark.parametrize("size", [3, 5])
def test_the_filter_is_that_of_a_loop(size: int, rng: np.random.Generator) -> None:
    grid = rng.random((7, 6)) * (rng.random((7, 6)) > 0.4)
    assert np.allclose(rank_gaussian(grid, size), plain_filter(grid, size), atol=1e-12)


def test_the_filter_keeps_constant_and_empty_windows_and_removes_a_lone_spike() -> None:
    assert rank_gaussian(np.full((4, 4), 0.3)).tolist() == np.full((4, 4), 0.3).tolist()
    assert not rank_gaussian(np.zeros((4, 4))).any()
    spike = np.full((5, 5), 1.0)
    spike[2, 2] = 100.0
    assert rank_gaussian(spike)[2, 2] < 15
    assert np.isfinite(rank_gaussian(np.full((3, 3), 1e-300))).all()
    assert rank_gaussian([[2.0]]).tolist() == [[2.0]]
    assert rank_gaussian([[1.0, 2.0, 3.0]]).shape == (1, 3)
    assert rank_gaussian(spike, 1).tolist() == spike.tolist()


@pytest.mark.parametrize("size", [0, 2, -1, 3.0, True])
def test_the_window_is_odd(size: object) -> None:
    with pytest.raises(SpecError, match="odd"):
        rank_gaussian([[1.0]], size)  # type: ignore[arg-type]


def test_the_filter_takes_no_negative_values() -> None:
    with pytest.raises(MapError, match="0 or more"):
        rank_gaussian([[-1.0, 2.0]])
    with pytest.raises(MapError, match="0 or more"):
        rank_gaussian([[np.nan, 2.0]])
