"""``vlmattn sinks`` and ``vlmattn map --sinks``: what they print, write and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import vlmattn as va
from vlmattn.cli import main
from vlmattn.overlay import load_map, read_provenance
from vlmattn.scene.box import SINK_PATCHES, with_sinks
from vlmattn.sinks import SinkCoordinates

QUESTION = "How many objects are there?"


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    va.scene.make_scene(0).image.save(path)
    return str(path)


@pytest.fixture
def calibration(tmp_path: Path) -> str:
    model, planted = with_sinks(va.load("scene").model, "scene-sinks")
    width = model.config.text_config.hidden_size
    where = SinkCoordinates(planted.coordinates, width, tau_relative=0.15, first_layer=1, source="planted")
    return str(where.save(tmp_path / "where.json"))


def places() -> list[tuple[int, int]]:
    """Row and column of the patches that sinks were planted on."""
    scene = va.scene.make_scene(0)
    columns = va.load("scene").plan(scene.image, QUESTION)[0].images[0].tiles[0].grid_hw[1]
    return [divmod(patch, columns) for patch in SINK_PATCHES]


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
    for patch in places():
        assert "patch tile 0 row {} column {} of picture 0".format(*patch) in printed
    assert f"wrote {out}" in printed
    assert any("sinks: phi above" in step for step in read_provenance(out)["provenance"]["steps"])
    code, printed, _ = told([*common, "--layers", "1,-1", "--json", "--out", str(tmp_path / "sinks.npz")], capsys)
    record = json.loads(printed)
    assert [(t["row"], t["col"]) for t in record["sinks"]["tokens"]] == places()
    assert list(record["sinks"]["cut"]) == ["1", str(va.load("scene").model.config.text_config.num_hidden_layers - 1)]
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
        (["--tau", "20", "--tau-relative", "0.3"], "not both"),
        (["--coordinates", "9000"], "coordinates must be"),
        (["--layers", "99"], "do not exist; this model has 0 to"),
        (["--rule", "received", "--alpha", "0"], "alpha must be"),
        (["--out", "sinks.txt"], "no known ending"),
        (["--fps", "2"], "no video was given"),
        (["--picture", "2"], "--picture 2 does not exist"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2_before_anything_runs(
    picture: str,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(va.Vlm, "run", None)
    code, _, error = told(["sinks", picture, QUESTION, "--max-new-tokens", "1", *arguments], capsys)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1


def test_a_calibration_of_another_model_is_refused(
    picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(va.Vlm, "run", None)
    path = SinkCoordinates((3,), 64).save(tmp_path / "where.json")
    code, _, error = told(["sinks", picture, QUESTION, "--calibration", str(path)], capsys)
    assert (code, error.count("\n")) == (2, 1)
    assert "a width of 64 do not fit this model's" in error


def test_a_video_is_drawn_frame_by_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.tiny import TINY

    clip = tmp_path / "clip"
    clip.mkdir()
    for number in range(4):
        va.scene.make_scene(0).image.save(clip / f"{number}.png")
    vlm = va.load(*TINY["qwen2_vl"]())
    monkeypatch.setattr("vlmattn.cli.sinks.load_model", lambda *_: vlm)
    given = ["sinks", str(clip), QUESTION, "--coordinates", "1,3", "--tau-relative", "0.15", "--max-new-tokens", "1"]
    out = tmp_path / "sinks.png"
    code, printed, _ = told([*given, "--frames", "4", "--out", str(out)], capsys)
    assert (code, out.is_file()) == (0, True)
    assert f"wrote {out}" in printed
    monkeypatch.setattr(va.Vlm, "run", None)
    code, _, error = told([*given, "--out", str(tmp_path / "sinks.npz")], capsys)
    assert code == 2
    assert "is a video: write a picture or JSON" in error


def test_a_picture_of_no_sinks_says_so(picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "none.json"
    code, printed, _ = told(["sinks", picture, QUESTION, "--layers", "0", "--json", "--out", str(out)], capsys)
    record = json.loads(printed)["sinks"]
    assert code == 0
    assert record["tokens"] == []
    assert record["said"].startswith("no sinks: no sink coordinates")
    assert list(record["cut"]) == ["0"]
    assert json.loads(out.read_text(encoding="utf-8"))["flat"]


def test_map_refuses_other_words_for_sinks(picture: str, capsys: Any) -> None:
    code, _, error = told(["map", picture, QUESTION, "--sinks", "most"], capsys)
    assert (code, error.count("\n")) == (2, 1)
    assert "--sinks must be one of" in error
