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
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """A picture, a question about a tiny thing, and its answer."""
    scene, questions = va.scene.split_item("tiny", 1, 3)
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    scene.image.save(path)
    return str(path), questions[0].text, questions[0].answer


def test_it_looks_again_and_writes_everything(
    case: tuple[str, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, question, answer = case
    out = tmp_path / "closer"
    told = Told(["refine", picture, question, "--out", str(out)], capsys)
    assert told.code == 0, told.err
    assert told.out.splitlines()[0] == answer
    assert sorted(p.name for p in out.iterdir()) == ["boxes.json", "crop.png", "map.png", "mask.png", "sheet.png"]
    said = Told(["refine", picture, question, "--recipe", "carve-crop", "--json", "--window", "0.4"], capsys).record
    assert said["refined"]["recipe"]["window_share"] == 0.4
    assert said["answer"] == said["second_answer"]


def test_a_search_and_a_gate(case: tuple[str, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, question, _ = case
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
        (["--when", "never"], "--when"),
        (["--gate", "gate.json"], "uncertain"),
        (["--when", "uncertain", "--gate", "absent.json"], "no gate"),
        (["--choose", "best"], "--choose"),
        (["--recipe", "zoom", "--share", "0.5"], "search"),
        (["--pictures", "none"], "pictures"),
        (["--recipe", "carve"], "both"),
        (["--layers", "99"], "99"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(
    case: tuple[str, str, str], options: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
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
