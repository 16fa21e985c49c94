"""Answer files of other programs, read and written: joined to a benchmark's items by id, never by position."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.files import atomic_write_text
from vlmattn.core.records import Row, listed, read_rows
from vlmattn.hallucination.benchmark import Item, check_answers
from vlmattn.hallucination.pope import same_question

_TEXTS = (
    "prediction", "filtered_resps", "response", "caption", "model_answer", "model_prediction", "text", "answer",
    "resps",
)  # fmt: skip
_IDS = ("question_id", "image_id", "id")
_PLACES = ("index", "doc_id")
"""Numbers of rows, which are ids only where there is nothing better: they often look like another file's ids."""
_HALLUSION = ("category", "subcategory", "set_id", "figure_id", "question_id")


def read_answers(path: str | Path, items: Sequence[Item]) -> dict[str, str]:
    """Answers by item id, from a file of LLaVA, POPE, OPERA, VCD, AMBER, CHAIR, MMHal, lmms-eval or VLMEvalKit.

    Rows are joined by the id they hold (``question_id``, ``image_id``, ``id``, ``index``, ``doc_id``, or the one inside
    lmms-eval's metrics), with the row's ``category`` before it where a benchmark of several splits has it so; where no
    row's id is an item's, by picture and question, and one row then answers every item with the same. Rows that hold
    neither are refused: official files of POPE with only questions and answers belong together by position alone.

    Args:
        path: JSON lines, a JSON array, or a table (``.tsv``, ``.csv``, ``.xlsx``), plain or ``.gz``.
        items: of the benchmark.

    Raises:
        FileError: missing, empty, cut short, of several schemas, or without answers. SpecError: two rows of one item,
            or no row of any; what is missing or unknown beyond that is told when the answers are scored.
    """
    rows = read_rows(path)
    text = _text_field(rows, path)
    ids = {item.id: item for item in items}
    named = [_ids_of(row) for row in rows]
    if not any(one in ids for names in named for one in names):
        return _by_question(rows, text, items, path)
    answers: dict[str, str] = {}
    for number, (row, names) in enumerate(zip(rows, named, strict=True), 1):
        one = next((name for name in names if name in ids), None)
        if one is None:
            raise SpecError(f"{path}: row {number} is of no item: its id is {listed(names) or 'missing'}")
        _check_question(row, ids[one], path, number)
        _add(answers, one, _answer(row, text, path, number), path)
    return answers


def write_answers(
    path: str | Path, items: Sequence[Item], answers: Mapping[str, str], *, layout: str = "llava", model: str = ""
) -> Path:
    """Write answers as another program has them, so that its scorer can be run on them.

    Args:
        path: the file. items: of the benchmark, in the order to write. answers: by id. layout: ``"llava"`` (JSON lines
        of
            question_id, prompt, text, as POPE, VCD and LLaVA use), ``"chair"`` (JSON lines of image_id and caption),
            ``"amber"`` (an array of id and response), ``"lmms-eval"`` (sample log) or ``"vlmevalkit"`` (a table).
            model: its name, where the layout has a place for it.

    Raises:
        SpecError: no such layout, or answers that do not fit the items. FileError: the file cannot be written.
    """
    if layout not in ANSWER_LAYOUTS:
        raise SpecError(f"layout {layout!r} does not exist; layouts are {', '.join(ANSWER_LAYOUTS)}")
    check_answers(items, answers)
    rows = [ANSWER_LAYOUTS[layout](_Said(number, item, answers[item.id], model)) for number, item in enumerate(items)]
    if layout == "vlmevalkit":
        return atomic_write_text(path, _tab_separated(rows))
    if layout == "amber":
        return atomic_write_text(path, json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
    return atomic_write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _text_field(rows: Sequence[Row], path: str | Path) -> str:
    name = next((n for n in _TEXTS if n in rows[0]), None) if rows else None
    if name is None:
        held = ", ".join(sorted(map(str, rows[0]))) if rows else "no rows"
        raise FileError(f"{path} holds no answers under a known name ({', '.join(_TEXTS)}); it has {held}")
    for number, row in enumerate(rows, 1):
        if name not in row:
            raise FileError(f"{path} is of several schemas: row {number} has no {name!r}, and the first row has")
    return name


def _answer(row: Row, name: str, path: str | Path, number: int) -> str:
    value = row[name]
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise FileError(f"{path}: the answer of row {number} is {value!r}, and not text")
    return value


def _ids_of(row: Row) -> list[str]:
    if all(name in row for name in _HALLUSION):
        return ["_".join(str(row[name]) for name in _HALLUSION)]
    inner = [v for v in row.values() if isinstance(v, Mapping)]
    found = [str(r[name]) for r in (row, *inner) for name in _IDS if isinstance(r.get(name), (str, int))]
    if not found and None in _picture_and_question(row):
        found = [str(row[name]) for name in _PLACES if isinstance(row.get(name), (str, int))]
    split = next((str(r["category"]) for r in (row, *inner) if r.get("category")), "")
    ahead = [f"{split}-{one}" for one in found] if split else []
    return list(dict.fromkeys((*ahead, *found)))


def _by_question(rows: Sequence[Row], text: str, items: Sequence[Item], path: str | Path) -> dict[str, str]:
    wanted: dict[tuple[str, str], list[str]] = {}
    for item in items:
        asked = str(item.truth.get("question", item.prompt))
        wanted.setdefault((Path(item.image_id).stem, same_question(asked)), []).append(item.id)
    answers: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        image, question = _picture_and_question(row)
        if image is None or question is None:
            raise SpecError(
                f"{path}: no row has the id of an item, and row {number} has not both picture and question, so that it "
                "could only be joined by position: add the ids"
            )
        found = wanted.get((Path(str(image)).stem, same_question(question)))
        if found is None:
            raise SpecError(f"{path}: row {number} is of no item: {question!r} about {image}")
        for one in found:
            said = _answer(row, text, path, number)
            if answers.get(one) != said:
                _add(answers, one, said, path)
    return answers


def _picture_and_question(row: Row) -> tuple[str | None, str | None]:
    image = row.get("image_path") or row.get("image")
    question = row.get("question") or row.get("prompt") or row.get("query")
    return (image if isinstance(image, str) else None), (question if isinstance(question, str) else None)


def _check_question(row: Row, item: Item, path: str | Path, number: int) -> None:
    question, asked = _picture_and_question(row)[1], item.truth.get("question")
    if question is not None and asked is not None and same_question(question) != same_question(str(asked)):
        raise SpecError(
            f"{path}: row {number} has the id {item.id}, but asks {question!r} where the item asks {asked!r}: it is "
            "the answer file of another version of the benchmark"
        )


def _add(answers: dict[str, str], one: str, text: str, path: str | Path) -> None:
    if one in answers:
        raise SpecError(
            f"{path} answers {one} twice: keep the rows of one run (lmms-eval adds a second run's to a file)"
        )
    answers[one] = text


@dataclass(frozen=True)
class _Said:
    number: int
    item: Item
    text: str
    model: str


def _llava(said: _Said) -> dict[str, Any]:
    row = {
        "question_id": said.item.id,
        "prompt": said.item.prompt,
        "text": said.text,
        "image": said.item.image_id,
        "model_id": said.model,
    }
    return row | {"metadata": {}}


def _chair(said: _Said) -> dict[str, Any]:
    return {"image_id": int(said.item.id) if said.item.id.isdigit() else said.item.id, "caption": said.text}


def _amber(said: _Said) -> dict[str, Any]:
    return {"id": int(said.item.id) if said.item.id.isdigit() else said.item.id, "response": said.text}


def _lmms_eval(said: _Said) -> dict[str, Any]:
    label = str(said.item.truth.get("label", ""))
    inner = {"question_id": said.item.id, "prediction": said.text, "ground_truth": label}
    return {
        "doc_id": said.number,
        "target": label,
        "input": said.item.prompt,
        "filtered_resps": [said.text],
        "answer_of": inner,
    }


def _vlmevalkit(said: _Said) -> dict[str, Any]:
    question = str(said.item.truth.get("question", said.item.prompt))
    row = {"index": said.item.id, "image_path": said.item.image_id, "question": question}
    return row | {"answer": str(said.item.truth.get("label", "")), "prediction": said.text}


ANSWER_LAYOUTS: dict[str, Callable[[_Said], dict[str, Any]]] = {
    "llava": _llava,
    "chair": _chair,
    "amber": _amber,
    "lmms-eval": _lmms_eval,
    "vlmevalkit": _vlmevalkit,
}
"""A row of each layout that answers are written in."""


def _tab_separated(rows: Sequence[Mapping[str, Any]]) -> str:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
