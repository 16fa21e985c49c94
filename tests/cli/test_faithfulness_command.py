"""``vlmattn faithfulness`` and ``vlmattn ask --ground``: what they print and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vlmattn as va
from vlmattn.cli import main

QUESTION = "Which color is the square?"


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    va.scene.split_item("test", 0, 0)[0].image.save(path)
    return str(path)


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as done:
        main(arguments)
    return (int(done.value.code or 0), *capsys.readouterr())


def test_faithfulness_is_printed_and_told_to_machines(picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["faithfulness", picture, QUESTION, "blue", "--metrics", "deletion,sufficiency", "--layers", "1"]
    code, printed, _ = told(common, capsys)
    assert code == 0
    assert printed.splitlines()[0] == "blue"
    assert [line.split()[0] for line in printed.splitlines()[2:]] == ["deletion", "sufficiency"]
    code, printed, _ = told([*common, "--json"], capsys)
    assert code == 0
    found = json.loads(printed)
    assert found["word"] == "blue"
    assert set(found["scores"]) == {"deletion", "sufficiency"}
    assert found["scores"]["deletion"] < 0.7


def test_verdicts_are_printed_and_told_to_machines(picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["ask", picture, QUESTION, "--ground"]
    code, printed, _ = told(common, capsys)
    assert code == 0
    assert "verdict" in printed.splitlines()[1]
    assert "supported from a chance of" in printed
    code, printed, _ = told([*common, "--json"], capsys)
    (word,) = json.loads(printed)["words"]
    assert word["verdict"] in ("supported", "unsupported", "unclear")
    assert word["evidence"]["excess"] > 1
    code, printed, _ = told(["ask", picture, QUESTION], capsys)
    assert "verdict" not in printed


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--metrics", "deletion,beauty"], "--metrics must be some of deletion"),
        (["--baseline", "white"], "--baseline must be one of mean"),
        (["--picture", "1"], "--picture 1 does not exist"),
        (["--method", "guess"], "--method must be one of"),
        ([" "], "the word to look for is empty"),
        (["zebra"], "zebra"),
    ],
)
def test_refused_in_one_line(picture: str, more: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, line = told(["faithfulness", picture, QUESTION, *more], capsys)
    assert code == 2
    assert says in line
    assert len(line.splitlines()) == 1


def test_a_missing_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(["faithfulness", str(tmp_path / "none.png"), QUESTION], capsys)[0] == 2
