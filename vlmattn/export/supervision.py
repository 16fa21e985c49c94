"""Regions of maps as ``supervision.Detections``, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.optional import require
from vlmattn.core.provenance import Provenance
from vlmattn.export.regions import Marked, MarkedRegion, RegionRule, mark
from vlmattn.export.subject import Mapped


def to_supervision(looks: Mapped | Iterable[Mapped] | Marked, rule: RegionRule | None = None, **changes: Any) -> Any:
    """The regions of maps of one picture as ``supervision.Detections``.

    ``xyxy`` (N, 4) float32 boxes in pixels of the upright original, ends exclusive; ``mask`` (N, H, W) bool;
    ``confidence`` the share of the map's positive values inside; ``class_id`` the number of the word among those given;
    ``data``: ``class_name`` the word, and ``provenance`` as JSON; ``metadata``: the picture, the rule, and what was
    skipped. Without a region, they are empty.

    Raises:
        SpecError: maps of several pictures, which one ``Detections`` cannot hold. Others as :func:`mark`.
        DependencyMissing: supervision is not installed.
    """
    library = require("supervision", extra="export")
    marked = mark(looks, rule, **changes)
    if len(marked.files) > 1:
        names = ", ".join(one.file for one in marked.files[:5])
        raise SpecError(
            f"Detections are of one picture, and the looks are of {len(marked.files)} ({names}): convert them picture "
            "by picture (a video: look.frame(n))"
        )
    found, labels = marked.regions, marked.labels
    width, height = marked.files[0].picture.wh
    return library.Detections(
        xyxy=np.array([one.box_xyxy for one in found], dtype=np.float32).reshape(-1, 4),
        mask=np.stack([one.mask_hw for one in found]) if found else np.zeros((0, height, width), dtype=np.bool_),
        confidence=np.array([one.score for one in found], dtype=np.float32),
        class_id=np.array([labels.index(one.label) for one in found], dtype=np.int64),
        data={
            "class_name": np.array([one.label for one in found], dtype=np.str_),
            "provenance": np.array([one.provenance.to_json() for one in found], dtype=np.str_),
        },
        metadata=marked.made | {"picture": marked.files[0].file, "labels": list(labels)},
    )


def from_supervision(detections: Any) -> tuple[MarkedRegion, ...]:
    """The regions of ``supervision.Detections``: those of :func:`to_supervision` back, or of any other with masks.

    Raises:
        MapError: no masks, or an empty one. SpecError: something else than ``Detections``.
    """
    xyxy, masks = getattr(detections, "xyxy", None), getattr(detections, "mask", None)
    if xyxy is None:
        raise SpecError(f"expected supervision.Detections, got {type(detections).__name__}")
    if masks is None:
        raise MapError("the detections have no masks: regions are made of masks")
    data = getattr(detections, "data", None) or {}
    count = len(xyxy)
    names = data.get("class_name", [str(n) for n in _or(detections.class_id, np.zeros(count, dtype=int))])
    scores = _or(detections.confidence, np.zeros(count))
    made = data.get("provenance", [""] * count)
    return tuple(_region(*one) for one in zip(names, masks, scores, made, strict=True))


def _or(values: Any, otherwise: Any) -> Any:
    return otherwise if values is None else values


def _region(label: Any, mask: Any, score: Any, made: Any) -> MarkedRegion:
    import json

    held = np.asarray(mask, dtype=np.bool_)
    if not held.any():
        raise MapError(f"the mask of {str(label)!r} is empty")
    rows, columns = np.flatnonzero(held.any(axis=1)), np.flatnonzero(held.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    provenance = Provenance.from_dict(json.loads(str(made))) if str(made) else Provenance()
    return MarkedRegion(str(label), 0, held, box, float(score), provenance)
