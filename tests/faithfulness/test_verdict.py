"""The verdict: its squares, its rule, how it is fitted, and how its chances are measured."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from vlmattn.core.errors import FileError, MapError, SpecError
from vlmattn.core.logistic import logistic
from vlmattn.faithfulness import (
    CONTROLS,
    REGION,
    Evidence,
    VerdictRule,
    boxes_as_masks,
    fit_verdict,
    reliability,
    squares,
)

RULE = VerdictRule(-1.0, 2.0, 0.5, "by hand")


def evidence(drop: float, logp: float = 0.0, controls: tuple[float, ...] = (0.0,)) -> Evidence:
    return Evidence(drop, controls, logp, (0, 0, 1, 1))


def test_excess_is_over_the_mean_elsewhere_and_cut() -> None:
    assert evidence(3.0, controls=(1.0, -2.0)).excess == 3.5
    assert evidence(3.0, controls=()).excess == 3.0
    assert [evidence(d).excess for d in (99, -99, math.inf)] == [10, -10, 10]


def test_chance_and_verdict_by_hand() -> None:
    assert RULE.chance(evidence(1.0, -0.5)) == pytest.approx(1 / (1 + math.exp(-0.75)))
    assert [RULE.verdict(evidence(d)) for d in (2.0, 0.5, -1.0)] == ["supported", "unclear", "unsupported"]
    assert math.isnan(RULE.chance(evidence(1.0, math.nan)))
    assert RULE.verdict(evidence(1.0, math.nan)) == "unclear"
    edge = VerdictRule(0.0, 1.0, 0.0, "by hand", upper=0.5, lower=0.5)
    assert edge.verdict(evidence(0.0)) == "supported"


def test_what_is_not_known_is_null_in_json() -> None:
    told = json.loads(json.dumps(evidence(math.nan, -math.inf, (1.0, math.inf)).to_dict(), allow_nan=False))
    assert told == {
        "drop": None,
        "controls": [1.0, None],
        "log_probability": None,
        "box_xyxy": [0, 0, 1, 1],
        "excess": None,
    }


@pytest.mark.parametrize("change", [{"bias": math.nan}, {"upper": 1.0}, {"lower": 0.0}, {"upper": 0.3, "lower": 0.4}])
def test_rules_that_are_none(change: dict[str, float]) -> None:
    with pytest.raises(SpecError):
        VerdictRule(**({"bias": 0.0, "excess": 1.0, "log_probability": 1.0, "source": "x"} | change))  # type: ignore[arg-type]


def test_a_rule_is_kept_in_a_file(tmp_path: Path) -> None:
    assert VerdictRule.load(RULE.save(tmp_path / "rule.json")) == RULE
    for text in ("", "[]", "{}", '{"source": "x", "bias": "y"}', '{"source": "x", "bias": 1, "more": 2}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(FileError, match="no verdict rule"):
            VerdictRule.load(tmp_path / "bad.json")
    with pytest.raises(FileError):
        VerdictRule.load(tmp_path / "none.json")


@pytest.mark.parametrize("seed", range(3))
def test_the_fit_is_the_minimum_that_a_plain_search_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal([1, -3], [2, 0.3], (60, 2))
    y = (rng.random(60) < 1 / (1 + np.exp(-(x[:, 0] + 2 * x[:, 1] + 5)))).astype(float)
    z = (x - x.mean(axis=0)) / x.std(axis=0)

    def loss(w: np.ndarray) -> float:
        score = w[0] + z @ w[1:]
        return float(np.logaddexp(0, -np.where(y > 0, score, -score)).sum() + (w[1:] @ w[1:] + 1e-3 * w[0] ** 2) / 2)

    best = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-9}).x
    bias, weights = logistic(x, y)
    assert weights == pytest.approx(best[1:] / x.std(axis=0), abs=1e-5)
    assert bias == pytest.approx(best[0] - best[1:] @ (x.mean(axis=0) / x.std(axis=0)), abs=1e-4)


def test_fitted_rules_tell_the_kinds_apart() -> None:
    good, bad = [evidence(d, -0.1) for d in (2, 3, 4, 5)], [evidence(d, -0.1) for d in (-1, 0, 0.2, 0.5)]
    rule = fit_verdict([*good, *bad], [True] * 4 + [False] * 4, source="by hand")
    assert min(map(rule.chance, good)) > 0.5 > max(map(rule.chance, bad))
    assert (rule.source, rule.log_probability) == ("by hand", pytest.approx(0.0, abs=1e-9))


def test_what_cannot_be_fitted() -> None:
    for cases, outcomes in (([], []), ([evidence(1)], []), ([evidence(1)] * 2, [True, True])):
        with pytest.raises(SpecError):
            fit_verdict(cases, outcomes, source="x")
    with pytest.raises(MapError, match="log-probability"):
        fit_verdict([evidence(1, math.nan), evidence(1)], [True, False], source="x")


def test_reliability_by_hand() -> None:
    found = reliability([0.1, 0.2, 0.9, 1.0], [0, 1, 1, 1], bins=2)
    assert (found.told, found.true, found.counts) == (pytest.approx((0.15, 0.95)), (0.5, 1.0), (2, 2))
    assert found.error == pytest.approx((0.35 + 0.05) / 2)
    assert reliability([0.0, 1.0], [0, 1]).error == 0
    for chances, outcomes in (([], []), ([0.5], [1, 0]), ([1.1], [1]), ([math.nan], [1])):
        with pytest.raises(SpecError):
            reliability(chances, outcomes)


def overlap(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


@given(st.integers(1, 400), st.integers(1, 400), st.floats(0, 1), st.floats(0, 1), st.integers(0, 9))
@settings(max_examples=80, deadline=None)
def test_squares(width: int, height: int, x: float, y: float, seed: int) -> None:
    peak = (x * width, y * height)
    found = squares((width, height), peak, rng=np.random.default_rng(seed))
    first = found[0]
    assert len(found) <= CONTROLS + 1
    for one in found:
        assert 0 <= one[0] < one[2] <= width
        assert 0 <= one[1] < one[3] <= height
        assert (one[2] - one[0], one[3] - one[1]) == (first[2] - first[0], first[3] - first[1])
    area = (first[2] - first[0]) * (first[3] - first[1])
    assert all(overlap(first, one) <= 0.1 * area for one in found[1:])
    assert first[0] <= min(peak[0] + 0.5, width)
    assert first[2] >= peak[0] - 0.5
    if min(width, height) >= 30:
        assert area / (width * height) == pytest.approx(REGION, rel=0.15)


def test_thin_pictures_lose_as_much_as_square_ones() -> None:
    found = squares((1000, 10), (500, 5), rng=np.random.default_rng(0))
    assert found[0] == (430, 0, 570, 10)
    assert len(found) == CONTROLS + 1
    assert squares((1, 1), (0.5, 0.5), rng=np.random.default_rng(0)) == [(0, 0, 1, 1)]
    with pytest.raises(SpecError):
        squares((9, 9), (1, 1), share=1.0, rng=np.random.default_rng(0))


def test_boxes_are_painted_as_they_are() -> None:
    (mask,) = boxes_as_masks((4, 2), [(1, 0, 3, 1)])
    assert mask.astype(int).tolist() == [[0, 1, 1, 0], [0, 0, 0, 0]]
