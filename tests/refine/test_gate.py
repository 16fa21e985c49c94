"""The gate: signs, default, fitting, files; and the measures of complexity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from tests.traces import trace
from vlmattn.core.errors import FileError, MapError, SpecError
from vlmattn.refine import (
    Gate,
    Signs,
    attention_entropy,
    colour_complexity,
    fit_gate,
    signs_of,
    texture_complexity,
)
from vlmattn.trace.trace import TokenScores


def scored(margins: list[float]) -> TokenScores:
    top = np.array([[-0.1, -0.1 - m] for m in margins], dtype=np.float32)
    return TokenScores(np.zeros(len(margins), np.float32), np.zeros((len(margins), 2), np.int64), top, top[:, 0])


def test_signs_are_the_smallest_margin_and_the_first_rows_look() -> None:
    one = trace(scores=scored([3.0, 0.5, 2.0, 4.0]))
    signs = signs_of(one)
    assert signs.margin == pytest.approx(0.5)
    row = one.rows_of(one.answer_tokens[:1])[0]
    shares = one.attn_lhqk[:, :, row].mean(1)
    shares = shares / shares.sum(1, keepdims=True)
    entropy = float(-(shares * np.log(shares)).sum(1).mean())
    assert signs.entropy == pytest.approx(entropy / np.log(6), rel=1e-5)
    names = [n for n, s in enumerate(one.segments) if s.startswith("image")]
    assert signs.image_share == pytest.approx(float(one.mass_lhqs[:, :, row][..., names].sum(-1).mean()), rel=1e-5)
    assert np.isnan(signs_of(trace()).margin)
    assert signs_of(trace()).to_dict()["margin"] is None


@pytest.mark.parametrize(("margin", "again"), [(0.5, True), (1.99, True), (2.01, False), (float("nan"), True)])
def test_the_default_gate_looks_again_where_the_margin_is_small(margin: float, again: bool) -> None:
    assert Gate().looks_again(Signs(margin, 0.5, 0.5)) is again


@pytest.mark.parametrize("wrong", [{"bias": float("nan")}, {"margin": "low"}, {"entropy": float("inf")}])
def test_weights_that_are_no_numbers(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        Gate(**wrong)


def test_a_sign_without_weight_need_not_be_known() -> None:
    assert Gate().looks_again(Signs(9.0, float("nan"), float("nan"))) is False


def made(count: int = 400, seed: int = 0) -> tuple[list[Signs], list[bool], list[bool]]:
    """First answers are wrong where the margin is small; second ones nearly always right."""
    rng = np.random.default_rng(seed)
    margins = rng.uniform(0, 8, count)
    first = margins > rng.uniform(0, 2, count)
    second = first | (rng.random(count) < 0.9)
    return [Signs(float(m), float(rng.random()), float(rng.random())) for m in margins], list(first), list(second)


def test_fitting_keeps_the_gain_and_saves_work() -> None:
    signs, first, second = made()
    fitted = fit_gate(signs, first, second)
    assert fitted.gated >= fitted.always == pytest.approx(np.mean(second))
    assert fitted.looked < 0.3
    assert fitted.saved == pytest.approx(1 - fitted.looked)
    decided = np.array([fitted.gate.looks_again(s) for s in signs])
    assert decided.mean() == pytest.approx(fitted.looked)
    assert np.where(decided, second, first).mean() == pytest.approx(fitted.gated)
    other = made(seed=1)
    again = np.array([fitted.gate.looks_again(s) for s in other[0]])
    assert np.where(again, other[2], other[1]).mean() > np.mean(other[2]) - 0.02


def test_less_to_keep_is_less_to_look_at() -> None:
    signs, first, second = made()
    shares = [fit_gate(signs, first, second, keep=k).looked for k in (0.0, 0.5, 0.9, 1.0)]
    assert shares == sorted(shares)
    assert shares[0] == 0.0


def test_a_second_look_that_only_harms_is_never_taken() -> None:
    signs, first, _ = made()
    fitted = fit_gate(signs, [True] * len(first), first)
    assert fitted.looked == 0.0
    assert not any(fitted.gate.looks_again(s) for s in signs)


def test_the_logistic_fit_is_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression

    from vlmattn.core.logistic import logistic

    signs, first, second = made()
    x = np.array([[s.margin, s.entropy, s.image_share] for s in signs])
    x = (x - x.mean(0)) / x.std(0)
    y = np.array(second, dtype=int) - np.array(first, dtype=int)
    theirs = LogisticRegression(C=1.0, tol=1e-10).fit(x, y)
    bias, weights = logistic(x, y.astype(float))
    np.testing.assert_allclose(weights, theirs.coef_[0], rtol=2e-3)  # ours also shrinks the bias, by 0.001
    assert bias == pytest.approx(theirs.intercept_[0], rel=2e-3)


@pytest.mark.parametrize(
    ("error", "signs", "first", "second", "keep"),
    [
        (SpecError, [], [], [], 1.0),
        (SpecError, [Signs(1, 1, 1)], [True], [], 1.0),
        (SpecError, [Signs(1, 1, 1)], [True], [True], 2.0),
        (SpecError, [Signs(1, 1, 1)], [True], [True], "most"),
        (MapError, [Signs(float("nan"), 1, 1)], [True], [True], 1.0),
    ],
)
def test_data_that_cannot_be_fitted(
    error: type[Exception], signs: list[Signs], first: list[bool], second: list[bool], keep: Any
) -> None:
    with pytest.raises(error):
        fit_gate(signs, first, second, keep=keep)


def test_gates_are_kept_in_files(tmp_path: Path) -> None:
    gate = Gate(1.5, -0.25, 0.5, -2.0, "mine")
    assert Gate.load(gate.save(tmp_path / "gate.json")) == gate
    for text in ("", "[]", '{"bias": 1}', '{"name": "x", "nonsense": 2}', '{"name": "x", "bias": NaN}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(FileError, match="no gate"):
            Gate.load(tmp_path / "bad.json")
    with pytest.raises(FileError):
        Gate.load(tmp_path / "absent.json")


def test_entropy_of_an_even_look_is_ln_n_and_of_one_patch_zero() -> None:
    one = trace()
    even = trace(attn_lhqk=np.full_like(one.attn_lhqk, 0.07))
    assert attention_entropy(even) == pytest.approx(np.log(6))
    assert attention_entropy(even, of="row") == pytest.approx(-6 * 0.07 * np.log(0.07), rel=1e-5)
    values = np.zeros_like(one.attn_lhqk)
    values[..., 2] = 0.5
    assert attention_entropy(trace(attn_lhqk=values)) == 0.0
    with pytest.raises(MapError, match="no attention"):
        attention_entropy(trace(attn_lhqk=np.zeros_like(values)))
    with pytest.raises(SpecError):
        attention_entropy(one, of="tile")


def test_busy_pictures_are_more_complex_than_plain_ones() -> None:
    cat, grey = Image.fromarray(data.chelsea()), Image.new("RGB", (60, 40), (90, 90, 90))
    assert texture_complexity(grey) == colour_complexity(grey) == 0.0
    assert 0.01 < texture_complexity(cat) < 0.5
    assert 0.1 < colour_complexity(cat) < 1.0
    every = Image.fromarray(_all_hues())
    assert colour_complexity(every) > 0.99


def _all_hues() -> np.ndarray:
    import cv2

    hsv = np.full((180, 1, 3), 255, dtype=np.uint8)
    hsv[:, 0, 0] = np.arange(180)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
