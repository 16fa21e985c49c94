"""What readers of all formats share: errors that name file and place, milliseconds, sizes of pictures, options."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmattn.core.errors import FileError, ImageError, SpecError
from vlmattn.core.records import field, listed
from vlmattn.gaze.fixations import Scanpath
from vlmattn.gaze.units import Outside, check_wh

Array = NDArray[np.float64]
Sizes = Mapping[str, tuple[int, int]] | str | Path | tuple[int, int]
"""Where sizes of pictures come from: one for all (width, height), by name, or the folder with the pictures."""


@contextmanager
def at(place: str) -> Iterator[None]:
    """Errors of values inside become a FileError that starts with the place: file, and line or entry."""
    try:
        yield
    except FileError:
        raise
    except (SpecError, TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise FileError(f"{place}: {error}") from error


def scanpath(
    place: str,
    x: ArrayLike,
    y: ArrayLike,
    image_wh: tuple[int, int],
    *,
    ms: ArrayLike | None = None,
    start_ms: ArrayLike | None = None,
    outside: Outside = "keep",
    drop_bad: bool = False,
    **named: Any,
) -> Scanpath:
    """A scanpath with times in milliseconds, or a FileError that names the place.

    Args:
        ms: durations. start_ms: starts. drop_bad: leave out fixations with a missing value or no duration instead of
            refusing the file.
    """
    with at(place):
        times: dict[str, Any] = {"duration": milliseconds(ms), "start": milliseconds(start_ms)}
        if drop_bad:
            return Scanpath.of(x, y, image_wh, outside=outside, **times, **named)
        return Scanpath(column(x), column(y), image_wh, **times, **named).outside(outside)


def column(values: ArrayLike) -> Array:
    """(n,) float64, of a list or of a MATLAB matrix with one row or column."""
    return np.asarray(values, dtype=np.float64).reshape(-1)


def milliseconds(values: ArrayLike | None) -> Array | None:
    """Seconds."""
    return None if values is None else column(values) / 1000.0


def numbers(row: Mapping[str, Any], name: str, place: str) -> list[Any]:
    """A row's list of numbers. Raises FileError: missing, or no list."""
    values = field(row, name, place, (list, int, float))
    return values if isinstance(values, list) else [values]


def one_length(place: str, columns: Mapping[str, Sequence[Any]], *, shorten: bool) -> dict[str, Sequence[Any]]:
    """Columns of one length: cut to the shortest, or refused with a FileError."""
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) <= 1:
        return dict(columns)
    if not shorten:
        raise FileError(f"{place}: columns have different lengths, {lengths}; shorten=True cuts them to the shortest")
    return {name: values[: min(lengths.values())] for name, values in columns.items()}


def size_of(sizes: Sizes) -> Callable[[str], tuple[int, int]]:
    """A function that tells the size of a picture by its name.

    Raises (when called):
        FileError: no such picture, or it cannot be read.
    """
    if isinstance(sizes, tuple):
        one = check_wh(sizes)
        return lambda _name: one
    if isinstance(sizes, Mapping):
        return lambda name: _listed_size(sizes, name)
    root, known = Path(sizes), dict[str, tuple[int, int]]()
    if not root.is_dir():
        raise FileError(f"the folder of pictures {str(root)!r} does not exist")

    def size(name: str) -> tuple[int, int]:
        if name not in known:
            known[name] = _picture_size(root, name)
        return known[name]

    return size


def _listed_size(sizes: Mapping[str, tuple[int, int]], name: str) -> tuple[int, int]:
    if name not in sizes:
        raise FileError(f"the size of the picture {name!r} is not known; sizes are given of {listed(list(sizes))}")
    return check_wh(sizes[name])


def _picture_size(root: Path, name: str) -> tuple[int, int]:
    """Upright width and height, from the header alone."""
    from PIL import Image

    path = root / name
    if root.resolve() not in path.resolve().parents:
        raise FileError(f"the picture's name {name!r} leads out of the folder {root}")
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return (image.height, image.width) if turned else (image.width, image.height)
    except FileNotFoundError as error:
        raise FileError(f"the picture {path} does not exist") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path} cannot be read as a picture: {error}") from error


def text_or_none(value: Any) -> str | None:
    """Text of a name or number; None for nothing."""
    return None if value is None or value == "" else str(value)


def ordered(paths: Sequence[Path], what: str, where: Path) -> list[Path]:
    """Paths in the order of their names. Raises FileError: there is none."""
    if not paths:
        raise FileError(f"there is no {what} in {where}")
    return sorted(paths)
