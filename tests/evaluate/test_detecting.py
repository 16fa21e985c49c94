"""What is measured of detection: planted words, parts that are kept, and the page and command that tell it."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vlmattn as va
from tests.detection.test_detectors import table
from vlmattn.cli.main import main
from vlmattn.core.errors import SpecError
from vlmattn.evaluate import DetectionPlan, detection_markdown, measure_detection
from vlmattn.evaluate.detecting import collect
from vlmattn.evaluate.detection_rows import report_of, short_name

SMALL = DetectionPlan(splits=("adversarial",), scenes=6, draws=20)


@lru_cache(maxsize=1)
def prior() -> va.Vlm:
    return va.load("scene-prior")


def test_what_is_planted_wins_and_noise_does_not() -> None:
    report, best = report_of(table(400), table(400, seed=1, first=1000), DetectionPlan(draws=100))
    assert (report.words, report.hallucinated) == (400, int(table(400, seed=1).hallucinated_n.sum()))
    assert best.name == report.best
    told = report.row(report.best)
    assert told.fitted
    assert told.auroc["stratified"][0] > 0.85
    assert told.auroc["difference"][1] > 0.2
    assert told.chosen == max(row.chosen for row in report.rows if row.chosen is not None)
    noise = report.row("nll")
    assert noise.auroc["stratified"][0] == pytest.approx(0.5, abs=0.1)
    assert noise.auroc["difference"] == (0.0, 0.0, 0.0)
    assert report.row("position only").auroc["stratified"][0] == 0.5
    assert told.error < 0.1
    with pytest.raises(SpecError, match="there is no row"):
        report.row("charm")


def test_the_page_tells_the_numbers() -> None:
    report, _ = report_of(table(400), table(400, seed=1, first=1000), DetectionPlan(draws=100))
    page = detection_markdown([report], "a command")
    value = report.row(report.best).auroc["stratified"][0]
    assert "Written by `a command`" in page
    assert f"{value:.3f}" in page
    assert "beats token probability" in page
    assert page.count("\n| ") > 10
    json.dumps(report.to_dict(), allow_nan=False)
    noise, _ = report_of(table(strength=0.0), table(seed=1, first=1000, strength=0.0), DetectionPlan(draws=100))
    assert "cannot be told apart from token probability" in detection_markdown([noise], "x")
    assert short_name("logistic on scores:a,b,c,d,e") == "logistic on all scores"


def test_pictures_that_were_fitted_on_are_not_measured_on() -> None:
    with pytest.raises(SpecError, match="were there when this detector was fitted"):
        report_of(table(), table(), DetectionPlan(draws=10))


def test_words_of_one_outcome_are_refused() -> None:
    fit = table()
    only = fit.where(~fit.hallucinated_n)
    with pytest.raises(SpecError, match=r"0 of .* words are made up, so nothing can be told apart"):
        report_of(fit, only, DetectionPlan(draws=10))


def test_parts_are_kept_and_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = prior()
    first = collect(vlm, SMALL, 0, tmp_path)
    assert len({name.rsplit("-", 1)[0] for name in first.images}) == 1
    (part,) = tmp_path.iterdir()

    def refuse(*_a: Any, **_k: Any) -> None:
        raise AssertionError("it was run again")

    with monkeypatch.context() as patch:
        patch.setattr(va.Vlm, "ask_many", refuse)
        again = collect(vlm, SMALL, 0, tmp_path)
    np.testing.assert_array_equal(again.scores["nll"], first.scores["nll"])
    part.write_bytes(part.read_bytes()[:100])
    mended = collect(vlm, SMALL, 0, tmp_path)
    np.testing.assert_allclose(mended.scores["nll"], first.scores["nll"])


def test_truth_is_that_of_the_scenes() -> None:
    found = collect(prior(), SMALL, 0, None)
    for image, word, wrong in zip(found.images, found.words, found.hallucinated_n, strict=True):
        scene, _ = va.scene.split_item("adversarial", 0, int(image.rsplit("-", 1)[1]))
        assert wrong == (word not in scene.names)
    claims = collect(prior(), DetectionPlan("presence", ("adversarial",), scenes=5), 0, None)
    assert set(claims.words) == {"yes"}
    assert np.isfinite(claims.scores["internal_confidence of what is asked"]).all()
    assert "lookback" not in claims.scores or np.isnan(claims.scores["lookback"]).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "poems"}, "task must be one of captions, presence"),
        ({"splits": ("nowhere",)}, "do not exist; splits are train"),
        ({"scenes": 2}, "at least 5"),
        ({"seed": 1}, "give two seeds"),
    ],
)
def test_plans_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        DetectionPlan(**options)


def test_the_command_measures_and_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, place = tmp_path / "page.md", tmp_path / "d.safetensors"
    options = ["--split", "adversarial", "--scenes", "10", "--draws", "20", "--cache", str(tmp_path / "parts")]
    with pytest.raises(SystemExit) as done:
        main(["detect", "scene-prior", *options, "--json", "--markdown", str(page), "--save", str(place)])
    assert done.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model"] == "scene-prior"
    assert {"nll", "svar", "sink_share", "position only"} <= {row["name"] for row in told["rows"]}
    assert "against token probability" in page.read_text()
    vlm = prior()
    vlm.use_detector(place)
    run = vlm.ask(va.scene.split_item("adversarial", 0, 1)[0].image, "Describe the picture.")
    assert all(one.risk is not None for one in run.detect(scores=["nll"]).objects)
    report, best = measure_detection(
        vlm, DetectionPlan(splits=("adversarial",), scenes=10, draws=20), cache=tmp_path / "parts"
    )
    assert report.to_dict() == told
    assert best.name == told["best"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--task", "poems"], "task must be one of"),
        (["--split", "nowhere"], "do not exist"),
        (["--seed", "1"], "two seeds"),
        (["--markdown", "/nowhere/page.md"], "cannot write"),
    ],
)
def test_the_command_refuses_in_one_line(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["detect", "scene-prior", *options])
    assert done.value.code == 2
    text = capsys.readouterr().err
    assert said in text
    assert text.count("\n") == 1


def test_the_deletion_test_is_one_more_score() -> None:
    from vlmattn.api.faithfulness import evidence
    from vlmattn.api.object_words import named_in
    from vlmattn.evaluate.detecting import DELETION, _words_of
    from vlmattn.faithfulness import DEFAULT_RULE

    plan = DetectionPlan(splits=("adversarial",), scenes=6, deletion=True)
    (made,) = _words_of(prior(), plan, "adversarial", 0, range(1, 2))
    run = prior().ask(va.scene.split_item("adversarial", 0, 1)[0].image, "Describe the picture.")
    wanted = []
    for one in named_in(run):
        found = evidence(run, one.span)
        wanted.append(float("nan") if found is None else 1 - DEFAULT_RULE.chance(found))
    np.testing.assert_allclose(made.scores[DELETION], wanted, atol=1e-6)
    assert made.scores[DELETION][1] > made.scores[DELETION][[0, 2]].max()  # the circle is made up
