"""Files appear whole or not at all; absent libraries are named with what to install."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from vlmattn.core.errors import DependencyMissing, FileError
from vlmattn.core.files import (
    atomic_write_bytes,
    atomic_write_text,
    check_can_hold,
    check_can_write,
    filled_folder,
    make_folder,
    write_json,
)
from vlmattn.core.optional import cv2, require


def test_what_is_written_is_read_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for text in ("first", "zweite · 第二"):
        assert atomic_write_text(path, text) == path
        assert path.read_text(encoding="utf-8") == text
    assert os.listdir(tmp_path) == ["a.txt"]
    write_json(path, {"b": 1, "a": "é"})
    assert path.read_text(encoding="utf-8") == '{\n  "a": "é",\n  "b": 1\n}\n'
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "é", "b": 1}


def test_the_file_gets_the_rights_a_plain_open_would_give(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    atomic_write_bytes(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.hostile
@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(FileError if isinstance(error, OSError) else KeyboardInterrupt):
        atomic_write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.hostile
@pytest.mark.parametrize("name", ["no/such/folder/a", "x" * 300])
def test_a_place_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileError, match="cannot write"):
        atomic_write_bytes(tmp_path / name, b"")


@pytest.mark.hostile
def test_a_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(FileError, match="cannot write"):
        atomic_write_bytes(tmp_path / "d", b"")
    assert os.listdir(tmp_path) == ["d"]


def test_a_library_that_is_there_is_given() -> None:
    assert require("json", extra="app") is json
    assert cv2().__name__ == "cv2"


@pytest.mark.hostile
def test_an_absent_library_names_its_extra() -> None:
    with pytest.raises(DependencyMissing, match=r"pip install 'vlmattn\[app\]'"):
        require("no_such_library_at_all", extra="app")


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("libGL.so.1: cannot open shared object file", "opencv-python-headless"),
        ("libgthread-2.0.so.0: cannot open shared object file", "opencv-python-headless"),
        ("No module named 'cv2'", "pip install opencv-python"),
    ],
)
def test_opencv_that_does_not_load(monkeypatch: pytest.MonkeyPatch, reason: str, says: str) -> None:
    def fail(name: str) -> None:
        raise ImportError(reason)

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(DependencyMissing, match=says):
        cv2()


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("check", "name", "message"),
    [
        (check_can_write, "no/such/a.png", "cannot write"),
        (check_can_write, "folder", "it is a folder"),
        (check_can_write, "file/a.png", "cannot write"),
        (check_can_hold, "file", "cannot write"),
        (check_can_hold, "file/deeper", "cannot write"),
        (make_folder, "file", "cannot make the folder"),
        (make_folder, "file/deeper", "cannot make the folder"),
        (make_folder, "a\0b", "cannot make the folder"),
        (make_folder, "x" * 300, "cannot make the folder"),
    ],
)
def test_places_that_hold_nothing(tmp_path: Path, check: Any, name: str, message: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match=message):
        check(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_places_that_can_be_written_are_left_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "old.png").write_text("old")
    check_can_write(tmp_path / "old.png")
    check_can_write(tmp_path / "new.png")
    check_can_hold(tmp_path / "new" / "folder")
    assert os.listdir(tmp_path) == ["old.png"]


@pytest.mark.parametrize("path", [None, 3, ""])
def test_what_is_no_path(path: Any) -> None:
    for use in (make_folder, check_can_write, check_can_hold, lambda p: atomic_write_bytes(p, b"")):
        with pytest.raises(FileError, match="must be text or a path"):
            use(path)


def test_a_folder_that_was_not_filled_is_taken_away_again(tmp_path: Path) -> None:
    def fill(*names: str, error: BaseException | None = None) -> None:
        with filled_folder(tmp_path / "a" / "b") as place:
            for name in names:
                atomic_write_bytes(place(name), b"new")
            if error is not None:
                raise error

    with pytest.raises(FileError):
        fill("one", "no/two")
    assert os.listdir(tmp_path) == []
    fill("one")
    with pytest.raises(KeyboardInterrupt):
        fill("one", "two", error=KeyboardInterrupt())
    assert os.listdir(tmp_path / "a" / "b") == ["one"]
