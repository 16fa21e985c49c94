"""Maps of where people looked, or what they uncovered, for data sets that give maps instead of fixations."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.images import MAX_PIXELS
from vlmattn.gaze.held_map import resized_map
from vlmattn.gaze.readers.entries import ordered

Array = NDArray[np.float64]


def read_human_map(path: str | Path, image_wh: tuple[int, int] | None = None) -> Array:
    """(H, W) a grey picture or a ``.npy`` array as shares of 1.

    Args:
        image_wh: size of the picture that it is about; a map of another size is resized by linear interpolation.

    Raises:
        FileError: missing, no picture or array, several channels that differ, values below 0, or nothing above 0.
    """
    target = Path(path)
    values = _array(target) if target.suffix == ".npy" else _grey(target)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise FileError(f"{target}: a map must be (H, W) finite values, got {values.shape}")
    if values.min() < 0 or not values.any():
        raise FileError(f"{target}: a map must have values of 0 or more, some above, got {values.min():g} the lowest")
    held = values if image_wh is None else np.maximum(resized_map(values, image_wh).values, 0.0)
    return np.asarray(held / held.sum())


def read_vqa_hat(
    folder: str | Path, sizes: dict[str, tuple[int, int]] | None = None
) -> dict[str, tuple[Array, ...]]:  # fmt: skip
    """Maps of VQA-HAT by question id: ``<question id>_<n>.png``, three per question in its validation set.

    Das et al., EMNLP 2016: people uncovered a blurred picture to answer; this is not gaze. Usual score: rank
    correlation.

    Args:
        sizes: of the question's picture, by question id; without it, maps keep their own.

    Raises:
        FileError: no such folder or maps, or one that cannot be read.
    """
    return _by_id(Path(folder), "*.png", re.compile(r"(\d+)(?:_\d+)?$"), sizes)


def read_vqa_mhug_maps(
    folder: str | Path, sizes: dict[str, tuple[int, int]] | None = None, *, name: str = r"(\d+)"
) -> dict[str, tuple[Array, ...]]:
    """Maps of VQA-MHUG by question id, one per person: ``.npy`` arrays or ``.png`` pictures.

    Sood et al., CoNLL 2021. The data set's fixations come as pickles, which are not read here (they can run any code);
    saved as a table, they are read by :func:`~vlmattn.gaze.readers.read_table`.

    Args:
        name: a regular expression, searched in the file's name, whose first group is the question id: by default the
            first number. sizes: as in :func:`read_vqa_hat`.

    Raises:
        FileError: no such folder or maps, one that cannot be read, or a name without an id. SpecError: ``name`` is no
            regular expression with a group.
    """
    try:
        pattern = re.compile(name)
    except re.error as error:
        raise SpecError(f"name must be a regular expression, got {name!r}: {error}") from error
    if not pattern.groups:
        raise SpecError(f"name must have a group for the question id, got {name!r}")
    return _by_id(Path(folder), "*.[np][pn][yg]", pattern, sizes)


def _by_id(
    root: Path, files: str, pattern: re.Pattern[str], sizes: dict[str, tuple[int, int]] | None
) -> dict[str, tuple[Array, ...]]:
    held: dict[str, list[Array]] = {}
    for file in ordered(list(root.glob(files)), "map", root):
        found = pattern.search(file.stem)
        if not found:
            raise FileError(f"{file}: there is no question id in the name")
        question = found[1]
        if sizes is not None and question not in sizes:
            raise FileError(f"{file}: the size of the picture of question {question} is not given")
        held.setdefault(question, []).append(read_human_map(file, None if sizes is None else sizes[question]))
    return {question: tuple(maps) for question, maps in held.items()}


def _array(path: Path) -> Array:
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
    except FileNotFoundError as error:
        raise FileError(f"{path} does not exist") from error
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise FileError(f"{path} cannot be read as an array of numbers: {error}") from error


def _grey(path: Path) -> Array:
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise FileError(f"{path} has {image.width}x{image.height} pixels, more than {MAX_PIXELS}")
            values = np.asarray(image.convert("RGB") if image.mode in ("P", "RGBA", "CMYK") else image, np.float64)
    except FileNotFoundError as error:
        raise FileError(f"{path} does not exist") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FileError(f"{path} cannot be read as a picture: {error}") from error
    if values.ndim == 3:
        colours = values[..., :3] if values.shape[2] > 2 else values[..., :1]
        if (colours != colours[..., :1]).any():
            raise FileError(f"{path} is in colour: a map must be grey")
        values = colours[..., 0]
    return values
