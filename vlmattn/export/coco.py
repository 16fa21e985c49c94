"""COCO JSON: a category for every word, a box and a mask (RLE) for every region, upright pictures beside the file.

Layout: https://cocodataset.org/#format-data; masks are encoded by pycocotools.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from vlmattn.core.errors import FileError
from vlmattn.core.files import filled_folder, write_json
from vlmattn.core.optional import require
from vlmattn.core.records import read_object
from vlmattn.export.regions import Marked, RegionRule, mark
from vlmattn.export.subject import Mapped, Written, write_pictures

COCO_FILE = "annotations.json"
PICTURES = "images"


def to_coco(
    looks: Mapped | Iterable[Mapped] | Marked, rule: RegionRule | None = None, **changes: Any
) -> dict[str, Any]:
    """The regions of maps in COCO's layout, as plain values.

    Boxes are [left, top, width, height] in pixels of the upright original, masks are run lengths (``iscrowd`` 0) that
    hold exactly the region, ``area`` is the mask's, ``score`` the share of the map's positive values inside it, and
    ``provenance`` the number of one in ``info``. Words whose maps are flat have a category and no annotation.

    Args:
        looks: from ``run.map(...)``, or what :func:`mark` gave. rule: and its fields, as in :func:`mark`.

    Raises:
        SpecError: nothing given, or a rule that cannot be. DependencyMissing: pycocotools is not installed.
    """
    coder = require("pycocotools.mask", extra="export")
    marked = mark(looks, rule, **changes)
    categories = {label: number for number, label in enumerate(marked.labels, 1)}
    made: dict[str, int] = {}
    annotations = []
    for number, one in enumerate(marked.regions, 1):
        runs = coder.encode(np.asfortranarray(one.mask_hw.astype(np.uint8)))
        annotations.append(
            {
                "id": number,
                "image_id": one.picture + 1,
                "category_id": categories[one.label],
                "bbox": [float(n) for n in one.box_xywh],
                "area": one.area,
                "segmentation": {"size": [int(n) for n in runs["size"]], "counts": runs["counts"].decode("ascii")},
                "iscrowd": 0,
                "score": one.score,
                "provenance": made.setdefault(one.provenance.to_json(), len(made)),
            }
        )
    provenances = {one.provenance.to_json(): one.provenance.to_dict() for one in marked.regions}
    return {
        "info": {"description": "Regions of attention maps"} | marked.made | {"provenance": list(provenances.values())},
        "licenses": [],
        "images": _images(marked),
        "categories": [{"id": n, "name": label, "supercategory": "word"} for label, n in categories.items()],
        "annotations": annotations,
    }


def _images(marked: Marked) -> list[dict[str, Any]]:
    return [
        {
            "id": number,
            "file_name": one.file,
            "width": one.picture.wh[0],
            "height": one.picture.wh[1],
            "original_name": one.picture.name,
            "note": one.note,
        }
        for number, one in enumerate(marked.files, 1)
    ]


def save_coco(
    folder: str | Path, looks: Mapped | Iterable[Mapped] | Marked, rule: RegionRule | None = None, **changes: Any
) -> Written:
    """Write :func:`to_coco` as ``annotations.json``, and the upright pictures under ``images``.

    Files that are there already are replaced, each of them whole. If writing fails, nothing new is left behind.

    Raises:
        As :func:`to_coco`. FileError: the folder cannot be written.
    """
    marked = mark(looks, rule, **changes)
    told = to_coco(marked)
    with filled_folder(folder) as place, filled_folder(Path(folder) / PICTURES) as beside:
        pictures = write_pictures(beside, marked.files)
        file = write_json(place(COCO_FILE), told)
    return Written((file, *pictures), marked.skipped)


def read_coco(path: str | Path) -> dict[str, Any]:
    """The COCO file that :func:`save_coco` wrote, checked for what belongs together.

    Raises:
        FileError: missing, cut short, or annotations of pictures or categories that are not there.
    """
    held = read_object(path)
    parts = ("images", "annotations", "categories")
    if any(not isinstance(held.get(name), list) for name in parts):
        raise FileError(f"{path} is no COCO file: it must hold lists of {', '.join(parts)}")
    known = {name: {one.get("id") for one in held[name]} for name in ("images", "categories")}
    for one in held["annotations"]:
        if one.get("image_id") not in known["images"] or one.get("category_id") not in known["categories"]:
            raise FileError(f"{path}: annotation {one.get('id')} is of a picture or category that is not there")
    return held
