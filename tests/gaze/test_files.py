"""Tables of any columns, and files of our own."""

from __future__ import annotations

import doctest
import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmattn import gaze as vg
from vlmattn.core.errors import FileError, SpecError
from vlmattn.gaze import Fixations, Scanpath, Screen


def test_examples() -> None:
    result = doctest.testmod(sys.modules["vlmattn.gaze.readers.tables"])
    assert result.attempted
    assert not result.failed


HEAD = "RECORDING,TRIAL_IMAGE,FX,FY,BEGIN,DUR\n"
MAPPING = {"subject": "RECORDING", "image": "TRIAL_IMAGE", "x": "FX", "y": "FY", "start": "BEGIN", "duration": "DUR"}


def table(folder: Path, text: str, name: str = "f.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_tables(tmp_path: Path) -> None:
    text = HEAD + "p1,a.jpg,10,20,0,200\np2,a.jpg,5,6,0,100\np1,a.jpg,30.5,40,250,300\np1,b.jpg,1,2,0,90\n"
    got = vg.read_table(table(tmp_path, text), MAPPING, sizes={"a.jpg": (90, 80), "b.jpg": (70, 60)}, time_unit=0.001)
    assert [(p.subject, p.image, len(p), p.image_wh) for p in got] == [
        ("p1", "a.jpg", 2, (90, 80)), ("p2", "a.jpg", 1, (90, 80)), ("p1", "b.jpg", 1, (70, 60)),
    ]  # fmt: skip
    assert got[0].xy.tolist() == [[10, 20], [30.5, 40]]
    assert got[0].start.tolist() == [0, 0.25]
    assert got[0].duration.tolist() == [0.2, 0.3]
    shifted = vg.read_table(tmp_path / "f.csv", MAPPING, sizes=(90, 80), time_unit=0.001, offset=-0.5)
    assert shifted[0].xy.tolist() == [[9.5, 19.5], [30, 39.5]]
    tabs = table(tmp_path, "x\ty\tstart\tend\n1\t2\t0.5\t0.75\n", "g.tsv")
    one = vg.read_table(tabs, sizes=(9, 9), image="i", subject="s")[0]
    assert (one.duration.tolist(), one.image, one.subject) == ([0.25], "i", "s")
    (tmp_path / "h.csv.gz").write_bytes(gzip.compress(b"x,y,width,height\n1,2,9,8\n"))
    assert vg.read_table(tmp_path / "h.csv.gz")[0].image_wh == (9, 8)


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        (HEAD + "p,a,1,2,0,1\n", {"x": "X"}, "no column 'X'; it has RECORDING"),
        (HEAD + "p,a,1,2,0,1\n", {}, "no column 'x'"),
        (HEAD + "p,a,one,2,0,1\n", MAPPING, r"line 2, column 'FX': 'one' is no number"),
        (HEAD + "p,a,,2,0,1\n", MAPPING, "rows 1 to 1: x must be finite"),
        (HEAD + "p,a,1,2,0,0\n", MAPPING, "duration must be above 0"),
        (HEAD + "p,a,1,2,5,1\np,a,1,2,4,1\n", MAPPING, "rows 1 to 2: start must increase"),
        (HEAD + "p,a,1,2\n", MAPPING, "row 2 has not as many cells"),
        ("", MAPPING, "is empty"),
        ("x,y\n1,2\n", {}, "size is not known"),
        (HEAD, MAPPING, "no column 'FX'; it has no row"),
    ],
)
def test_tables_that_are_broken(tmp_path: Path, text: str, columns: dict, message: str) -> None:
    sizes = None if text.startswith("x,y") else (9, 9)
    with pytest.raises(FileError, match=message) as caught:
        vg.read_table(table(tmp_path, text), columns, sizes=sizes)
    assert "f.csv" in str(caught.value)


def test_options_of_tables(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="not 'z'"):
        vg.read_table(table(tmp_path, HEAD), {"z": "FX"})
    with pytest.raises(FileError, match="must end in"):
        vg.read_table(table(tmp_path, HEAD, "f.txt"), MAPPING)
    text = HEAD + "p,a,1,2,0,10\np,a,.,.,20,5\np,a,3,99,30,0\np,a,5,99,40,7\n"
    got = vg.read_table(table(tmp_path, text), MAPPING, sizes=(9, 9), drop_bad=True, outside="clip")
    assert got[0].x.tolist() == [1, 5]
    assert got.points()[:, 1].max() < 9
    with pytest.raises(FileError, match="no column 'FX'"):
        vg.from_frame({"x": [1]}, MAPPING)


def sample(seed: int = 0) -> Fixations:
    rng = np.random.default_rng(seed)
    screen = Screen.from_geometry(size_px=(640, 480), size_cm=(32, 24), distance_cm=57)
    paths = [
        Scanpath(rng.uniform(-5, 645, 4), rng.uniform(0, 480, 4), (640, 480), start=np.cumsum(rng.random(4)),
                 duration=rng.random(4) + 0.01, subject="s,1", task='find "it"\n', image="ä.jpg", screen=screen,
                 trial={"split": "train", "bbox": [1, 2, 3, 4], "correct": True}),
        Scanpath([1 / 3], [0.1], (640, 480), image="ä.jpg"),
        Scanpath([], [], (40, 30), subject="none"),
    ]  # fmt: skip
    return Fixations(tuple(paths))


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".json.gz", ".jsonl.gz"])
def test_everything_is_kept(tmp_path: Path, ending: str) -> None:
    path = vg.write_fixations(tmp_path / f"f{ending}", sample())
    assert vg.read_fixations(path) == sample()
    assert vg.write_fixations(tmp_path / f"g{ending}", sample()).read_bytes() == path.read_bytes()
    assert vg.read_fixations(vg.write_fixations(path, Fixations())) == Fixations()


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet", ".csv.gz"])
def test_tables_keep_fixations(tmp_path: Path, ending: str) -> None:
    got = vg.read_fixations(vg.write_fixations(tmp_path / f"f{ending}", sample()))
    assert len(got) == 2
    for one, before in zip(got, sample(), strict=False):
        assert (one.xy == before.xy).all()
        for name in ("start", "duration"):
            assert np.array_equal(getattr(one, name), getattr(before, name)) or getattr(one, name) is getattr(
                before, name
            )
        assert (one.image, one.subject, one.task) == (before.image, before.subject, before.task)
        assert (one.screen is None) == (before.screen is None)
    assert vg.read_fixations(vg.write_fixations(tmp_path / f"f{ending}", Fixations())).count == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("f.json", "{", "not whole JSON"),
        ("f.json", {"format": "other"}, "expected the format"),
        ("f.json", {"format": "vlmattn fixations 1", "scanpaths": [{"x": [1]}]}, "scanpath 0: a scanpath must have"),
        ("f.json", {"format": "vlmattn fixations 1", "scanpaths": [3]}, "scanpath 0"),
        ("f.jsonl", '{"format": "x"}\n', "line 1: expected the format"),
        ("f.jsonl", '{"format": "vlmattn fixations 1"}\n{"x": 1, "y": [1], "image_wh": [9, 9]}\n', "line 2"),
        ("f.jsonl", '{"format": "vlmattn fixations 1"}\n{"x"', "line 2"),
        ("f.csv", "a,b\n1,2\n", "expected the columns"),
        ("f.parquet", "PAR1 not at all", "cannot be read as Parquet"),
        ("f.txt", "", "must end in"),
        ("f.parquet.gz", "", "must end in"),
    ],
)
def test_files_that_are_broken(tmp_path: Path, name: str, content: Any, message: str) -> None:
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(FileError, match=message) as caught:
        vg.read_fixations(tmp_path / name)
    assert name in str(caught.value)


def test_cells_that_are_no_numbers(tmp_path: Path) -> None:
    path = vg.write_fixations(tmp_path / "f.csv", sample())
    path.write_text(path.read_text(encoding="utf-8").replace("0.1,", "zero,"), encoding="utf-8")
    with pytest.raises(FileError, match=r"f\.csv, line \d+, column"):
        vg.read_fixations(path)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    odd = Fixations((Scanpath([1.0], [1.0], (9, 9), trial={"when": object()}),))
    with pytest.raises(FileError, match="no plain value"):
        vg.write_fixations(tmp_path / "f.json", odd)
    with pytest.raises(FileError, match="cannot write"):
        vg.write_fixations(tmp_path / "none" / "f.json", sample())
    with pytest.raises(FileError, match="must end in"):
        vg.write_fixations(tmp_path / "f.mat", sample())
    assert list(tmp_path.iterdir()) == []
