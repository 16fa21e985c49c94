"""FiftyOne: a sample for every picture, with a heatmap and detections for every word, and fields of the answer.

Written without FiftyOne, in the JSON layout that its ``LegacyFiftyOneDataset`` reads; arrays stand in it as base64 of
zlib of ``.npy``.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.core.files import as_path, atomic_write_text, filled_folder, write_json
from vlmattn.core.optional import cv2, require
from vlmattn.export.regions import Marked, RegionRule, mark
from vlmattn.export.subject import Mapped, Written, pixels_of, write_pictures
from vlmattn.grid import PixelMap
from vlmattn.overlay.heat import scale_of

SAMPLES_FILE, METADATA_FILE = "samples.json", "metadata.json"
PICTURES = "data"
_MOST_SIDE = 1024
_OF_WORDS = ("image_share", "entropy", "log_probability", "sink_share", "risk", "verdict", "chance")


def to_fiftyone(
    looks: Mapped | Iterable[Mapped] | Marked,
    rule: RegionRule | None = None,
    *,
    folder: str | Path,
    grounding: Sequence[Any] = (),
    **changes: Any,
) -> list[Any]:
    """The maps as ``fiftyone.Sample`` objects, whose pictures are written into ``folder``.

    Args:
        looks, rule, changes: as in :func:`mark`. folder: where the upright pictures go, under ``data``.
        grounding: of the answer, from ``run.grounding()``: shares, risk and verdict of the words become attributes.

    Raises:
        As :func:`mark`. DependencyMissing: fiftyone is not installed. FileError: the folder cannot be written.
    """
    library = require("fiftyone", extra="fiftyone")
    marked = mark(looks, rule, **changes)
    with filled_folder(as_path(folder) / PICTURES) as beside:
        files = write_pictures(beside, marked.files)
    told = _samples(marked, grounding)
    placed = [one | {"filepath": str(file.absolute())} for one, file in zip(told, files, strict=True)]
    return [library.Sample.from_dict(one) for one in placed]


def save_fiftyone(
    folder: str | Path,
    looks: Mapped | Iterable[Mapped] | Marked,
    rule: RegionRule | None = None,
    *,
    grounding: Sequence[Any] = (),
    name: str = "vlmattn",
    **changes: Any,
) -> Written:
    """Write ``samples.json``, ``metadata.json`` and the upright pictures under ``data``; FiftyOne itself is not needed.

    It is read by ``fiftyone.Dataset.from_dir(folder, dataset_type=fiftyone.types.LegacyFiftyOneDataset)``.

    Args:
        grounding: as in :func:`to_fiftyone`. name: of the data set.

    Raises:
        As :func:`mark`. SpecError: no name. FileError: the folder cannot be written.
    """
    if not isinstance(name, str) or not name.strip():
        raise SpecError(f"a data set needs a name, got {name!r}")
    marked = mark(looks, rule, **changes)
    samples = _samples(marked, grounding)
    info = marked.made | {"fields": field_names(marked.labels)}
    with filled_folder(folder) as place, filled_folder(as_path(folder) / PICTURES) as beside:
        pictures = write_pictures(beside, marked.files)
        head = write_json(place(METADATA_FILE), {"name": name, "media_type": "image", "info": info})
        text = json.dumps({"samples": samples}, ensure_ascii=False, allow_nan=False)
        file = atomic_write_text(place(SAMPLES_FILE), text + "\n")
    return Written((file, head, *pictures), marked.skipped)


def field_names(labels: Sequence[str]) -> dict[str, str]:
    """The field that holds each word's heatmap: its number, and as much of the word as a field's name can hold."""
    slugs = [re.sub(r"[^a-z0-9]+", "_", label.casefold()).strip("_")[:40] for label in labels]
    return {
        label: f"map_{number}" + (f"_{slug}" if slug else "")
        for number, (label, slug) in enumerate(zip(labels, slugs, strict=True))
    }


def _samples(marked: Marked, grounding: Sequence[Any]) -> list[dict[str, Any]]:
    known = {one.word: _known(one) for one in grounding}
    fields = field_names(marked.labels)
    return [_sample(marked, number, fields, known) for number in range(len(marked.files))]


def _sample(
    marked: Marked, number: int, fields: Mapping[str, str], known: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    file, looks = marked.files[number], marked.looks_at(number)
    made = looks[0].patch_map.provenance
    width, height = file.picture.wh
    told: dict[str, Any] = {
        "filepath": f"{PICTURES}/{file.file}",
        "tags": [],
        "metadata": {"_cls": "ImageMetadata", "width": width, "height": height, "num_channels": 3},
        "original_name": file.picture.name,
        "note": file.note,
        "question": made.question,
        "answer": {"_cls": "Classification", "tags": [], "label": made.answer} | _of_answer(known),
        "model": made.model,
        "provenance": made.to_json(),
        "regions": {"_cls": "Detections", "detections": _detections(marked, number, known)},
    }
    # Of two maps of one word on one picture, such as those of two runs, the first is shown.
    for look in reversed(looks):
        told[fields[look.label]] = _heatmap(pixels_of(look))
    return told


def _detections(marked: Marked, number: int, known: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    width, height = marked.files[number].picture.wh
    found = []
    for one in marked.on(number):
        (x, y, w, h), inside = one.box_xywh, one.mask_hw
        found.append(
            {
                "_cls": "Detection",
                "tags": [],
                "attributes": {},
                "label": one.label,
                "bounding_box": [x / width, y / height, w / width, h / height],
                "mask": packed(inside[y : y + h, x : x + w]),
                "confidence": one.score,
            }
            | known.get(one.label, {})
        )
    return found


def _heatmap(pixels: PixelMap) -> dict[str, Any]:
    low, high = scale_of([pixels])
    values = np.where(pixels.seen, pixels.values, low).astype(np.float32)
    longest = max(values.shape)
    if longest > _MOST_SIDE:  # a document of its data base holds 16 MB
        height, width = (max(1, round(side * _MOST_SIDE / longest)) for side in values.shape)
        values = cv2().resize(values, (width, height), interpolation=cv2().INTER_AREA).reshape(height, width)
    return {"_cls": "Heatmap", "tags": [], "map": packed(values), "range": [low, high if high > low else low + 1.0]}


def _known(one: Any) -> dict[str, Any]:
    values = {name: getattr(one, name, None) for name in _OF_WORDS}
    return {k: v for k, v in values.items() if v is not None and not (isinstance(v, float) and math.isnan(v))}


def _of_answer(known: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    shares = [one["image_share"] for one in known.values() if "image_share" in one]
    risks = [one["risk"] for one in known.values() if "risk" in one]
    told = {"image_share": float(np.mean(shares))} if shares else {}
    return told | ({"risk": float(max(risks))} if risks else {})


def packed(array: NDArray[Any]) -> str:
    """An array as FiftyOne writes arrays into JSON."""
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    return base64.b64encode(zlib.compress(stream.getvalue())).decode("ascii")
