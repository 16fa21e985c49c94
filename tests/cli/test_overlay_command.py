"""``vlmattn overlay``: what it prints, what it refuses, and the page that describes it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.pipelines.asked import write_table
from vlmattn.cli import main

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "pipelines.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table"), 5)


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as done:
        main(["overlay", *arguments])
    out, err = capsys.readouterr()
    return int(done.value.code or 0), out, err


def test_it_says_what_was_made_and_goes_on(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "-i",
        str(table),
        "-o",
        str(tmp_path / "run"),
        "--max-new-tokens",
        "4",
        "--format",
        "jpg",
        "--layers",
        "1-2",
    ]
    code, out, err = told(command, capsys)
    assert (code, err) == (0, "")
    assert out == (
        f"wrote {tmp_path}/run/results.jsonl: 5 rows, 5 of them asked now; 2 with an error; 1 with words that could "
        "not be drawn\n"
    )
    rows = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows[0]["words"][0]["file"].endswith(".jpg")
    code, out, _ = told([*command, "--table", "csv", "--json"], capsys)
    assert (code, json.loads(out)["made"]) == (0, 0)
    assert told([*command, "--table", "parquet", "-q"], capsys) == (0, "", "")


def test_columns_of_other_names_and_a_table_without_a_good_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text("where,asked\nnone.png,What?\n", encoding="utf-8")
    command = ["-i", str(tmp_path / "t.csv"), "-o", str(tmp_path / "run"), "--image-column", "where"]
    code, _, err = told(command, capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert "no column 'question'" in err
    assert not (tmp_path / "run").exists()
    code, _, err = told([*command, "--question-column", "asked"], capsys)
    assert code == 2
    assert "no row could be asked" in err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--format", "gif"], "format must be one of png, webp, jpg"),
        (["--table", "xlsx"], "a table must be one of"),
        (["--method", "look"], "--method must be one of"),
        (["--layers", "none"], "layer preset 'none'"),
        (["--engine", "spark"], "--engine must be local or ray"),
        (["--replicas", "2"], "--replicas go with --engine ray only"),
        (["--engine", "ray", "--replicas", "0"], "at least 1 replica"),
        (["--generate", "x"], "NAME=VALUE"),
        (["--steering", "nothing"], "steering 'nothing' does not exist"),
        (["--words-column", "w"], "no column 'w' for the words"),
        (["--batch-size", "0"], "batch-size"),
        (["--detector", "none.json"], "the detector none.json cannot be read"),
    ],
)
def test_wrong_options_are_told_in_one_line(
    options: list[str],
    says: str,
    table: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vlmattn.cli.overlay.load_model", lambda *_: pytest.fail("a model was loaded"))
    code, out, err = told(["-i", str(table), "-o", str(tmp_path / "run"), *options], capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
    assert not (tmp_path / "run").exists()


def test_the_page_runs_and_names_options_that_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.main import get_command

    from vlmattn.cli.main import app

    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE):
        exec(compile(block, "pipelines.md", "exec"), {"__name__": "page"})
    assert (tmp_path / "run" / "results.parquet").is_file()
    commands = get_command(app).commands  # type: ignore[attr-defined]
    known = {
        name for one in commands.values() for option in one.params for name in (*option.opts, *option.secondary_opts)
    }
    assert set(re.findall(r"--[a-z][a-z-]+", PAGE)) <= known
