"""Label Studio tasks with pre-annotations: boxes in percent, masks in its brush format.

Layouts: https://labelstud.io/guide/predictions and https://labelstud.io/guide/export. The brush format is run lengths
of the RGBA pixels, row by row: 32 bits of how many numbers there are, 5 of how wide they are less one, 4 times 4 of the
widths that a length may have less one, then stretches of (1 bit: repeated or not, 2: which width, length less one,
number).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import FileError
from vlmattn.core.files import atomic_write_text, filled_folder
from vlmattn.export.plain_xml import allowed, indented
from vlmattn.export.regions import Marked, MarkedRegion, RegionRule, mark
from vlmattn.export.subject import Mapped, Written, write_pictures

TASKS_FILE, CONFIG_FILE = "tasks.json", "labelling.xml"
PICTURES = "images"
_WIDTHS = (3, 4, 8, 16)
_CHANNELS = 4


def to_label_studio(
    looks: Mapped | Iterable[Mapped] | Marked,
    rule: RegionRule | None = None,
    *,
    prefix: str = "/data/local-files/?d=images/",
    **changes: Any,
) -> list[dict[str, Any]]:
    """One task per picture, with a box and a mask for every region as a prediction.

    Args:
        looks, rule, changes: as in :func:`mark`. prefix: what stands before a picture's file name in the task: where
            Label Studio finds it. The default is its local storage, rooted in the exported folder.

    Raises:
        As :func:`mark`.
    """
    marked = mark(looks, rule, **changes)
    return [_task(marked, number, prefix) for number in range(len(marked.files))]


def _task(marked: Marked, number: int, prefix: str) -> dict[str, Any]:
    file, regions, looks = marked.files[number], marked.on(number), marked.looks_at(number)
    made = [look.patch_map.provenance for look in looks]
    results = [part for n, one in enumerate(regions) for part in _results(one, f"{number}-{n}", file.picture.wh)]
    return {
        "data": {
            "image": f"{prefix}{file.file}",
            "original_name": file.picture.name,
            "note": file.note,
            "questions": list(dict.fromkeys(one.question for one in made)),
            "answers": list(dict.fromkeys(one.answer for one in made)),
        },
        "meta": marked.made | {"provenance": {look.label: look.patch_map.provenance.to_dict() for look in looks}},
        "predictions": [
            {
                "model_version": " ".join(dict.fromkeys(one.model for one in made)) or "vlmattn",
                "score": max((one.score for one in regions), default=0.0),
                "result": results,
            }
        ],
    }


def _results(one: MarkedRegion, name: str, image_wh: tuple[int, int]) -> list[dict[str, Any]]:
    (width, height), (x0, y0, w, h) = image_wh, one.box_xywh
    common = {
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": one.score,
    }
    box = {"x": 100 * x0 / width, "y": 100 * y0 / height, "width": 100 * w / width, "height": 100 * h / height}
    return [
        common
        | {
            "id": f"box-{name}",
            "from_name": "box",
            "type": "rectanglelabels",
            "value": box | {"rotation": 0, "rectanglelabels": [one.label]},
        },
        common
        | {
            "id": f"mask-{name}",
            "from_name": "mask",
            "type": "brushlabels",
            "value": {"format": "rle", "rle": encoded_brush(one.mask_hw), "brushlabels": [one.label]},
        },
    ]


def labelling_config(labels: Sequence[str]) -> str:
    """The labelling interface (XML) that the tasks fit: boxes and masks for these words."""
    view = ET.Element("View")
    ET.SubElement(view, "Image", name="image", value="$image")
    for kind, name in (("RectangleLabels", "box"), ("BrushLabels", "mask")):
        choices = ET.SubElement(view, kind, name=name, toName="image")
        for label in labels:
            ET.SubElement(choices, "Label", value=allowed(label))
    return indented(view, declared=False)


def save_label_studio(
    folder: str | Path, looks: Mapped | Iterable[Mapped] | Marked, rule: RegionRule | None = None, **options: Any
) -> Written:
    """Write ``tasks.json``, the interface ``labelling.xml``, and the upright pictures under ``images``.

    Args:
        options: ``prefix`` of :func:`to_label_studio`, and fields of the rule.

    Raises:
        As :func:`mark`. FileError: the folder cannot be written.
    """
    import json

    prefix = {name: options.pop(name) for name in ("prefix",) if name in options}
    marked = mark(looks, rule, **options)
    tasks = to_label_studio(marked, **prefix)
    with filled_folder(folder) as place, filled_folder(Path(folder) / PICTURES) as beside:
        pictures = write_pictures(beside, marked.files)
        config = atomic_write_text(place(CONFIG_FILE), labelling_config(marked.labels))
        file = atomic_write_text(place(TASKS_FILE), json.dumps(tasks, ensure_ascii=False, allow_nan=False) + "\n")
    return Written((file, config, *pictures), marked.skipped)


# -- brush masks -------------------------------------------------------------------------------------------------------


def encoded_brush(mask_hw: NDArray[np.bool_]) -> list[int]:
    """A mask (H, W) in Label Studio's brush format, as bytes: 255 in all four channels inside, 0 outside."""
    flat = np.asarray(mask_hw, dtype=np.bool_).ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([[0], edges])
    lengths = np.diff(np.concatenate([starts, [flat.size]])) * _CHANNELS
    bits = [f"{flat.size * _CHANNELS:032b}", "00111", *(f"{width - 1:04b}" for width in _WIDTHS)]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        bits += _stretches(length, "11111111" if flat[start] else "00000000")
    text = "".join(bits)
    text += "0" * (8 - len(text) % 8)  # to a whole byte, and one byte more where it is one: as its own converter does
    digits = np.frombuffer(text.encode("ascii"), dtype=np.uint8) - ord("0")
    packed: list[int] = np.packbits(digits).tolist()
    return packed


def _stretches(length: int, value: str) -> list[str]:
    parts = []
    while length > 0:
        take = min(length, 1 << _WIDTHS[-1])
        slot = next(n for n, width in enumerate(_WIDTHS) if take <= 1 << width)
        parts.append(f"1{slot:02b}{take - 1:0{_WIDTHS[slot]}b}{value}")
        length -= take
    return parts


def decoded_brush(rle: Sequence[int], image_wh: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask (H, W) of Label Studio's brush format; a pixel is inside where its alpha is above 0.

    Raises:
        FileError: bytes that end too early, or of another size of picture.
    """
    width, height = image_wh
    bits = np.unpackbits(np.array(rle, dtype=np.uint8))
    text = (bits + ord("0")).astype(np.uint8).tobytes().decode("ascii")
    try:
        values = _unpacked(text)
    except (ValueError, IndexError) as error:
        raise FileError(f"the brush mask is cut off or damaged: {error}") from error
    if values.size != width * height * _CHANNELS:
        raise FileError(f"the brush mask has {values.size} numbers, a picture of {width} x {height} needs 4 a pixel")
    inside: NDArray[np.bool_] = values.reshape(height, width, _CHANNELS)[..., 3] > 0
    return inside


def _unpacked(text: str) -> NDArray[np.uint8]:
    total, wide = int(text[:32], 2), int(text[32:37], 2) + 1
    widths = [int(text[37 + 4 * n : 41 + 4 * n], 2) + 1 for n in range(4)]
    parts, done, at = [], 0, 53
    while done < total:
        repeated, width = text[at] == "1", widths[int(text[at + 1 : at + 3], 2)]
        count = int(text[at + 3 : at + 3 + width], 2) + 1
        at += 3 + width
        held = [int(text[at + wide * n : at + wide * (n + 1)], 2) for n in range(1 if repeated else count)]
        at += wide * len(held)
        parts.append(np.full(count, held[0], dtype=np.uint8) if repeated else np.array(held, dtype=np.uint8))
        done += count
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint8)
