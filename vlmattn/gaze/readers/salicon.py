"""SALICON: mouse positions on COCO's pictures of 640 x 480 (Jiang et al., CVPR 2015), in place of gaze."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlmattn.core.errors import FileError
from vlmattn.core.records import field, read_object
from vlmattn.gaze.fixations import Fixations, Scanpath
from vlmattn.gaze.readers.entries import at, scanpath
from vlmattn.gaze.readers.matlab import load_mat, struct_field
from vlmattn.gaze.units import Outside

IMAGE_WH = (640, 480)


def read_salicon(path: str | Path, *, outside: Outside = "keep") -> Fixations:
    """Scanpaths of SALICON's JSON (``fixations_train2014.json``).

    Points are [row, column] counted from 1 in the file; here they are x, y of the pixel's centre. The subject is the
    worker. The edition of 2015 has raw samples of the mouse, that of 2017 fixations; neither has times in the JSON.
    Nothing is filtered: SALICON's own evaluation keeps, unless told otherwise, only points that occur twice.

    Raises:
        FileError: no such file, not whole, or an entry without its fields; names the entry.
    """
    held = read_object(path)
    images = _images(held, path)
    paths = []
    for number, row in enumerate(field(held, "annotations", str(path), list)):
        place = f"{path}, annotation {number}"
        if not isinstance(row, dict):
            raise FileError(f"{place} is a {type(row).__name__}, not an object")
        paths.append(_scanpath(row, place, images, outside))
    return Fixations(tuple(paths))


def _images(held: Mapping[str, Any], path: str | Path) -> dict[int, tuple[str, tuple[int, int]]]:
    images = {}
    for number, row in enumerate(field(held, "images", str(path), list)):
        place = f"{path}, image {number}"
        size = field(row, "width", place, int), field(row, "height", place, int)
        images[field(row, "id", place, int)] = (field(row, "file_name", place), size)
    return images


def _scanpath(
    row: Mapping[str, Any], place: str, images: Mapping[int, tuple[str, tuple[int, int]]], outside: Outside
) -> Scanpath:
    image = field(row, "image_id", place, int)
    if image not in images:
        raise FileError(f"{place}: there is no image {image}")
    with at(place):
        points = np.asarray(field(row, "fixations", place, list), dtype=np.float64).reshape(-1, 2) - 0.5
    name, wh = images[image]
    worker = row.get("worker_id")
    subject = None if worker is None else str(worker)
    return scanpath(place, points[:, 1], points[:, 0], wh, image=name, subject=subject, outside=outside)


def read_salicon_mat(path: str | Path, *, image: str, outside: Outside = "keep", raw: bool = False) -> Fixations:
    """Scanpaths of one picture of SALICON's MATLAB edition (``COCO_train2014_….mat``).

    Args:
        image: the picture's name, which the file has not got. raw: take every sample of the mouse instead of the
            fixations; they have times.

    Raises:
        FileError: no such file, or another content.
    """
    paths = []
    for number, one in enumerate(np.atleast_1d(load_mat(path, ["gaze"])["gaze"]), 1):
        place = f"{path}, worker {number}"
        if raw:
            points, times = (struct_field(one, name, place) for name in ("location", "timestamp"))
        else:
            points, times = struct_field(one, "fixations", place), None
        with at(place):
            xy = np.asarray(points, dtype=np.float64).reshape(-1, 2) - 0.5
        named: dict[str, Any] = {"image": image, "subject": str(number), "outside": outside}
        paths.append(scanpath(place, xy[:, 0], xy[:, 1], IMAGE_WH, start_ms=times, drop_bad=raw, **named))
    return Fixations(tuple(paths))
