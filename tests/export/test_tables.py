"""Tables are read back with pyarrow and pandas, and say what the run says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

import vlmattn as va
from tests.export.conftest import FLAT, PEAKED, made
from vlmattn.core.errors import FileError, SpecError
from vlmattn.export import load_table, map_table, mark, save_table, word_table


def test_a_row_for_every_word_holds_what_the_run_says(run: Any, tmp_path: Path) -> None:
    written = run.export(tmp_path / "w.parquet")
    rows = parquet.read_table(written.file).to_pylist()
    found = run.grounding()
    assert [row["label"] for row in rows] == [one.word for one in found]
    assert [row["word"] for row in rows] == ["a", "red", "cup", "no", "cup"]
    start = run.trace.layout.answer_start
    for row, one in zip(rows, found, strict=True):
        look = run.map(run.words()[0] if row["word"] == "a" else row["word"], occurrence=None)
        assert (row["run"], row["question"], row["answer"]) == (0, run.question, run.answer)
        assert (row["image_share"], row["entropy"]) == (one.image_share, one.entropy)
        assert row["log_probability"] == pytest.approx(one.log_probability)
        assert (row["peak_x"], row["peak_y"]) == one.peak_xy
        assert row["answer_token"] == row["position"] - start
        assert run.trace.layout.input_ids[row["tokens"][0]] == run.trace.layout.input_ids[row["position"]]
        assert row["risk"] is None
        if row["label"] == look.label:
            (region,) = mark(look).regions
            assert (row["x0"], row["y0"], row["x1"], row["y1"]) == region.box_xyxy
            assert row["box_score"] == region.score
            assert row["peak_value"] == pytest.approx(look.patch_map.peak().value)


def test_pandas_and_the_head_of_the_schema(run: Any, tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    run.export(tmp_path / "w.parquet", layers=[1])
    frame = pd.read_parquet(tmp_path / "w.parquet")
    assert frame["image_share"].between(0, 1).all()
    assert list(frame["picture_name"]) == [run.pictures[0].name] * 5
    assert str(frame["position"].dtype) == "int64"
    table, head = load_table(tmp_path / "w.parquet")
    assert table.num_rows == 5
    assert head["provenance"] == [run.trace.provenance.to_dict()]
    assert head["options"] == {"layers": "[1]"}


def test_several_runs_and_pictures_are_one_table(run: Any, two: Any) -> None:
    table = word_table([run, two])
    rows = table.to_pylist()
    assert [row["run"] for row in rows] == [0] * 5 + [1] * 4
    assert [row["picture"] for row in rows[5:]] == [0, 1, 0, 1]
    for row in rows[5:]:
        assert row["picture_share"] < row["image_share"]
    pair = rows[5:7]
    assert sum(row["picture_share"] for row in pair) == pytest.approx(pair[0]["image_share"])
    assert len(json.loads(table.schema.metadata[b"vlmattn"])["provenance"]) == 2


def test_a_loaded_run_gives_the_same_table(run: Any, tmp_path: Path) -> None:
    run.export(tmp_path / "r.safetensors")
    assert word_table(va.load_run(tmp_path / "r.safetensors")).equals(word_table(run))


def test_a_row_for_every_grid_holds_its_values(run: Any, tmp_path: Path) -> None:
    looks = [run.map("red"), run.map("cup", normalise="share")]
    table, head = load_table(save_table(tmp_path / "m.parquet", map_table(looks)))
    assert head["rows"] == "grids"
    for row, look in zip(table.to_pylist(), looks, strict=True):
        (tile,), (grid,) = look.patch_map.layout.tiles, look.patch_map.values
        values = np.array(row["values"]).reshape(row["rows"], row["cols"])
        assert np.array_equal(values.astype(grid.dtype), grid)
        assert (row["x0"], row["y0"], row["x1"], row["y1"]) == tile.source_box_xyxy
        assert json.loads(row["provenance"]) == look.patch_map.provenance.to_dict()
        assert (row["label"], row["unit"]) == (look.label, look.patch_map.provenance.unit)
        assert all(row["visible"])
    run.export(tmp_path / "all.parquet", format="maps")
    assert load_table(tmp_path / "all.parquet")[0].num_rows == 5


def test_what_is_not_known_is_null(vlm: Any, run: Any) -> None:
    no_scores = vlm.ask(
        run.pictures[0], "What?", answer="red", capture=va.CaptureSpec(rows=("question", "answer"), top_k=0)
    )
    (row,) = word_table(no_scores).to_pylist()
    assert row["log_probability"] is None or not math.isnan(row["log_probability"])
    assert row["sink_share"] is None
    assert map_table(made(FLAT)).to_pylist()[0]["row_spans"] is None


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"x" * 40 + b"PAR1"])
def test_damaged_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(FileError, match=r"x\.parquet is not a Parquet table"):
        load_table(tmp_path / "x.parquet")


def test_other_tables_and_other_things_are_refused(tmp_path: Path) -> None:
    import pyarrow as pa

    parquet.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(FileError, match="not a table that vlmattn wrote"):
        load_table(tmp_path / "a.parquet")
    with pytest.raises(FileError, match="does not exist"):
        load_table(tmp_path / "b.parquet")
    with pytest.raises(FileError, match=r"written as \.parquet"):
        save_table(tmp_path / "x.csv", map_table(made(PEAKED)))
    with pytest.raises(SpecError, match=r"expected a pyarrow\.Table"):
        save_table(tmp_path / "x.parquet", [1])
    with pytest.raises(SpecError, match="takes runs"):
        word_table([])
    with pytest.raises(SpecError, match="look"):
        map_table([3])
