"""The command line: what it prints, what it writes, how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from skimage import data

from vlmattn.cli import main

QUESTION = "Is there a red circle in the picture?"


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("photo") / "coffee.png"
    Image.fromarray(data.coffee()).save(path)
    return str(path)


class Told:
    """Exit code and output of one command, run inside this process."""

    def __init__(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        capsys.readouterr()
        with pytest.raises(SystemExit) as done:
            main(arguments)
        self.code = 0 if done.value.code is None else done.value.code
        self.out, self.err = capsys.readouterr()

    @property
    def record(self) -> Any:
        return json.loads(self.out)


@pytest.mark.parametrize("command", [[], ["demo"], ["ask"], ["map"], ["models"], ["verify"], ["scenes"]])
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    told = Told([*command, "--help"], capsys)
    assert told.code == 0
    assert "Usage" in told.out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert Told(["--version"], capsys).out.startswith("vlmattn 0.")


def test_ask(photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "looks"
    told = Told(["ask", photo, QUESTION, "--answer", "no red cup", "--out", str(out)], capsys)
    assert told.code == 0
    assert told.out.startswith("no red cup")
    assert sorted(p.name for p in out.iterdir()) == ["00-no.png", "01-red.png", "02-cup.png", "answer.png"]
    record = Told(["ask", photo, QUESTION, "--json"], capsys).record
    assert record["question"] == QUESTION
    assert record["provenance"]["model"] == "scene"
    assert Told(["ask", photo, QUESTION, "-q"], capsys).out == ""


@pytest.mark.parametrize("ending", ["png", "webp", "jpg", "npz", "json"])
def test_map(photo: str, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / f"map.{ending}"
    told = Told(["map", photo, QUESTION, "circle", "-o", str(file), "--layers", "1-2", "--json"], capsys)
    assert told.code == 0
    assert file.stat().st_size > 100
    assert told.record["label"] == "circle"
    assert told.record["image_wh"] == [600, 400]


@pytest.mark.parametrize("options", [["--layers", "vicrop"], ["--method", "value"], ["--method", "relative"]])
def test_map_options(photo: str, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    told = Told(["map", photo, QUESTION, "red", *options, "-o", str(tmp_path / "m.png")], capsys)
    assert told.code == 0
    assert "red: peak at" in told.out


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert "llava_next" in Told(["models"], capsys).out
    assert {r["name"] for r in Told(["models", "--json"], capsys).record} >= {"llava", "llava_onevision"}


def test_verify(photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "passed: " in Told(["verify", photo], capsys).out
    assert Told(["verify", "--json"], capsys).record["passed"] is True


def test_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out"
    assert Told(["scenes", str(folder), "--count", "2", "--json"], capsys).record["count"] == 2
    assert len(list((folder / "images").iterdir())) == 2
    assert Told(["scenes", str(folder), "--count", "2", "-q"], capsys).out == ""


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = Told(["demo", "--out", str(tmp_path / "demo"), "--json"], capsys)
    assert told.code == 0
    assert len(told.record["asked"]) == 3
    assert sorted(p.suffix for p in (tmp_path / "demo").iterdir()) == [".png"] * 4


def test_unwritable_places_and_foreign_folders(photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    for command in (
        ["map", photo, QUESTION, "-o", str(tmp_path / "none" / "m.png"), "--answer", "yes"],
        ["scenes", str(tmp_path), "--count", "1"],
        ["demo", "--out", str(tmp_path / "file")],
    ):
        told = Told(command, capsys)
        assert told.code == 2, command
        assert told.err.startswith("vlmattn: ")
        assert told.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", "missing.jpg", "what?"], "missing.jpg does not exist"),
        (["ask", "{photo}", " "], "empty"),
        (["ask", "{photo}", "where is <image>?"], "<image>"),
        (["ask", "{photo}", "word " * 600], "512 positions"),
        (["ask", "{photo}", "what?", "--model", "./nowhere"], "does not exist"),
        (["ask", "{photo}", "what?", "--dtype", "float3"], "float3"),
        (["ask", "{text}", "what?"], "not a picture"),
        (["ask", "{cut}", "what?"], "cut"),
        (["map", "{photo}", QUESTION, "mug"], "'mug' does not occur"),
        (["map", "{photo}", QUESTION, "--layers", "9"], "layers [9]"),
        (["map", "{photo}", QUESTION, "--layers", "best"], "layer preset 'best'"),
        (["map", "{photo}", QUESTION, "--layers", "1,x2"], "--layers must be numbers"),
        (["map", "{photo}", QUESTION, "--heads", "77"], "heads [77]"),
        (["map", "{photo}", QUESTION, "--method", "gradcam"], "raw, value, relative"),
        (["map", "{photo}", QUESTION, "--normalise", "softmax"], "normalisation"),
        (["map", "{photo}", QUESTION, "-o", "map.bmp"], "no known ending"),
        (["scenes", "somewhere", "--split", "nothing"], "splits are"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    photo: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "cut.png").write_bytes(Path(photo).read_bytes()[:5000])
    places = {"photo": photo, "text": "text.txt", "cut": "cut.png"}
    given = [places[a[1:-1]] if a[1:-1] in places and a.startswith("{") else a for a in arguments]
    told = Told(given, capsys)
    assert told.code == 2
    assert message in told.err
    assert told.err.count("\n") == 1
    assert "Traceback" not in told.err
    assert told.out == ""
    assert not (tmp_path / "map.png").exists()


def test_it_runs_as_a_module_and_leaves_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vlmattn", "ask", "missing.jpg", "what?"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "vlmattn: missing.jpg does not exist\n"
