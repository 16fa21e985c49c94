"""What is on COCO's pictures, for CHAIR: categories of the instances and words of people's captions, together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.files import write_json
from vlmattn.core.records import field, listed, read_object
from vlmattn.hallucination.chair import COCO
from vlmattn.hallucination.synonyms import SynonymTable
from vlmattn.hallucination.words import named_objects


def coco_truth(
    instances: Sequence[str | Path],
    captions: Sequence[str | Path],
    ids: Iterable[int | str],
    table: SynonymTable,
    family: str = "lemma",
) -> dict[str, frozenset[str]]:
    """The objects of pictures, by id: categories of their instances, and what their human captions name.

    Args:
        instances: files such as ``instances_train2014.json`` and ``instances_val2014.json``. captions: such as
            ``captions_val2014.json``. ids: the pictures wanted. table: words and objects. family: how captions are
            read; the official programs read people's captions as they read the model's.

    Raises:
        FileError: a file is missing or cut short. SpecError: a picture is in none of the files, or a category is no
            word of the table.
    """
    wanted = [str(int(one)) for one in ids]
    truth: dict[str, set[str]] = {one: set() for one in wanted}
    known: set[str] = set()
    for path in instances:
        known |= _add_instances(path, truth, table)
    for path in captions:
        known |= _add_captions(path, truth, table, family)
    missing = [one for one in wanted if one not in known]
    if missing:
        raise SpecError(f"{len(missing)} pictures are in none of the annotation files: {listed(missing)}")
    return {one: frozenset(objects) for one, objects in truth.items()}


def save_truth(path: str | Path, truth: Mapping[str, Iterable[str]]) -> Path:
    """Write the objects of pictures as JSON, ``{"226988": ["person", …]}``: built once, read by :func:`load_truth`."""
    return write_json(path, {one: sorted(objects) for one, objects in truth.items()})


def load_truth(path: str | Path) -> dict[str, frozenset[str]]:
    """The objects of pictures from JSON, by picture id. Pickles, such as the official cache, are not read.

    Raises:
        FileError: missing, cut short, a pickle, or of other values.
    """
    if Path(path).suffix in (".pkl", ".pickle"):
        raise FileError(f"{path} is a pickle, which can run code when it is read: build the truth with coco_truth")
    truth: dict[str, frozenset[str]] = {}
    for one, objects in read_object(path).items():
        if not isinstance(objects, list) or not all(isinstance(o, str) for o in objects):
            raise FileError(f"{path}: the objects of {one} must be a list of words, got {objects!r}")
        truth[one] = frozenset(objects)
    return truth


def _add_instances(path: str | Path, truth: dict[str, set[str]], table: SynonymTable) -> set[str]:
    data = read_object(path, published=COCO)
    names = {
        row["id"]: table.node(field(row, "name", f"{path}: a category")) for row in _rows(data, "categories", path)
    }
    seen = set()
    for row in _rows(data, "annotations", path):
        one = str(field(row, "image_id", f"{path}: an instance", int))
        category = field(row, "category_id", f"{path}: an instance", int)
        if category not in names:
            raise FileError(f"{path}: an instance of {one} is of the unknown category {category}")
        seen.add(one)
        if one in truth:
            truth[one].add(names[category])
    return seen


def _add_captions(path: str | Path, truth: dict[str, set[str]], table: SynonymTable, family: str) -> set[str]:
    seen = set()
    for row in _rows(read_object(path, published=COCO), "annotations", path):
        one = str(field(row, "image_id", f"{path}: a caption", int))
        text = field(row, "caption", f"{path}: a caption")
        seen.add(one)
        if one in truth:
            truth[one] |= set(named_objects(text, table, family).nodes)
    return seen


def _rows(data: Mapping[str, Any], name: str, path: str | Path) -> list[Any]:
    return field(data, name, str(path), list)
