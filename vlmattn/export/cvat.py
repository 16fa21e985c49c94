"""CVAT for images 1.1: boxes, and masks as run lengths inside their boxes.

Layout: https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat/. Run lengths count pixels row by row inside the
mask's box, outside and inside in turn, beginning with outside.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.files import atomic_write_text, filled_folder
from vlmattn.export.plain_xml import allowed, indented
from vlmattn.export.regions import Marked, MarkedRegion, RegionRule, mark
from vlmattn.export.subject import Mapped, Written, write_pictures

CVAT_FILE = "annotations.xml"
PICTURES = "images"


def to_cvat(looks: Mapped | Iterable[Mapped] | Marked, rule: RegionRule | None = None, **changes: Any) -> str:
    """The regions of maps as XML of CVAT for images 1.1: a label for every word, a box and a mask for every region.

    Raises:
        As :func:`mark`.
    """
    marked = mark(looks, rule, **changes)
    root = ET.Element("annotations")
    _child(root, "version", "1.1")
    _meta(root, marked)
    for number, file in enumerate(marked.files):
        width, height = file.picture.wh
        image = ET.SubElement(
            root, "image", id=str(number), name=allowed(file.file), width=str(width), height=str(height)
        )
        for one in marked.on(number):
            _box(image, one)
            _mask(image, one)
    return indented(root)


def _meta(root: ET.Element, marked: Marked) -> None:
    task = ET.SubElement(ET.SubElement(root, "meta"), "task")
    _child(task, "name", "vlmattn")
    _child(task, "size", str(len(marked.files)))
    _child(task, "mode", "annotation")
    labels = ET.SubElement(task, "labels")
    for name in marked.labels:
        label = ET.SubElement(labels, "label")
        _child(label, "name", name)
        _child(label, "type", "any")
        score = ET.SubElement(ET.SubElement(label, "attributes"), "attribute")
        for tag, text in (("name", "score"), ("mutable", "False"), ("input_type", "text"), ("default_value", "")):
            _child(score, tag, text)
        _child(score, "values", "")
    told = marked.made
    _child(task, "source", f"{told['made_by']}: {told['regions']}; score: {told['score']}")
    if marked.skipped:
        _child(task, "skipped", "; ".join(marked.skipped))


def _child(parent: ET.Element, tag: str, text: str) -> None:
    ET.SubElement(parent, tag).text = allowed(text)


def _box(image: ET.Element, one: MarkedRegion) -> None:
    names = ("xtl", "ytl", "xbr", "ybr")
    place = {name: f"{value:.2f}" for name, value in zip(names, one.box_xyxy, strict=True)}
    box = ET.SubElement(image, "box", _shape(one) | place)
    _score(box, one)


def _mask(image: ET.Element, one: MarkedRegion) -> None:
    left, top, width, height = one.box_xywh
    place = {"left": str(left), "top": str(top), "width": str(width), "height": str(height)}
    inside = one.mask_hw[top : top + height, left : left + width]
    runs = ", ".join(str(n) for n in run_lengths(inside))
    mask = ET.SubElement(image, "mask", _shape(one) | {"rle": runs} | place)
    _score(mask, one)


def _shape(one: MarkedRegion) -> dict[str, str]:
    return {"label": allowed(one.label), "source": "auto", "occluded": "0", "z_order": "0"}


def _score(shape: ET.Element, one: MarkedRegion) -> None:
    ET.SubElement(shape, "attribute", name="score").text = f"{one.score:.6f}"


def run_lengths(mask_hw: NDArray[np.bool_]) -> list[int]:
    """Lengths of stretches outside and inside in turn, row by row, beginning with outside (0 where there is none)."""
    flat = np.asarray(mask_hw, dtype=np.bool_).ravel()
    edges = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    lengths: list[int] = np.diff(edges).tolist()
    return [0, *lengths] if flat[0] else lengths


def save_cvat(
    folder: str | Path, looks: Mapped | Iterable[Mapped] | Marked, rule: RegionRule | None = None, **changes: Any
) -> Written:
    """Write :func:`to_cvat` as ``annotations.xml``, and the upright pictures under ``images``.

    Make a CVAT task of the pictures, then upload the annotations as *CVAT for images 1.1*.

    Raises:
        As :func:`mark`. FileError: the folder cannot be written.
    """
    marked = mark(looks, rule, **changes)
    text = to_cvat(marked)
    with filled_folder(folder) as place, filled_folder(Path(folder) / PICTURES) as beside:
        pictures = write_pictures(beside, marked.files)
        file = atomic_write_text(place(CVAT_FILE), text)
    return Written((file, *pictures), marked.skipped)
