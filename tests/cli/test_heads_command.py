"""``vlmattn heads`` and ``--heads NAME``: what they print, write and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vlmattn as va
from vlmattn.cli import main
from vlmattn.heads import HeadAtlas, load_presets


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    va.scene.make_scene(0).image.save(path)
    return str(path)


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as done:
        main(arguments)
    return (int(done.value.code or 0), *capsys.readouterr())


def test_scenes_give_a_table_a_picture_and_heads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, saved = tmp_path / "atlas.png", tmp_path / "heads.json"
    arguments = ["heads", "scene", "--scenes", "4", "--score", "mass", "--score", "pointing", "-k", "2"]
    code, text, _ = told([*arguments, "-o", str(out), "--save-heads", str(saved)], capsys)
    assert code == 0
    assert "pointing" in text
    assert f"wrote {out}" in text
    assert out.stat().st_size > 1000
    assert {name: len(one.pairs) for name, one in load_presets(saved).items()} == {"mass": 2, "pointing": 2}


def test_pictures_and_questions_of_ones_own(picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "atlas.json"
    own = ["--image", picture, "--question", "How many objects are there?", "--score", "visual"]
    code, text, _ = told(["heads", *own, "--json", "-o", str(out)], capsys)
    assert code == 0
    held = json.loads(text)
    assert held["items"] == {"visual": 1}
    assert HeadAtlas.load(out).to_dict()["scores"] == held["scores"]
    lines = tmp_path / "samples.jsonl"
    lines.write_text(json.dumps({"image": picture, "question": "What is there?", "boxes": [[0, 0, 50, 50]]}))
    code, text, _ = told(["heads", "--samples", str(lines), "--score", "pointing"], capsys)
    assert code == 0
    assert "n=1" in text


def test_a_name_of_the_models_own_heads_makes_a_map(
    picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "map.json"
    common = ["map", picture, "How many objects are there?", "--out", str(out)]
    code, _, _ = told([*common, "--heads", "pointing"], capsys)
    assert code == 0
    assert "pointing" in out.read_text()
    code, _, error = told([*common, "--heads", "copy"], capsys)
    assert code == 2
    assert "this model's own are" in error


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--score", "nope"], "do not exist"),
        (["--variant", "fork"], "variant must be"),
        (["--scenes", "2", "--samples", "x.jsonl"], "give one of"),
        (["--question", "Why?"], "go with --image"),
        (["--image", "x.png"], "0 questions"),
        (["--image", "x.png", "--question", "Why?"], "x.png"),
        (["--samples", "none.jsonl"], "cannot read samples"),
        (["--samples", "none.jsonl", "--split", "test"], "drawn scenes only"),
        (["--scenes", "1", "--split", "nope"], "split 'nope'"),
        (["-o", "atlas.txt"], "known ending"),
        (["--save-heads", "heads.npz"], "writes JSON"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = told(["heads", *arguments], capsys)
    assert code == 2
    assert why in error
    assert len(error.strip().splitlines()) == 1
