"""``vlmattn sinks`` and ``vlmattn map --sinks``: what they print, write and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import vlmattn as va
from vlmattn.cli import main
from vlmattn.overlay import load_map, read_provenance
from vlmattn.scene.box import with_sinks
from vlmattn.sinks import SinkCoordinates

QUESTION = "How many objects are there?"


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    va.scene.make_scene(0).image.save(path)
    return str(path)


@pytest.fixture
def calibration(tmp_path: Path) -> str:
    _, planted = with_sinks(va.load("scene").model, "scene-sinks")
    where = SinkCoordinates(planted.coordinates, 192, tau_relative=0.15, first_layer=1, source="planted")
    return str(where.save(tmp_path / "where.json"))


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as done:
        main(arguments)
    return (int(done.value.code or 0), *capsys.readouterr())


def test_sinks_are_printed_drawn_and_told_to_machines(
    picture: str, calibration: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [
        "sinks",
        picture,
        QUESTION,
        "--model",
        "scene-sinks",
        "--calibration",
        calibration,
        "--max-new-tokens",
        "2",
    ]
    out = tmp_path / "sinks.png"
    code, printed, _ = told([*common, "--out", str(out)], capsys)
    assert code == 0
    assert "patch tile 0 row 7 column 7 of picture 0" in printed
    assert f"wrote {out}" in printed
    assert any("sinks: phi above" in step for step in read_provenance(out)["provenance"]["steps"])
    code, printed, _ = told([*common, "--layers", "2,-1", "--json", "--out", str(tmp_path / "sinks.npz")], capsys)
    record = json.loads(printed)
    assert [t["row"] for t in record["sinks"]["tokens"]] == [0, 7]
    assert list(record["sinks"]["cut"]) == ["2", "3"]
    assert load_map(tmp_path / "sinks.npz").label == "phi of sinks"
    assert told([*common, "-q"], capsys)[1] == ""


def test_a_calibration_is_written_and_no_sinks_are_said(
    picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "none.json"
    code, printed, _ = told(["sinks", picture, QUESTION, "--save-calibration", str(file)], capsys)
    assert code == 0
    assert "no sinks found" in printed
    assert not SinkCoordinates.load(file).found


def test_received_attention(picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["sinks", picture, QUESTION, "-m", "scene-sinks", "--rule", "received", "--alpha", "8", "--json"]
    code, printed, _ = told(given, capsys)
    assert code == 0
    assert {"massive", "received"} & {json.loads(printed)["sinks"]["rule"]} == {"received"}


def test_maps_without_sinks(picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "map.png"
    given = [
        "map",
        picture,
        QUESTION,
        "objects",
        "-m",
        "scene-sinks",
        "--sinks",
        "drop",
        "--layers",
        "1",
        "-o",
        str(out),
    ]
    assert told(given, capsys)[0] == 0
    assert any("left out" in step for step in read_provenance(out)["provenance"]["steps"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rule", "other"], "--rule must be massive or received"),
        (["--rule", "received", "--tau", "3"], "--tau does not go with"),
        (["--alpha", "3"], "--alpha does not go with"),
        (["--coordinates", "x"], "--coordinates must be numbers"),
        (["--coordinates", "1", "--save-calibration", "x.json"], "give one of"),
        (["--calibration", "missing.json"], "cannot read sink coordinates"),
        (["--rule", "received", "--save-calibration", "x.json"], "does not go with --rule received"),
        (["--tau", "20", "--coordinates", "3"], "at most the root of the width"),
        (["--coordinates", "500"], "coordinates must be"),
        (["--layers", "9", "--coordinates", "3"], "not kept"),
        (["--out", "sinks.txt"], "no known ending"),
        (["--picture", "2"], "--picture 2 does not exist"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(
    picture: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = told(["sinks", picture, QUESTION, "--max-new-tokens", "1", *arguments], capsys)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1


def test_map_refuses_other_words_for_sinks(picture: str, capsys: Any) -> None:
    code, _, error = told(["map", picture, QUESTION, "--sinks", "most"], capsys)
    assert (code, error.count("\n")) == (2, 1)
    assert "--sinks must be one of" in error
