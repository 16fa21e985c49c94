"""``vlmattn lens``: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import vlmattn as va
from vlmattn.cli import main
from vlmattn.overlay import read_provenance

QUESTION = "How many objects are there?"


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    va.scene.make_scene(0).image.save(path)
    return str(path)


def ran(*args: str) -> Any:
    with pytest.raises(SystemExit) as done:
        main(["lens", *args])
    return done.value.code


def test_words_are_printed_and_drawn(picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "lens.png"
    assert ran(picture, QUESTION, "--layers", "1,-1", "--word", "red", "-o", str(out)) == 0
    printed = capsys.readouterr().out
    assert "layer 1: " in printed
    assert "internal confidence of 'red': 0." in printed
    assert f"wrote {out}" in printed
    assert read_provenance(out)["layer"] == 4


def test_json_holds_every_patch(picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(picture, QUESTION, "--layers", "2", "--top", "1", "--json", "--mark-sinks") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["lens"]["layers"] == [2]
    assert len(told["lens"]["words"][0]) == len(told["lens"]["patches"]) == 64
    assert told["lens"]["patches"][0]["sink"] in (True, False)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--layers", "99"], "states of layers [99] do not exist"),
        (["--layers", "x"], "--layers"),
        (["--top", "0"], "--top"),
        (["--picture", "1"], "--picture 1 does not exist"),
        (["--word", " "], "--word is empty"),
        (["-o", "words.docx"], "words.docx"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    more: list[str], message: str, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran(picture, QUESTION, *more) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert said.count("\n") == 0
