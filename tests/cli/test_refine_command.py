"""``vlmattn refine``: what it prints, what it writes, how it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import vlmattn as va
from tests.cli.test_commands import Told
from vlmattn.refine import RECIPES, SEARCHES, Gate


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A picture and a question about a tiny thing."""
    scene, questions = va.scene.split_item("tiny", 1, 3)
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    scene.image.save(path)
    return str(path), questions[0].text


def test_it_looks_again_and_writes_everything(
    case: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, question = case
    run = va.load("scene").ask(picture, question)
    out = tmp_path / "closer"
    told = Told(["refine", picture, question, "--out", str(out)], capsys)
    assert told.code == 0, told.err
    assert told.out.splitlines()[0] == run.ask_again("peak").answer
    assert f"first look: {run.answer}" in told.out
    assert sorted(p.name for p in out.iterdir()) == ["boxes.json", "crop.png", "map.png", "mask.png", "sheet.png"]
    said = Told(["refine", picture, question, "--recipe", "carve-crop", "--json", "--window", "0.4"], capsys).record
    assert said["refined"]["recipe"]["window_share"] == 0.4
    assert said["answer"] == said["second_answer"]


def test_every_field_can_be_set(case: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    picture, question = case
    options = ["-r", "carve-crop", "--set", "steps=last", "--set", "weights=even", "--set", "floor=0.3", "--set",
               "clip=null", "--layers", "-1", "--json"]  # fmt: skip
    said = Told(["refine", picture, question, *options], capsys).record["refined"]["recipe"]
    assert (said["steps"], said["weights"], said["floor"], said["clip"], said["layers"]) == (
        "last",
        "even",
        0.3,
        None,
        [-1],
    )
    found = Told(["refine", picture, question, "-r", "zoomeye", "--set", "most_looks=1", "--set", "enough=1", "--json"],
                 capsys).record  # fmt: skip
    assert len(found["looks"]) == 2


def test_a_video_is_refused_before_a_model_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    va.scene.make_scene(0).image.save(tmp_path / "0.png")
    told = Told(["refine", str(tmp_path), "What?", "--model", "absent"], capsys)
    assert told.code == 2
    assert "video" in told.err
    assert "absent" not in told.err


def test_a_search_and_a_gate(case: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, question = case
    found = Told(["refine", picture, question, "-r", "vstar", "--json", "--out", str(tmp_path / "s")], capsys).record
    assert found["looks"][0]["depth"] == 0
    assert (tmp_path / "s" / "sheet.png").is_file()
    gate = Gate(bias=-1.0, margin=0.0).save(tmp_path / "gate.json")
    told = Told(["refine", picture, question, "--when", "uncertain", "--gate", str(gate)], capsys)
    assert "good enough" in told.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--recipe", "crave"], "does not exist"),
        (["--share", "2"], "share"),
        (["--window", "0"], "window_share"),
        (["--window", "nan"], "--window"),
        (["--window", "inf"], "--window"),
        (["--window", "30.5"], "--window"),
        (["--when", "never"], "--when"),
        (["--gate", "gate.json"], "uncertain"),
        (["--when", "uncertain", "--gate", "absent.json"], "no gate"),
        (["--choose", "best"], "--choose"),
        (["--recipe", "zoom", "--share", "0.5"], "search"),
        (["--recipe", "zoom", "--set", "depth=3"], "no field"),
        (["--recipe", "zoom", "--set", "overlap=0.3"], "decides nothing"),
        (["--share", "0.3"], "decides nothing"),
        (["--recipe", "mask", "--window", "0.3"], "decides nothing"),
        (["--set", "steps"], "FIELD=VALUE"),
        (["--set", "share=0.3"], "option of its own"),
        (["--set", "margin=wide"], "margin"),
        (["--pictures", "none"], "pictures"),
        (["--recipe", "carve"], "both"),
        (["--layers", "99"], "99"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(
    case: tuple[str, str], options: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    # All of it is told before the model runs.
    monkeypatch.setattr(va.Vlm, "run", lambda *_: pytest.fail("the model ran"))
    if options[:2] == ["--recipe", "carve"]:
        # The family's limit, as a family of one picture has it.
        from vlmattn.adapters import Adapter

        monkeypatch.setattr(Adapter, "max_images", property(lambda self: 1))
    told = Told(["refine", case[0], case[1], *options], capsys)
    assert told.code == 2
    assert said in told.err
    assert len(told.err.strip().splitlines()) == 1
    assert not told.out


def test_its_help_names_every_recipe_and_search(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(Told(["refine", "--help"], capsys).out.replace("│", " ").split())
    for name in (*RECIPES, *SEARCHES):
        assert name in text


def test_its_page_names_every_recipe_and_search() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "refinement.md").read_text(encoding="utf-8")
    for name in (*RECIPES, *SEARCHES):
        assert f"`{name}`" in page
    assert json.dumps(va.refine.RECIPES["carve"].described())
