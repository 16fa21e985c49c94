"""Answers survive whatever ends a process, and are counted once."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmattn.core.errors import FileError, RunInProgress
from vlmattn.evaluate import Answer, Store, locked, read_results

ONE, TWO = Answer("a", 'yes\n"é"', 2, True), Answer("b", "", 1, False)


def written(folder: Path) -> Path:
    store = Store(folder)
    with store.writing(0) as open_store:
        open_store.commit(0, [ONE])
        open_store.commit(1, [TWO])
    return folder / "shards" / "00000.jsonl"


def test_what_is_committed_comes_back(tmp_path: Path) -> None:
    written(tmp_path)
    assert Store(tmp_path).committed() == {0: (ONE,), 1: (TWO,)}
    Store(tmp_path).join(["b", "a"])
    assert read_results(tmp_path) == {"b": "", "a": ONE.answer}
    assert list(read_results(tmp_path)) == ["b", "a"]


@given(cut=st.integers(min_value=1, max_value=400))
def test_a_torn_end_is_not_counted_and_is_cut_away(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("torn")
    path = written(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    ends = [n for n, byte in enumerate(whole) if byte == ord("\n")]
    left = sum(end < len(whole) - cut for end in ends)
    torn_but_whole = left + ((len(whole) - cut) in ends)  # only the newline is missing
    assert len(Store(folder).committed()) in (left, torn_but_whole)
    with Store(folder).writing(0) as store:
        store.commit(7, [Answer("c", "x", 1, True)])
    assert 7 in Store(folder).committed()
    assert len(Store(folder).committed()) == left + 1


def test_a_damaged_line_is_not_counted(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"yes", b"no!"))
    assert list(Store(tmp_path).committed()) == [1]


def test_a_batch_of_two_processes_counts_once(tmp_path: Path) -> None:
    for rank, text in ((0, "first"), (1, "second")):
        with Store(tmp_path).writing(rank) as store:
            store.commit(0, [Answer("a", text, 1, True)])
    assert Store(tmp_path).committed()[0][0].answer == "first"
    Store(tmp_path).join(["a"])
    assert read_results(tmp_path) == {"a": "first"}


def test_a_full_disk_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Store(tmp_path).writing(0) as store:
        monkeypatch.setattr("vlmattn.evaluate.journal.os.fsync", full)
        with pytest.raises(FileError, match=r"batch 2 could not be written.*disk is full.*run the same command again"):
            store.commit(2, [Answer("c", "x", 1, True)])
    monkeypatch.undo()
    assert {0, 1} <= set(Store(tmp_path).committed())


def test_two_runs_do_not_write_one_folder(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RunInProgress, match="another run is writing"), locked(tmp_path):
        raise AssertionError
    with locked(tmp_path):
        pass


@pytest.mark.parametrize(
    ("order", "match"), [(["a", "b", "c"], "1 items have no answer yet, such as 'c'"), (["a"], None)]
)
def test_joining_needs_all(tmp_path: Path, order: list[str], match: str | None) -> None:
    written(tmp_path)
    if match is None:
        assert read_results(Store(tmp_path).join(order).parent) == {"a": ONE.answer}
        return
    with pytest.raises(FileError, match=match):
        Store(tmp_path).join(order)
    with pytest.raises(FileError, match="not finished"):
        read_results(tmp_path)


def test_an_item_in_two_batches_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path).writing(0) as store:
        store.commit(0, [ONE])
        store.commit(1, [ONE])
    with pytest.raises(FileError, match="answered in two batches"):
        Store(tmp_path).join(["a"])


@pytest.mark.parametrize("content", ["{", json.dumps({"id": "a"}), "[1]"])
def test_damaged_results_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "results.jsonl").write_text(content)
    with pytest.raises(FileError, match="damaged"):
        read_results(tmp_path)


def test_nothing_is_written_unless_open(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="not open"):
        Store(tmp_path).commit(0, [ONE])


def test_answers_are_plain(tmp_path: Path) -> None:
    written(tmp_path)
    line: dict[str, Any] = json.loads((Store(tmp_path).join(["a"])).read_text(encoding="utf-8"))
    assert line == {"id": "a", "answer": ONE.answer, "tokens": 2, "ended": True}
