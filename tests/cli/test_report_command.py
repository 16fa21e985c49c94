"""``vlmattn report``: what it writes, and what it refuses before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import vlmattn as va
from vlmattn.cli import main
from vlmattn.report import read_report


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("photo") / "scene.png"
    va.scene.split_item("test", seed=0, index=9)[0].image.save(path)
    return str(path)


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[Any, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as done:
        main(arguments)
    return (done.value.code or 0, *capsys.readouterr())


def test_models_steering_methods_and_questions_side_by_side(
    photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run.html")
    command = ["report", photo, "How many objects are there?", "--question", "Is there a star?", "--out", out]
    command += ["--compare", "value", "--steering", "pai:alpha=0.3,first_layer=1", "--max-new-tokens", "3", "--json"]
    code, said, _ = told(command, capsys)
    assert code == 0
    assert json.loads(said)["file"] == out
    panels = read_report(out)["panels"]
    assert [(p["title"], p["method"]) for p in panels[:4]] == [
        ("scene", "raw attention"), ("scene", "value-weighted attention"),
        ("scene + PAI", "raw attention"), ("scene + PAI", "value-weighted attention"),
    ]  # fmt: skip
    assert len(panels) == 8
    assert len(read_report(out)["pictures"]) == 1


def test_it_says_what_it_wrote(photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run.html")
    code, said, _ = told(
        ["report", photo, "Is there a star?", "--heads", "pointing", "-o", out, "--title", "A star"], capsys
    )
    assert code == 0
    assert said.endswith(f"wrote {out}\n")
    held = read_report(out)
    assert held["title"] == "A star"
    assert [v["heads"] for v in held["panels"][0]["views"]] == ["all", "pointing"]


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--out", "run.pdf"], "must end in .html"),
        (["--out", ".html"], "must end in .html"),
        (["--out", "absent/run.html"], "cannot write"),
        (["--compare", "psychic"], "--method must be one of"),
        (["--steering", "psychic"], "steering 'psychic' does not exist"),
        (["--colours", "rainbow"], "colour map 'rainbow' does not exist"),
        (["--question", " "], "empty"),
        (["--model", "a", "--model", "b", "--detector", "x.npz"], "one --model"),
        (["--heads", "psychic"], "head preset 'psychic' does not exist"),
        (["-m", "a"] + ["-m", "b"] * 24, "25 panels, and a page shows at most 24"),
    ],
)
def test_what_cannot_be_is_one_line(
    options: list[str], reason: str, photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said, error = told(["report", photo, "Is there a star?", *options], capsys)
    assert (code, said) == (2, "")
    assert reason in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
