"""``vlmattn evaluate``, and steering by name."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vlmattn.cli.main import app
from vlmattn.core.errors import SpecError
from vlmattn.evaluate import read_results
from vlmattn.steering import VAR, steering_of

ASKED = ["evaluate", "scene-presence", "--count", "3", "--max-new-tokens", "4"]


def test_a_benchmark_is_answered_scored_and_compared(tmp_path: Path) -> None:
    first = CliRunner().invoke(app, [*ASKED, "--out", str(tmp_path / "a"), "--json"])
    assert first.exit_code == 0, first.output
    told = json.loads(first.stdout)
    assert told["metrics"]["accuracy"] >= 0.8
    assert len(read_results(tmp_path / "a")) == len(told["outcomes"]["accuracy"])
    again = CliRunner().invoke(app, [*ASKED, "--out", str(tmp_path / "a"), "--json"])
    assert json.loads(again.stdout) == told
    other = [*ASKED, "--out", str(tmp_path / "b"), "--model", "scene-sinks", "--steering", "var:p=0", "-q"]
    assert CliRunner().invoke(app, other).exit_code == 0
    scores = [str(tmp_path / name / "score.json") for name in "ab"]
    found = CliRunner().invoke(app, ["compare", *scores, "--draws", "200"])
    assert found.exit_code == 0
    assert "accuracy" in found.stdout


def test_a_part_is_not_scored(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*ASKED, "--out", str(tmp_path), "--limit", "2"])
    assert done.exit_code == 0
    assert "2 answers" in done.stdout
    assert not (tmp_path / "score.json").exists()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("vax", "steering 'vax' does not exist; there are var"),
        ("var:best", "no preset 'best'; there are general"),
        ("var:q=1", "var has no setting q"),
        ("var:p=2", "p of VAR must be"),
    ],
)
def test_steering_that_does_not_exist(text: str, match: str) -> None:
    with pytest.raises(SpecError, match=match):
        steering_of(text)


def test_steering_by_name() -> None:
    wanted = {
        "var": VAR(),
        "var:general": VAR.preset("general"),
        "var:p=0.5,rho=0.4,except_last_layer=false": VAR(p=0.5, rho=0.4, except_last_layer=False),
    }
    for text, steering in wanted.items():
        assert asdict(steering_of(text)) == asdict(steering)


@pytest.mark.parametrize("value", ["do_sample", "1=2"])
def test_generation_arguments_are_pairs(tmp_path: Path, value: str) -> None:
    done = CliRunner().invoke(app, [*ASKED, "--out", str(tmp_path), "--generate", value])
    assert done.exit_code != 0
    assert isinstance(done.exception, SpecError)
    assert "NAME=VALUE" in str(done.exception)
