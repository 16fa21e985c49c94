"""Runs in the layouts of other programs are read back as they were."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from vlmattn.core.errors import SpecError
from vlmattn.evaluate import RUN_LAYOUTS, write_run
from vlmattn.hallucination import Item, read_answers

ITEMS = [Item(str(n), (), f"Is there a dog in picture {n}?", f"{n}.png", {"label": "yes"}) for n in range(3)]
SAID = {"0": "Yes.", "1": 'No, "none"\t\nat all', "2": "ja, ein Hund 🐶"}


@pytest.mark.parametrize("layout", [name for name in RUN_LAYOUTS if name != "parquet"])
def test_answer_files_are_read_back(tmp_path: Path, layout: str) -> None:
    (path,) = write_run(tmp_path, ITEMS, SAID, [layout, layout], model="scene")
    assert layout in path.name
    assert read_answers(path, ITEMS) == SAID


def test_table_is_read_back(tmp_path: Path) -> None:
    (path,) = write_run(tmp_path, ITEMS, SAID, ["parquet"])
    rows = pq.read_table(path).to_pylist()
    assert [(row["id"], row["image_id"], row["prompt"]) for row in rows] == [
        (item.id, item.image_id, item.prompt) for item in ITEMS
    ]
    assert {row["id"]: row["answer"] for row in rows} == SAID


def test_unknown_layouts_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="layouts are llava"):
        write_run(tmp_path, ITEMS, SAID, ["llava", "xml"])
    assert not list(tmp_path.iterdir())
