"""Finished runs in other programs' layouts, and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vlmattn.core.errors import SpecError
from vlmattn.core.files import atomic_write_bytes
from vlmattn.hallucination import Item, write_answers
from vlmattn.hallucination.answers import ANSWER_LAYOUTS

_ENDINGS = {"amber": "json", "vlmevalkit": "tsv"}
RUN_LAYOUTS: tuple[str, ...] = (*ANSWER_LAYOUTS, "parquet")
"""What a run can be written in: answer files of other programs, or a Parquet table of items and answers."""


def check_layouts(layouts: Iterable[str]) -> tuple[str, ...]:
    """The layouts, once each.

    Raises:
        SpecError: one does not exist; lists those there are.
    """
    wanted = tuple(dict.fromkeys(layouts))
    for one in wanted:
        if one not in RUN_LAYOUTS:
            raise SpecError(f"layout {one!r} does not exist; layouts are {', '.join(RUN_LAYOUTS)}")
    return wanted


def write_run(
    folder: str | Path, items: Sequence[Item], answers: Mapping[str, str], layouts: Iterable[str], *, model: str = ""
) -> tuple[Path, ...]:
    """Write a run's answers beside it: ``answers-llava.jsonl``, ``answers-vlmevalkit.tsv``, ``results.parquet`` …

    Args:
        folder: of the run. items: of its benchmark, in the order to write. answers: by item id. layouts: of
            :data:`RUN_LAYOUTS`. model: its name, where a layout has a place for it.

    Raises:
        SpecError: no such layout, or answers that do not fit the items. FileError: a file cannot be written.
    """
    root, wanted = Path(folder), check_layouts(layouts)
    written = []
    for one in wanted:
        if one == "parquet":
            written.append(atomic_write_bytes(root / "results.parquet", _parquet(items, answers)))
        else:
            path = root / f"answers-{one}.{_ENDINGS.get(one, 'jsonl')}"
            written.append(write_answers(path, items, answers, layout=one, model=model))
    return tuple(written)


def _parquet(items: Sequence[Item], answers: Mapping[str, str]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "id": [item.id for item in items],
        "image_id": [item.image_id for item in items],
        "prompt": [item.prompt for item in items],
        "answer": [answers[item.id] for item in items],
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()}), sink)
    return bytes(sink.getvalue().to_pybytes())
