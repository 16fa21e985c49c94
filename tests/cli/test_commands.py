"""The command line: what it prints, what it writes, how it fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

import vlmattn as va
from vlmattn.cli import main
from vlmattn.cli.options import print_json
from vlmattn.cli.table import table
from vlmattn.core.errors import CaptureError
from vlmattn.overlay import load_map

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


@pytest.mark.parametrize(
    "command", [[], ["demo"], ["ask"], ["map"], ["models"], ["verify"], ["scenes"], ["sinks"], ["heads"]]
)
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


@pytest.mark.parametrize(
    "options",
    [
        *(["--layers", "vicrop"], ["--heads", "all"], ["--rows", "hgai"]),
        *(["--method", name] for name in ("value", "relative", "rollout", "flow", "gradient", "relevancy")),
        *(["--method", "gradient", "--layers", "2-3"], ["--method", "relevancy", "--heads", "0,1"]),
        ["--method", "rollout", "--sinks", "drop"],
    ],
)
def test_map_options(photo: str, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    told = Told(
        ["map", photo, QUESTION, "red", "--answer", "a red cup", *options, "-o", str(tmp_path / "m.png")], capsys
    )
    assert told.code == 0
    assert "red: peak at" in told.out


COMMANDS = ("demo", "ask", "map", "refine", "sinks", "heads", "models", "verify", "scenes", "lens", "faithfulness")
ON_BENCHMARKS = ("evaluate", "score", "compare", "detect", "gaze", "overlay", "serve", "report", "export", "app")
"""Tested by themselves."""


def test_the_table_of_commands_is_whole() -> None:
    from typer.main import get_command

    from vlmattn.cli.main import app

    assert set(get_command(app).commands) == {*COMMANDS, *ON_BENCHMARKS}  # type: ignore[attr-defined]


@pytest.mark.parametrize("flag", ["-q", "--json"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_be_quiet_and_can_speak_json(
    command: str, flag: str, photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {
        "demo": ["-o", str(tmp_path / "demo")],
        "ask": [photo, QUESTION, "--answer", "no"],
        "map": [photo, QUESTION, "red", "--answer", "no", "-o", str(tmp_path / "m.png")],
        "refine": [photo, QUESTION, "--out", str(tmp_path / "refined")],
        "sinks": [photo, QUESTION, "--answer", "no"],
        "lens": [photo, QUESTION, "--answer", "no"],
        "faithfulness": [photo, QUESTION, "--answer", "no", "--metrics", "deletion"],
        "heads": ["--image", photo, "--question", QUESTION, "--answer", "no", "--score", "mass"],
        "verify": ["--image", photo, "--no-contract"],
        "scenes": [str(tmp_path / "scenes"), "--count", "1"],
    }.get(command, [])
    told = Told([command, *arguments, flag], capsys)
    assert told.code == 0
    assert told.out == "" if flag == "-q" else told.record is not None


@pytest.mark.parametrize("name", ["PRESETS", "HEAD_PRESETS", "ROW_PRESETS"])
def test_the_presets_are_listed_with_their_papers(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    import vlmattn.maps

    presets = getattr(vlmattn.maps, name)
    helped = " ".join(Told(["map", "--help"], capsys).out.split())
    assert f"({', '.join(presets)})" in helped
    listed = Told(["models"], capsys).out
    for preset in presets.values():
        assert f"  {preset.name} " in listed
        assert preset.source in listed


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert "llava_next" in Told(["models"], capsys).out
    assert {r["model_type"] for r in Told(["models", "--json"], capsys).record} >= {"llava", "llava_onevision"}
    assert "geometry  base: stretched" in Told(["models", "qwen2_vl"], capsys).out


def test_verify(photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = Told(["verify", "scene", "--image", photo], capsys)
    assert "keeps the contract" in told.out
    assert "passed: " in told.out
    record = Told(["verify", "--model", "scene", "--json"], capsys).record
    assert record["passed"] is True
    assert record["contract"]["ok"] is True
    assert len(record["contract"]["checks"]) >= 8
    assert Told(["verify", "--no-contract", "--json"], capsys).record["contract"] is None


def test_verify_fails_where_the_contract_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlmattn.adapters import contract
    from vlmattn.adapters.contract import Check

    monkeypatch.setattr(contract, "_paint_check", lambda *_: Check("painted", 1, ("it lies elsewhere",)))
    told = Told(["verify"], capsys)
    assert told.code == 1
    assert "FAIL painted" in told.out
    assert "passed: " in told.out
    assert "breaks the contract" in told.err
    assert Told(["verify", "--json"], capsys).record["passed"] is False


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
        (["map", "{photo}", QUESTION, "--layers", "9"], "--layers 9 does not exist"),
        (["map", "{photo}", QUESTION, "--layers", "best"], "layer preset 'best'"),
        (["map", "{photo}", QUESTION, "--layers", "1,x2"], "--layers must be numbers"),
        (["map", "{photo}", QUESTION, "--heads", "77"], "--heads 77 does not exist"),
        (["map", "{photo}", QUESTION, "--heads", "ad_hh"], "is for a model of 32 layers"),
        (["map", "{photo}", QUESTION, "--rows", "best"], "row preset 'best'"),
        (["map", "{photo}", QUESTION, "--method", "gradcam"], "raw, value, relative"),
        (["map", "{photo}", QUESTION, "--method", "relevancy", "--layers", "1"], "layers goes with method="),
        (["map", "{photo}", QUESTION, "--method", "flow", "--sinks", "drop"], "no map with sinks='drop'"),
        (["map", "{photo}", QUESTION, "circle", "--method", "relevancy", "--answer", "no"], "is of the question"),
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


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("ask", ["{photo}", ""], "question is empty"),
        ("ask", ["{photo}", "what?", "--answer", " "], "given answer is empty"),
        ("ask", ["{photo}", "what?", "--method", "zork"], "--method must be one of raw, value, relative"),
        ("ask", ["{photo}", "what?", "--layers", "x"], "layer preset 'x'"),
        ("ask", ["{photo}", "what?", "--layers", "3-1"], "--layers 3-1 runs backwards: write 1-3"),
        ("ask", ["{photo}", "what?", "--layers", "0-999999999999"], "no model has so many"),
        ("ask", ["{photo}", "what?", "--layers", "1.5"], "--layers must be numbers"),
        ("ask", ["{photo}", "what?", "--layers", "\u00b2"], "--layers must be numbers"),
        ("ask", ["{photo}", "what?", "--layers", ""], "--layers must be numbers"),
        ("ask", ["{photo}", "what?", "--heads", "x"], "head preset 'x' does not exist"),
        ("ask", ["{photo}", "what?", "--device", "zork"], "device 'zork'"),
        ("ask", ["{photo}", "what?", "--device", "meta"], "device 'meta' holds no numbers"),
        ("ask", ["{photo}", "what?", "--dtype", "int8"], "dtype 'int8'"),
        ("ask", ["{photo}", "what?", "-o", "{photo}"], "cannot write"),
        ("ask", ["{photo}", "what?", "-o", "{photo}/deeper"], "cannot write"),
        ("ask", ["{photo}", "what?", "-o", ""], "must be text or a path"),
        ("ask", ["", "what?"], "path of the picture is empty"),
        ("ask", ["https://somewhere/a.jpg", "what?"], "https://somewhere/a.jpg is an address"),
        ("ask", ["{photo}", "what?", "--image", "https://somewhere/a.jpg"], "is an address"),
        ("ask", ["{photo}"], "; see vlmattn ask --help"),
        ("ask", ["{photo}", "what?", "--nope"], "No such option"),
        ("map", ["{photo}", "what?", "--part", "x"], "--part must be question or answer"),
        ("map", ["{photo}", "what?", "--normalise", "x"], "normalisation 'x'"),
        ("map", ["{photo}", "what?", "--method", "zork"], "--method must be"),
        ("map", ["{photo}", "what?", "--occurrence", "1"], "name the word"),
        ("map", ["{photo}", "what?", "red", "--occurrence", "0"], "counts from 1"),
        ("map", ["{photo}", "what?", " "], "word to look for is empty"),
        ("map", ["{photo}", "what?", "red", "--token", "0"], "not both"),
        ("map", ["{photo}", "what?", "--picture", "1"], "--picture 1 does not exist: there are 1"),
        ("map", ["{photo}", "what?", "-o", "none/x.png"], "cannot write"),
        ("map", ["{photo}", "what?", "-o", ".png"], "an ending without a name"),
        ("map", ["{photo}", "what?", "-o", "."], "no known ending"),
        ("map", ["{photo}", "what?", "--max-new-tokens", "0"], "--max-new-tokens"),
        ("verify", ["--image", "https://somewhere/a.jpg"], "is an address"),
        ("verify", ["scene", "-m", "scene"], "two models are named"),
        ("verify", ["--question", ""], "question is empty"),
        ("demo", ["-o", "{photo}"], "cannot write"),
        ("zork", [], "No such command 'zork'"),
    ],
)
def test_options_are_checked_before_a_model_is_loaded(
    command: str,
    options: list[str],
    message: str,
    photo: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vlmattn.api import loading

    monkeypatch.setattr(loading, "load_weights", lambda *_: pytest.fail("weights were read"))
    monkeypatch.chdir(tmp_path)
    told = Told([command, *(o.replace("{photo}", photo) for o in options)], capsys)
    assert told.code == 2, told.err
    assert message in told.err
    assert told.err.startswith("vlmattn: ")
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert list(tmp_path.iterdir()) == []


def test_ask_reads_the_layers_heads_and_method_that_are_asked_for(
    photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, *others = (
        Told(["ask", photo, QUESTION, "--answer", "red cup table", "--json", *more], capsys).record
        for more in ([], ["--layers", "1"], ["--layers", "vicrop", "--heads", "-1"], ["--method", "relative"])
    )
    assert others[0]["words"][0]["image_share"] != plain["words"][0]["image_share"]
    assert others[1]["read"] == {"method": "raw", "layers": "vicrop", "heads": [-1]}
    assert others[1]["words"][0]["image_share"] != plain["words"][0]["image_share"]
    assert others[2]["words"][0]["image_share"] == plain["words"][0]["image_share"]
    assert [w["peak_xy"] for w in others[2]["words"]] != [w["peak_xy"] for w in plain["words"]]
    text = Told(
        ["ask", photo, QUESTION, "--answer", "red cup table", "--layers", "1", "--method", "relative"], capsys
    ).out
    assert f"{others[0]['words'][0]['image_share']:.0%}" in text.splitlines()[2]
    assert text.splitlines()[-1] == "read with method relative, layers [1]; shares are of raw attention"


@pytest.mark.parametrize(
    ("layers", "same"), [("vicrop", "1"), ("-1", "3"), ("-2--1", "2,3"), ("last_half", "2-3"), ("0,-1", "0,3")]
)
def test_chosen_layers_are_the_ones_kept_and_mean_the_same(
    photo: str, layers: str, same: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = []
    for number, text in enumerate((layers, same)):
        file = tmp_path / f"{number}.npz"
        assert Told(["map", photo, QUESTION, "red", "--layers", text, "-o", str(file), "-q"], capsys).code == 0
        maps.append(load_map(file))
    assert np.array_equal(maps[0].values, maps[1].values)
    run = va.load("scene").ask(photo, QUESTION, answer="no")
    whole = run.map("red", layers=[int(n) for n in same.replace("-", ",").split(",")])
    assert np.allclose(maps[0].values, whole.pixels.values, atol=1e-3)


def test_what_is_over_the_budget_names_options_that_there_are(
    photo: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlmattn.capture import session

    monkeypatch.setattr(session, "free_memory", lambda _: 1_000_000)
    told = Told(["ask", photo, QUESTION], capsys)
    assert told.code == 2
    assert "--layers" in told.err
    assert "--max-new-tokens" in told.err
    assert "reduce=" not in told.err
    assert Told(["ask", photo, QUESTION, "--layers", "3", "--max-new-tokens", "4"], capsys).code == 0


def test_several_pictures_are_all_told_and_drawn(
    photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small.png"
    Image.open(photo).resize((90, 60)).save(small)
    out = tmp_path / "looks"
    asked = ["ask", photo, QUESTION, "--image", str(small), "--answer", "no cup"]
    told = Told([*asked, "-o", str(out)], capsys)
    names = [f"{name}-picture-{n}.png" for name in ("00-no", "01-cup", "answer") for n in (0, 1)]
    assert sorted(p.name for p in out.iterdir()) == names
    assert all(head in told.out for head in ("picture 0", "picture 1", "peak in 0", "peak in 1"))
    word = Told([*asked, "--json"], capsys).record["words"][1]
    assert word["image_share"] == pytest.approx(sum(p["share"] for p in word["pictures"]))
    file = tmp_path / "m.json"
    mapped = ["map", photo, QUESTION, "cup", "--image", str(small), "--answer", "no cup", "-o", str(file), "--json"]
    for number, wh in ((0, [600, 400]), (1, [90, 60])):
        record = Told([*mapped, "--picture", str(number)], capsys).record
        assert record["image_wh"] == wh
        assert record["peak_xy"] == word["pictures"][number]["peak_xy"]


def test_a_token_by_its_number(photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "m.png")
    assert Told(["map", photo, QUESTION, "--answer", "no cup", "--token", "0", "-o", out], capsys).out.startswith(
        "no cup"
    )
    told = Told(["map", photo, QUESTION, "--answer", "no cup", "--token", "99", "-o", out], capsys)
    assert (told.code, "answer token 99 does not exist" in told.err) == (2, True)


def test_an_answer_without_words_draws_nothing_and_says_so(
    photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "looks"
    told = Told(["ask", photo, QUESTION, "--answer", "!", "-o", str(out)], capsys)
    assert told.code == 0
    assert told.out == "!\nnothing was drawn: the answer has no words\n"
    assert not out.exists()


def test_an_empty_answer_is_nothing_to_draw(
    photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlmattn.trace import Trace

    monkeypatch.setattr(Trace, "answer", property(lambda _: ""))
    told = Told(["map", photo, QUESTION, "-o", str(tmp_path / "m.png")], capsys)
    assert told.code == 2
    assert "gave no answer" in told.err


def test_a_folder_that_cannot_be_filled_is_not_left_behind(
    photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlmattn.core import files

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    for command in (["ask", photo, QUESTION], ["demo"]):
        told = Told([*command, "-o", str(tmp_path / "a" / "b")], capsys)
        assert told.code == 2
        assert "No space left on device" in told.err
        assert told.err.count("\n") == 1
        assert list(tmp_path.iterdir()) == []


def test_a_model_whose_attention_is_no_number_fails(
    photo: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlmattn.cli import ask

    def broken(*_: Any) -> va.Vlm:
        vlm = va.load("scene")
        with torch.no_grad():
            vlm.model.model.language_model.layers[2].self_attn.k_proj.weight.fill_(float("nan"))
        return vlm

    monkeypatch.setattr(ask, "load_model", broken)
    told = Told(["ask", photo, QUESTION, "--json"], capsys)
    assert (told.code, told.out) == (1, "")
    assert "attention of layer 2 is NaN" in told.err


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_never_says_what_json_cannot(value: float) -> None:
    with pytest.raises(CaptureError, match="JSON cannot say"):
        print_json({"a": [value]})


def test_a_processor_of_another_model_is_unusable_input(
    photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vlmattn.scene import scene_model_folder

    place = tmp_path / "model"
    shutil.copytree(scene_model_folder(), place)
    settings = json.loads((place / "processor_config.json").read_text())
    (place / "processor_config.json").write_text(json.dumps(settings | {"patch_size": 4}))
    told = Told(["ask", photo, QUESTION, "--model", str(place)], capsys)
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert "disagree on patch_size" in told.err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (RuntimeError("two\nlines"), 1, "vlmattn: RuntimeError: two lines (set VLMATTN_TRACEBACK=1 to see where)\n"),
        (NotImplementedError(), 1, "vlmattn: NotImplementedError: NotImplementedError (set"),
        (MemoryError(), 1, "vlmattn: MemoryError"),
        (KeyboardInterrupt(), 130, "vlmattn: interrupted\n"),
    ],
)
def test_whatever_happens_is_one_line(
    error: BaseException,
    code: int,
    line: str,
    photo: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vlmattn.cli import ask

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(ask, "load_model", fail)
    told = Told(["ask", photo, QUESTION], capsys)
    assert told.code == code
    assert told.err.startswith(line)
    assert told.err.strip("\n").count("\n") == 0
    monkeypatch.setenv("VLMATTN_TRACEBACK", "1")
    if isinstance(error, Exception):
        with pytest.raises(type(error)):
            main(["ask", photo, QUESTION])


@pytest.mark.parametrize("stage", ["vlmattn.cli", "torch"])
def test_an_interruption_while_importing_is_one_line(photo: str, stage: str) -> None:
    code = (
        "import sys, importlib.abc\n"
        "class Stop(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == {stage!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop())\n"
        f"sys.argv = ['vlmattn', 'ask', {photo!r}, 'what?']\n"
        "from vlmattn.__main__ import run\n"
        "run()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip(), done.stdout) == (130, "vlmattn: interrupted", "")


def test_output_that_nobody_reads_any_more_is_no_failure() -> None:
    for command in (["models"], ["models", "--json"], ["--help"]):
        with subprocess.Popen(
            [sys.executable, "-m", "vlmattn", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as running:
            assert running.stdout is not None
            assert running.stderr is not None
            running.stdout.close()
            assert running.stderr.read() == b""
            assert running.wait() == 0


def test_every_character_comes_through_a_narrow_pipe(photo: str) -> None:
    words = "\u65e5\u672c\u8a9e " + "w" * 120 + " \u00e9"
    command = [sys.executable, "-m", "vlmattn", "ask", photo, "what?", "--answer", words]
    shown = []
    for encoding in ("ascii", "utf-8"):
        settings = {"PYTHONIOENCODING": encoding, "COLUMNS": "20", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, env={**os.environ, **settings}, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        shown.append(done.stdout.decode())
    assert shown[0] == shown[1]
    assert shown[1].splitlines()[0] == words
    assert "\u2026" not in shown[1]
    assert len(shown[1].splitlines()) == 2 + len(words.split())
    done = subprocess.run(
        [*command, "--json"], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=False
    )
    assert json.loads(done.stdout)["answer"] == words


def test_columns_stand_under_each_other() -> None:
    text = table(["word", "a"], [["\u65e5\u672c", "1"], ["e\u0301", "22"], ["x\ny", "333"]])
    assert text.splitlines() == ["word    a", "\u65e5\u672c    1", "e\u0301      22", "x y   333"]


def test_nothing_asked_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    told = Told([], capsys)
    assert told.code == 2
    assert "Usage: vlmattn" in told.err


def test_it_runs_as_a_module_and_leaves_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vlmattn", "ask", "missing.jpg", "what?"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "vlmattn: missing.jpg does not exist\n"


@pytest.fixture(scope="module")
def seeing_films(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A folder with a tiny model that takes videos, and a folder of frames."""
    from tests.tiny import TINY

    place, frames = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("walk")
    for part in TINY["qwen2_vl"]():
        part.save_pretrained(place)
    for number in range(6):
        Image.fromarray(data.coffee()[:64, 30 * number : 30 * number + 96]).save(frames / f"{number}.png")
    return str(place), str(frames)


def test_models_tell_what_becomes_of_frames(capsys: pytest.CaptureFixture[str]) -> None:
    assert "videos    yes: 2 frames share a grid; stretched to whole" in Told(["models", "qwen2_vl"], capsys).out
    assert "videos    no: its model is made for pictures" in Told(["models", "llava"], capsys).out


def test_a_video_is_asked_about(
    seeing_films: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, frames = seeing_films
    asked = [frames, "What is red?", "--model", model, "--answer", "a spoon", "--frames", "3"]
    told = Told(["ask", *asked, "--out", str(tmp_path / "looks")], capsys)
    assert told.code == 0, told.err
    assert "frame of" in told.out
    assert "5.0 s" in told.out  # frames 1, 3 and 5, one a second
    assert (tmp_path / "looks" / "01-spoon.png").stat().st_size > 1000
    record = Told(["ask", *asked, "--json"], capsys).record
    assert record["pictures"][0]["times"] == [1.0, 3.0, 5.0]
    assert len(record["words"][0]["pictures"][0]["frame_shares"]) == 3


def test_one_frame_or_a_sheet_of_all_is_drawn(
    seeing_films: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, frames = seeing_films
    asked = ["map", frames, "What is red?", "spoon", "--model", model, "--answer", "a spoon", "--fps", "1"]
    one = Told([*asked, "--frame", "2", "--out", str(tmp_path / "frame.npz")], capsys)
    assert one.code == 0, one.err
    assert load_map(tmp_path / "frame.npz").values.shape == (64, 96)
    every = Told([*asked, "--out", str(tmp_path / "sheet.png"), "--json"], capsys)
    assert every.code == 0, every.err
    assert every.record["frames"] == [[0, 1], [2, 3], [4, 5]]
    wrong = Told([*asked, "--frame", "6", "--out", str(tmp_path / "none.png")], capsys)
    assert wrong.code == 2
    assert "frame 6 does not exist: the video has 0 to 5" in wrong.err
    assert not (tmp_path / "none.png").exists()


def test_videos_that_cannot_be_asked_about_are_told_in_one_line(
    seeing_films: tuple[str, str], photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    for arguments, reason in (
        (["ask", str(tmp_path / "broken.mp4"), "What?"], "is not a video that OpenCV can read"),
        (["ask", str(tmp_path), "What?"], "holds no frames"),
        (["ask", seeing_films[1], "What?"], "llava takes no videos"),
        (["ask", photo, "What?", "--frames", "4"], "no video was given"),
        (["ask", seeing_films[1], "What?", "--frames", "4", "--fps", "1"], "say how the video is sampled"),
    ):
        told = Told(arguments, capsys)
        assert told.code != 0
        assert reason in told.err
        assert told.err.count("\n") == 1
