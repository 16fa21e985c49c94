"""A table asked: every row once and in order, whatever is wrong with some, and however often the run is ended."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

import vlmattn as va
from tests.pipelines.asked import done, job, whole, write_table
from vlmattn.core.errors import FileError, RunInProgress, SpecError, VlmattnError
from vlmattn.evaluate import Decoding, locked
from vlmattn.overlay import read_provenance
from vlmattn.pipelines import Drawing, ModelChoice, Output, Reading, open_table, overlay_table
from vlmattn.pipelines import flow as flow_module


@pytest.fixture(scope="module")
def vlm() -> va.Vlm:
    return va.load("scene")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def once(table: Path, vlm: va.Vlm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("once") / "out"
    done(table, out, vlm=vlm)
    return out


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_row_is_there_once_and_in_order(once: Path) -> None:
    rows = records(once)
    assert [row["row"] for row in rows] == list(range(14))
    assert [row["id"] for row in rows] == [f"a/é {n // 2}" for n in range(14)]
    status = ["error" if n % 5 == 4 or n % 4 == 3 else "partial" if n % 4 == 2 else "ok" for n in range(14)]
    assert [row["status"] for row in rows] == status
    assert all((row["error"] is None) == (row["status"] == "ok") for row in rows)
    assert "missing.png does not exist" in rows[4]["error"]
    assert "'zebra' does not occur" in rows[3]["error"]
    assert rows[3]["answer"]
    assert [row["answer"] for row in rows if row["given"] and row["status"] == "ok"] == ["it is green"] * 2


def test_each_word_says_what_the_run_says(once: Path, table: Path, vlm: va.Vlm) -> None:
    row = records(once)[1]
    asked = vlm.ask(table.parent / "1.png", row["question"], max_new_tokens=6)
    assert row["answer"] == asked.answer
    assert [word["word"] for word in row["words"]] == ["the", "color"]
    for word in row["words"]:
        look = asked.map(word["word"])
        assert word["part"] == "question"
        assert word["log_probability"] is None
        assert word["peak_xy"] == pytest.approx(look.peak_xy)
        assert word["box_xyxy"] == list(look.box_xyxy())
        with Image.open(once / word["file"]) as image:
            assert np.abs(np.asarray(image).astype(int) - np.asarray(look.overlay().image)).max() <= 1
        assert read_provenance(once / word["file"])["label"] == look.label
    whole_answer = records(once)[8]["words"][0]
    grounded = vlm.ask(table.parent / "8.png", records(once)[8]["question"], max_new_tokens=6).grounding()[0]
    assert whole_answer["image_share"] == pytest.approx(grounded.image_share, abs=1e-3)
    assert whole_answer["log_probability"] == pytest.approx(grounded.log_probability, abs=1e-2)


def test_names_of_files_are_safe_and_differ(once: Path) -> None:
    files = [word["file"] for row in records(once) for word in row["words"] if word["file"]]
    assert len(set(files)) == len(files) == sum(p.suffix == ".png" for p in once.rglob("*"))
    assert files[0] == "overlays/00000/00000000-a-é-0-00-answer.png"
    assert all((once / name).is_file() for name in files)


def test_nothing_is_asked_again_and_no_model_is_loaded_for_nothing(once: Path, table: Path) -> None:
    def load() -> va.Vlm:
        raise AssertionError("a model was loaded")

    before = whole(once)
    assert done(table, once, vlm=load).made == 0
    assert whole(once) == before


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"decoding": Decoding(max_new_tokens=7)}, "decoding"),
        ({"batch": 4}, "batch"),
        ({"reading": Reading(layers=[1])}, "reading"),
        ({"drawing": Drawing("jpg")}, "drawing"),
        ({"model": ModelChoice("scene-prior")}, "model"),
        ({"steering": ("var",)}, "steering"),
    ],
)
def test_results_of_other_settings_are_not_written_over(
    changes: dict[str, Any], names: str, once: Path, table: Path
) -> None:
    with pytest.raises(SpecError, match=f"another run .{names}: "):
        done(table, once, vlm=None, **changes)


def test_another_table_or_a_folder_of_something_else_is_refused(once: Path, table: Path, tmp_path: Path) -> None:
    other = tmp_path / "table.jsonl"
    other.write_text(table.read_text(encoding="utf-8") + '{"image": "0.png"}\n', encoding="utf-8")
    with pytest.raises(SpecError, match="input: "):
        done(other, once)
    (tmp_path / "held" / "overlays").mkdir(parents=True)
    with pytest.raises(FileError, match="no manifest"):
        done(table, tmp_path / "held")
    with locked(once), pytest.raises(RunInProgress):
        done(table, once)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_of_every_kind_say_the_same(kind: str, once: Path, table: Path, tmp_path: Path) -> None:
    shutil.copytree(once, tmp_path / "out")
    path = done(table, tmp_path / "out", table_kind=kind).table
    if kind == "csv":
        with path.open(encoding="utf-8", newline="") as file:
            found: list[dict[str, Any]] = [dict(row) for row in csv.DictReader(file)]
        for row in found:
            row |= {name: json.loads(row[name]) if row[name] else None for name in ("words", "given", "image_wh")}
            row |= {name: row[name] or None for name in ("error", "answer")}
            row |= {name: int(row[name]) if row[name] else None for name in ("row", "prompt_tokens")}
    else:
        found = parquet.read_table(path).to_pylist()
    assert found == records(once)


def test_a_table_reads_the_same_from_every_kind_of_file(table: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
    plain = [
        row | {"words": "|".join(row["words"]) if isinstance(row["words"], list) else row["words"]} for row in lines
    ]
    with (tmp_path / "table.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, plain[0])
        writer.writeheader()
        writer.writerows(plain)
    parquet.write_table(pa.Table.from_pylist(plain), tmp_path / "table.parquet")
    rows = list(open_table(str(table)))
    for name in ("table.csv", "table.parquet"):
        assert list(open_table(str(tmp_path / name))) == rows
    with fsspec.open("memory://tables/table.csv", "wb") as held:
        held.write((tmp_path / "table.csv").read_bytes())
    assert list(open_table("memory://tables/table.csv")) == rows


BAD = [
    ({"image": "", "question": "Is it?"}, "no picture is named"),
    ({"image": 3, "question": "Is it?"}, "the picture is 3"),
    ({"image": "0.png", "question": "  "}, "the question is empty"),
    ({"image": "0.png", "question": 5}, "the question is 5, not text"),
    ({"image": "0.png"}, "the question is missing"),
    ({"image": "0.png", "question": "\ud800?"}, "half a surrogate pair"),
    ({"image": "0.png", "question": "Is it?", "words": 7}, "the words are 7"),
    ({"image": "cut.png", "question": "Is it?"}, "cut.png is damaged or cut off"),
    ({"image": "text.png", "question": "Is it?"}, "not a picture"),
    ({"image": "empty.png", "question": "Is it?"}, "is empty"),
    ({"image": ".", "question": "Is it?"}, "is a folder"),
    ({"image": "memory://nowhere/0.png", "question": "Is it?"}, "does not exist"),
    ({"image": "nothing://0.png", "question": "Is it?"}, "cannot be read"),
    ({"image": "0.png", "question": "Is it <image>?"}, "image"),
    ({"image": "0.png", "question": "word " * 5000}, "positions"),
    ("{broken", "not whole JSON"),
    ("[1]", "no JSON object"),
]


@pytest.fixture(scope="module")
def bad(table: Path, vlm: va.Vlm, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("bad")
    content = (table.parent / "0.png").read_bytes()
    for name, held in (("0.png", content), ("cut.png", content[:300]), ("text.png", b"text" * 9), ("empty.png", b"")):
        (folder / name).write_bytes(held)
    good = json.dumps({"image": "0.png", "question": "Is there a red circle?", "id": 7})
    lines = [line if isinstance(line, str) else json.dumps(line) for line, _ in BAD]
    (folder / "table.jsonl").write_text("\n".join([good, *lines, good]) + "\n", encoding="utf-8")
    done(folder / "table.jsonl", folder / "out", vlm=vlm, batch=4)
    return records(folder / "out")


def test_the_rows_beside_bad_ones_are_asked(bad: list[dict[str, Any]]) -> None:
    assert len(bad) == len(BAD) + 2
    for row in (bad[0], bad[-1]):
        assert (row["status"], row["id"]) == ("ok", "7")
        assert row["words"][0]["file"]
    assert bad[0]["answer"] == bad[-1]["answer"]


@pytest.mark.hostile
@pytest.mark.parametrize("number", range(len(BAD)))
def test_a_bad_row_says_what_is_wrong_in_one_line(number: int, bad: list[dict[str, Any]]) -> None:
    row = bad[number + 1]
    assert row["status"] == "error"
    assert BAD[number][1] in row["error"]
    assert "\n" not in row["error"]
    assert len(row["error"]) <= 500


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("t.csv", b"image,question\n", "has no rows"),
        ("t.csv", b"image,text\n0.png,Is it?\n", "no column 'question'"),
        ("t.csv", b"\xff\xfe,question\nx,y\n", "not a whole CSV table in UTF-8"),
        ("t.csv", b'image,question\n0.png,"Is it\n', "not a whole CSV table"),
        ("t.parquet", b"PAR1", "not a whole Parquet table"),
        ("t.xlsx", b"PK", "no known ending"),
        ("t.jsonl", None, "does not exist"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_at_once(
    name: str, content: bytes | None, reason: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=reason):
        open_table(str(tmp_path / name))


def test_a_ragged_row_of_a_csv_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,question\na.png,What?,more\nb.png,What?\n", encoding="utf-8")
    rows = list(open_table(str(tmp_path / "t.csv")))
    assert [bool(row.fault) for row in rows] == [True, False]


def test_pictures_in_cells_and_at_addresses_are_the_same_pictures(table: Path, vlm: va.Vlm, tmp_path: Path) -> None:
    content = (table.parent / "1.png").read_bytes()
    with fsspec.open("memory://pictures/1.png", "wb") as file:
        file.write(content)
    images = [content, None, None]
    places = ["1.png", "memory://pictures/1.png", f"file://{table.parent}/1.png"]
    rows = [
        {"image": {"bytes": held, "path": place}, "question": "Is there a red circle?"}
        for held, place in zip(images, places, strict=True)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    output = Output(tmp_path / "out", files="memory://drawn/here")
    overlay_table(open_table(str(tmp_path / "t.parquet")), output, job(), vlm=vlm)
    found = records(tmp_path / "out")
    assert [row["status"] for row in found] == ["ok"] * 3
    assert len({json.dumps(row["words"][0] | {"file": ""}) for row in found}) == 1
    with fsspec.open(f"memory://drawn/here/{found[2]['words'][0]['file']}") as file, Image.open(file) as image:
        assert image.size == (90, 60)


def test_a_batch_that_fails_is_asked_row_by_row(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = va.load("scene")
    run = vlm.run

    def failing(request: Any) -> Any:
        if any("1.png" in item[0].name for item in request.items):
            raise RuntimeError("shapes do not\nfit")
        return run(request)

    monkeypatch.setattr(vlm, "run", failing)
    done(table, tmp_path / "out", vlm=vlm)
    rows = records(tmp_path / "out")
    assert rows[1]["error"] == "RuntimeError: shapes do not fit"
    assert [row["status"] for row in rows[:3]] == ["ok", "error", "partial"]
    monkeypatch.setattr(vlm, "run", lambda request: (_ for _ in ()).throw(RuntimeError("CUDA error: lost")))
    with pytest.raises(RuntimeError, match="lost"):
        done(table, tmp_path / "lost", vlm=vlm)


def test_what_cannot_be_written_ends_the_run_and_it_can_go_on(
    table: Path, once: Path, vlm: va.Vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = os.fsync, [12]

    def full(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr("vlmattn.core.files.os.fsync", full)
        with pytest.raises(FileError, match="No space left"):
            done(table, tmp_path / "out", vlm=vlm)
    assert done(table, tmp_path / "out", vlm=vlm).rows == 14
    assert whole(tmp_path / "out") == whole(once)


def test_each_word_of_the_answer_and_sampling_with_seeds_of_rows(table: Path, vlm: va.Vlm, tmp_path: Path) -> None:
    sampled = Decoding(6, seed=3, generate={"do_sample": True, "temperature": 2.0})
    changes: dict[str, Any] = {"decoding": sampled, "reading": Reading(each_word=True)}
    done(table, tmp_path / "one", vlm=vlm, **changes)
    done(table, tmp_path / "two", vlm=vlm, **changes)
    assert whole(tmp_path / "one") == whole(tmp_path / "two")
    assert [word["word"] for word in records(tmp_path / "one")[0]["words"]] == ["it", "is", "green"]


@pytest.mark.parametrize("moment", [1, 2])
def test_an_interrupted_run_goes_on(moment: int, table: Path, once: Path, vlm: va.Vlm, tmp_path: Path) -> None:
    ticks: list[int] = []

    def tick(finished: int, total: int) -> None:
        ticks.append(finished)
        if len(ticks) == moment + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        overlay_table(open_table(str(table)), Output(tmp_path / "out"), job(), vlm=vlm, progress=tick)
    assert not [t for t in threading.enumerate() if t.name.startswith("vlmattn-overlay")]
    made = done(table, tmp_path / "out", vlm=vlm)
    assert made.made == 14 - ticks[-1]
    assert whole(tmp_path / "out") == whole(once)


def started(table: Path, out: Path, vlm: va.Vlm) -> tuple[int, int]:
    """Another process that has the table asked: its number, and where it writes how many rows are done."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(readable)
            tick = lambda finished, total: os.write(writable, bytes([finished]))  # noqa: E731
            overlay_table(open_table(str(table)), Output(out), job(), vlm=vlm, progress=tick)
        finally:
            os._exit(0)
    os.close(writable)
    return child, readable


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_at_any_moment_the_results_are_the_same(table: Path, once: Path, vlm: va.Vlm, tmp_path: Path) -> None:
    """A process is killed a random time after its start, or after a batch: while it reads, asks, draws or writes."""
    rng, out, counts = random.Random(1), tmp_path / "out", []
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)  # OpenCV's own threads do not live on in a copy of this process
    try:
        for kill in range(8):
            child, pipe = started(table, out, vlm)
            begun = os.read(pipe, 1)[0]
            if kill % 2 and begun < 14:
                os.read(pipe, 1)
            threading.Event().wait(0.3 * rng.random())
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(pipe)
            counts.append(begun)
        assert done(table, out, vlm=vlm).rows == 14
    finally:
        cv2.setNumThreads(threads)
    assert counts == sorted(counts)  # nothing was lost
    assert whole(out) == whole(once)
    batches = [json.loads(line[9:])["batch"] for line in (out / "shards/00000.jsonl").read_text().splitlines()]
    assert batches == list(range(5))  # nothing was kept twice


def test_what_waits_is_bounded(table: Path, vlm: va.Vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that were read and are not yet written, at most; of a table of any length."""
    rows = open_table(str(table))
    alive, most = set(), []
    load, end = flow_module.load_row, flow_module.finished

    def loaded(row: Any, folder: str) -> Any:
        alive.add(row.number)
        most.append(len(alive))
        return load(row, folder)

    def ended(asked: Any, words: Any) -> Any:
        alive.discard(asked.row.number)
        return end(asked, words)

    monkeypatch.setattr(flow_module, "load_row", loaded)
    monkeypatch.setattr(flow_module, "finished", ended)
    overlay_table(rows, Output(tmp_path / "out"), job(batch=1), vlm=vlm, workers=2)
    assert max(most) <= 2 * flow_module.AHEAD + 2


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: job(batch=0), "at least 1 row"),
        (lambda folder: job(steering=("nothing",)), "does not exist"),
        (lambda folder: job(detector=str(folder / "none.json")), "cannot be read"),
        (lambda folder: job(decoding=Decoding(generate={"input_ids": 3})), "input_ids"),
        (lambda folder: Reading(method="look"), "method must be one of"),
        (lambda folder: Reading(normalise="most"), "normalise must be one of"),
        (lambda folder: Reading(rows="most"), "rows must be one of"),
        (lambda folder: Drawing("gif"), "format must be one of"),
        (lambda folder: Drawing(cmap="jet"), "cmap must be one of"),
        (lambda folder: Drawing(quality=0), "quality must be"),
        (lambda folder: Output(folder, "xlsx"), "a table must be one of"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(make: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(VlmattnError, match=reason):
        make(tmp_path)
