"""RefCOCO-Gaze: people looking for what they hear a phrase refer to (Mondal et al., "Look Hear", ECCV 2024)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmattn.core.records import field, read_rows
from vlmattn.gaze.fixations import Fixations
from vlmattn.gaze.readers.entries import numbers, one_length, scanpath, text_or_none
from vlmattn.gaze.units import Outside

IMAGE_WH = (1680, 1050)
_FACTS = {
    "BBOX": "bbox",
    "FIX_IN_BBOX": "in_bbox",
    "REF_ID": "ref_id",
    "REF_GAZE_ID": "ref_gaze_id",
    "REFCOCO_GAZE_SPLIT": "split",
    "SOUND_ON": "sound_on_ms",
    "TARGET": "target",
    "TARGET_SPOKEN_PERIOD": "target_spoken_ms",
}


def read_refcoco_gaze(
    path: str | Path,
    *,
    image_wh: tuple[int, int] = IMAGE_WH,
    outside: Outside = "keep",
    shorten: bool = False,
    drop_bad: bool = False,
) -> Fixations:
    """Scanpaths of RefCOCO-Gaze's JSON (``refcocogaze_train_correct.json``); ``task`` is the phrase.

    Times are in milliseconds in the file. ``trial`` has the target's word and box (x, y, width, height), when the
    sound came on and the target was spoken, and whether each fixation lies in the box, as far as the file has them.
    Fixations that are dropped stay counted in ``in_bbox``.

    Args:
        image_wh: 1680 x 1050 as shown; give (512, 320) for scaled copies. shorten, outside, drop_bad: as in
            :func:`~vlmattn.gaze.readers.read_coco_search18`.

    Raises:
        FileError: no such file, not whole, or an entry without its fields; names the entry.
    """
    paths = []
    for number, row in enumerate(read_rows(path)):
        place = f"{path}, entry {number}"
        names = ["FIX_X", "FIX_Y", "FIX_DURATION", *(["FIX_START"] if "FIX_START" in row else [])]
        held = one_length(place, {name: numbers(row, name, place) for name in names}, shorten=shorten)
        words: Any = row.get("REF_WORDS")
        paths.append(
            scanpath(
                place,
                held["FIX_X"],
                held["FIX_Y"],
                image_wh,
                ms=held["FIX_DURATION"],
                start_ms=held.get("FIX_START"),
                image=str(field(row, "IMAGEFILE", place)),
                subject=text_or_none(row.get("SUBJECT_ID")),
                task=" ".join(map(str, words)) if isinstance(words, list) else text_or_none(words),
                trial={name: row[key] for key, name in _FACTS.items() if row.get(key) is not None},
                outside=outside,
                drop_bad=drop_bad,
            )
        )
    return Fixations(tuple(paths))
