"""CapMIT1003: clicks of people who describe MIT1003's pictures (Zanca et al., 2023, arXiv:2305.12380)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from vlmattn.core.errors import FileError
from vlmattn.gaze.fixations import Fixations, Scanpath
from vlmattn.gaze.readers.entries import Sizes, at, size_of
from vlmattn.gaze.units import Outside

_QUERY = """
SELECT captions.obs_uid, captions.usr_uid, captions.caption, images.img_path, clicks.x, clicks.y
FROM captions JOIN images ON images.img_uid = captions.img_uid LEFT JOIN clicks ON clicks.obs_uid = captions.obs_uid
ORDER BY captions.obs_uid, clicks.click_id
"""


def read_capmit1003(path: str | Path, sizes: Sizes, *, outside: Outside = "keep") -> Fixations:
    """Paths of clicks of CapMIT1003's database (``capmit1003.db``), one for each caption; ``task`` is the caption.

    Clicks reveal blurred places of the picture; they are not gaze, and have no duration. They are in the order of
    their ids. Clicked pixels are whole numbers; the point is the pixel's centre.

    Args:
        sizes: the folder ``ALLSTIMULI``, or sizes of its pictures by name.

    Raises:
        FileError: no such file, no database, or other tables.
    """
    target, size = Path(path), size_of(sizes)
    if not target.is_file():
        raise FileError(f"{target} does not exist")
    paths = []
    for observation, rows in groupby(_rows(target), key=lambda row: row[0]):
        held = list(rows)
        _, user, caption, picture, *_ = held[0]
        points = [(row[4], row[5]) for row in held if row[4] is not None]
        image = Path(str(picture)).name
        with at(f"{target}, observation {observation}"):
            xy = [(float(x) + 0.5, float(y) + 0.5) for x, y in points]
            named: dict[str, Any] = {"image": image, "subject": str(user), "task": caption}
            one = Scanpath.from_points(xy, size(image), trial={"observation": str(observation)}, **named)
        paths.append(one.outside(outside))
    return Fixations(tuple(paths))


def _rows(path: Path) -> Iterator[tuple[Any, ...]]:
    import sqlite3

    try:
        # Read only, so that a missing or foreign file is neither made nor changed.
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            yield from connection.execute(_QUERY)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise FileError(f"{path} is not CapMIT1003's database (tables captions, images, clicks): {error}") from error
