"""Detectors and calibrations on words whose truth is planted; files; and what refuses."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from vlmattn.core.errors import FileError, SpecError
from vlmattn.detection import (
    RULES,
    Calibration,
    Detector,
    MentionTable,
    ModelKey,
    fit_calibration,
    fit_detector,
    held_out_scores,
    joined,
)

MODEL = ModelKey("toy", "llava", 4, (2, 2, 2, 2), 8)


def table(count: int = 240, seed: int = 0, first: int = 0, strength: float = 2.0) -> MentionTable:
    """Four words a picture; the first feature, and the score ``told``, are moved where a word is made up."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(count) < 0.3
    x = rng.normal(size=(count, 6)).astype(np.float32)
    x[:, 0] += strength * wrong
    return MentionTable(
        MODEL,
        tuple(f"p{first + n // 4}" for n in range(count)),
        tuple(f"w{n}" for n in range(count)),
        np.arange(count) % 4,
        wrong,
        {"nll": rng.normal(size=count), "svar": x[:, 0].astype(np.float64)},
        {"heads": x, "states:2": x},
    )


def ranks(scores: np.ndarray, wrong: np.ndarray) -> float:
    return float((scores[wrong][:, None] > scores[~wrong][None]).mean())


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("features", ["heads", "scores:nll,svar"])
def test_what_is_planted_is_found_on_other_pictures(rule: str, features: str) -> None:
    fit, test = table(), table(seed=1, first=1000)
    made = fit_detector(fit, rule=rule, features=features)  # type: ignore[arg-type]
    made.check_apart(test)
    assert ranks(made.scores(test), test.hallucinated_n) > 0.8
    risk = made.risk(test)
    assert ((risk >= 0) & (risk <= 1)).all()
    assert risk[test.hallucinated_n].mean() > risk[~test.hallucinated_n].mean() + 0.2
    assert abs(risk.mean() - test.hallucinated_n.mean()) < 0.1


def test_noise_is_not_found() -> None:
    fit, test = table(strength=0.0), table(seed=1, first=1000, strength=0.0)
    assert abs(ranks(fit_detector(fit).scores(test), test.hallucinated_n) - 0.5) < 0.1


def test_the_logistic_rule_is_the_least_of_its_loss() -> None:
    fit = table()
    made = fit_detector(fit, ridge=3.0)
    z = (fit.features["heads"] - made.arrays["centre"]) / made.arrays["spread"]
    y = fit.hallucinated_n

    def loss(w: np.ndarray) -> float:
        score = z @ w[1:] + w[0]
        return float(np.logaddexp(0, np.where(y, -score, score)).sum() + 1.5 * (w[1:] ** 2).sum() + 5e-4 * w[0] ** 2)

    best = minimize(loss, np.zeros(7), tol=1e-12).x
    np.testing.assert_allclose(made.arrays["weights"], best[1:], atol=1e-4)
    assert made.arrays["bias"][0] == pytest.approx(best[0], abs=1e-4)


def test_the_direction_is_that_between_the_means() -> None:
    fit = table()
    made = fit_detector(fit, rule="direction")
    z = (fit.features["heads"] - fit.features["heads"].mean(0)) / fit.features["heads"].astype(np.float64).std(0)
    wanted = z[fit.hallucinated_n].mean(0) - z[~fit.hallucinated_n].mean(0)
    np.testing.assert_allclose(made.arrays["weights"], wanted, atol=1e-5)


def test_neighbours_vote_as_by_hand() -> None:
    fit, test = table(80), table(8, seed=5, first=900)
    made = fit_detector(fit, rule="neighbours")

    def unit(x: np.ndarray) -> np.ndarray:
        z = (x - made.arrays["centre"]) / made.arrays["spread"]
        return np.asarray(z / np.linalg.norm(z, axis=1, keepdims=True))

    def vote(near: list[tuple[float, float]]) -> float:
        best = sorted(near, reverse=True)[:15]
        return sum(np.exp(s) * y for s, y in best) / sum(np.exp(s) for s, _ in best)

    x, y = unit(fit.features["heads"]), fit.hallucinated_n.astype(float)
    labels = [0.5 * y[a] + 0.5 * vote([(float(x[a] @ x[b]), y[b]) for b in range(80) if b != a]) for a in range(80)]
    wanted = [vote([(float(q @ x[b]), labels[b]) for b in range(80)]) for q in unit(test.features["heads"])]
    np.testing.assert_allclose(made.scores(test), wanted, atol=1e-10)


def test_held_out_scores_never_saw_the_picture() -> None:
    fit = table(120)
    held = held_out_scores(fit, folds=5)
    # A word whose truth is turned round changes nothing for the words of its own picture.
    turned = fit.hallucinated_n.copy()
    turned[0] = ~turned[0]
    other = held_out_scores(dataclasses.replace(fit, hallucinated_n=turned), folds=5)
    np.testing.assert_array_equal(held[:4], other[:4])
    assert (held[4:] != other[4:]).any()


def test_a_detector_comes_back_from_its_file(tmp_path: Path) -> None:
    fit, test = table(), table(seed=1, first=1000)
    for rule in RULES:
        made = fit_detector(fit, rule=rule, source="toy words")  # type: ignore[arg-type]
        again = Detector.load(made.save(tmp_path / f"{rule}.safetensors"))
        np.testing.assert_array_equal(again.risk(test), made.risk(test))
        assert again.manifest == made.manifest
        assert again.told == made.told
        assert "240 words of 60 pictures (toy words), 5 folds of pictures" in again.told


def test_a_table_comes_back_from_its_file(tmp_path: Path) -> None:
    one = table(20)
    again = MentionTable.load(one.save(tmp_path / "t.safetensors"))
    assert (again.model, again.images, again.words) == (one.model, one.images, one.words)
    np.testing.assert_array_equal(again.scores["svar"], one.scores["svar"])
    np.testing.assert_array_equal(again.features["heads"], one.features["heads"])
    both = joined([one, table(8, first=50)])
    assert len(both) == 28
    assert set(both.of_images(["p50"]).images) == {"p50"}


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    place = table(8).save(tmp_path / "t.safetensors")
    with pytest.raises(FileError, match="holds no vlmattn detector"):
        Detector.load(place)
    whole = fit_detector(table()).save(tmp_path / "d.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    for name in ("half.safetensors", "none.safetensors"):
        with pytest.raises(FileError, match="cannot read a vlmattn detector"):
            Detector.load(tmp_path / name)


def test_other_models_features_and_pictures_are_refused() -> None:
    made = fit_detector(table())
    test = table(seed=1, first=1000)
    other = dataclasses.replace(test, model=dataclasses.replace(MODEL, name="another"))
    with pytest.raises(SpecError, match=r"fitted on 'toy' .* these words are of 'another'"):
        made.scores(other)
    with pytest.raises(SpecError, match=r"features 'heads' were not kept of these words .kept: states:2"):
        made.scores(dataclasses.replace(test, features={"states:2": test.features["states:2"]}))
    with pytest.raises(SpecError, match="reads 6 features of 'heads', got 5"):
        made.scores(dataclasses.replace(test, features={"heads": test.features["heads"][:, :5]}))
    with pytest.raises(SpecError, match=r"scores \['glsim'\] were not made"):
        fit_detector(table(), features="scores:nll,glsim")
    with pytest.raises(SpecError, match="1 pictures, such as 'p3', were there when this detector was fitted"):
        made.check_apart(table(4, first=3))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rule": "forest"}, "rule must be one of logistic"),
        ({"features": "eyes"}, "features 'eyes' were not kept"),
        ({"folds": 1}, "folds must be from 2"),
        ({"folds": 1000}, "folds must be from 2 to the 60 pictures"),
    ],
)
def test_what_cannot_be_fitted_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        fit_detector(table(), **options)  # type: ignore[arg-type]


def test_one_outcome_cannot_be_fitted() -> None:
    one = dataclasses.replace(table(), hallucinated_n=np.zeros(240, dtype=bool))
    with pytest.raises(SpecError, match="one outcome"):
        fit_detector(one)
    with pytest.raises(SpecError, match="one outcome"):
        fit_calibration("nll", [1.0, 2.0], [True, True], source="")
    with pytest.raises(SpecError, match="lengths"):
        dataclasses.replace(table(), words=("a",))


def test_words_whose_score_is_not_defined_are_left_out() -> None:
    fit = table()
    fit.scores["svar"][:10] = np.nan
    made = fit_detector(fit, features="scores:svar")
    assert made.manifest["words"] == 230
    assert np.isnan(made.risk(fit)[:10]).all()
    assert np.isfinite(made.risk(fit)[10:]).all()


def test_a_calibration_tells_shares_that_come_true(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    score = rng.normal(size=4000)
    wrong = rng.random(4000) < 1 / (1 + np.exp(-(2 * score - 1)))
    made = fit_calibration("nll", score, wrong.tolist(), source="drawn")
    assert (made.slope, made.bias) == (pytest.approx(2, abs=0.2), pytest.approx(-1, abs=0.15))
    for low in (0.2, 0.4, 0.6):
        inside = (made.risk(score) > low) & (made.risk(score) < low + 0.2)
        assert wrong[inside].mean() == pytest.approx(low + 0.1, abs=0.05)
    assert Calibration.load(made.save(tmp_path / "c.json")) == made
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(FileError, match="holds no calibration"):
        Calibration.load(tmp_path / "bad.json")
    with pytest.raises(SpecError, match="must be finite"):
        Calibration("nll", float("nan"), 0.0, "")


@pytest.mark.parametrize("name", ["agreement", "calibration", "preliminary"])
def test_examples(name: str) -> None:
    importlib.import_module(f"vlmattn.detection.{name}")
    result = doctest.testmod(sys.modules[f"vlmattn.detection.{name}"])
    assert result.attempted > 0
    assert result.failed == 0
