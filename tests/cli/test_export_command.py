"""``vlmattn export``: what it writes, what it prints, what it refuses before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import vlmattn as va
from vlmattn.cli import main
from vlmattn.core.videos import FILMS
from vlmattn.export import load_table

QUESTION = "How many objects are there?"


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("scene") / "szene ö.png"
    va.scene.make_scene(0).image.save(path)
    return str(path)


@pytest.fixture(scope="module")
def saved(picture: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("saved") / "run.safetensors"
    assert ran(picture, QUESTION, "--answer", "two red circles", "-o", str(path), "-q") == 0
    return str(path)


def ran(*args: str) -> Any:
    with pytest.raises(SystemExit) as done:
        main(["export", *args])
    return done.value.code


def test_from_a_picture(picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "f.pdf"
    given = ("--answer", "two", "--over", "layers", "--layers", "1-2", "--size", "double")
    assert ran(picture, QUESTION, "objects", "many", *given, "-o", str(out)) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    assert out.read_bytes().startswith(b"%PDF")


def test_from_a_saved_run(saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert ran(saved, "red", "red circles", "-f", "cvat", "--most", "2", "-o", str(out), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["answer"] == "two red circles"
    assert told["files"] == [str(out / "annotations.xml"), str(out / "images" / "szene ö.png")]
    assert ran(saved, "-o", str(tmp_path / "w.parquet")) == 0
    assert load_table(tmp_path / "w.parquet")[0]["word"].to_pylist() == ["two", "red", "circles"]
    assert ran(saved, "-o", str(tmp_path / "a.gif"), "--rate", "5", "--max-side", "100", "-q") == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["-o", "x.docx"], "does not say a format"),
        (["-o", "x.pdf", "-f", "trace"], "format 'trace' is written as .safetensors"),
        (["-o", "x", "-f", "yolo"], "format must be one of figure, animation, coco"),
        (["-o", "x", "-f", "coco", "--rate", "3"], "--rate goes with --format animation, and this writes coco"),
        (["-o", "x.pdf", "--quantile", "0.5"], "--quantile goes with --format coco or cvat"),
        (["-o", "x.parquet", "red"], "takes all words of the answer: leave out red"),
        (["-o", "x.pdf", " "], "a word to look for is empty"),
        (["-o", "absent/x.pdf"], "cannot write"),
        (["-o", "x.pdf", "--method", "x"], "--method must be one of"),
        (["-o", "x.pdf", "--image", "other.png"], "is a saved run, which has its pictures"),
        (["-o", "x.pdf", "cat"], "'cat' does not occur"),
        (["-o", "x.pdf", "red", "--methods", "raw,rollout"], "loaded from a file, without its model"),
        (["-o", "x.pdf", "red", "--size", "huge"], "size must be 'single'"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    saved: str, more: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert ran(saved, *more) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_saved_run_is_no_film() -> None:
    assert ".safetensors" not in FILMS


def test_a_question_is_needed_for_a_picture(picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(picture, "-o", "x.pdf") == 2
    assert "question" in capsys.readouterr().err
