"""MIT1003: 1,003 pictures freely viewed by 15 people for 3 seconds (Judd et al., ICCV 2009), raw samples at 240 Hz."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from vlmattn.core.errors import FileError, SpecError
from vlmattn.gaze.event_detection import Samples, find_fixations
from vlmattn.gaze.fixations import Fixations, Scanpath
from vlmattn.gaze.readers.entries import Sizes, at, ordered, size_of
from vlmattn.gaze.readers.matlab import load_mat, struct_field
from vlmattn.gaze.screen import Screen
from vlmattn.gaze.units import Outside

RATE = 240.0
PIXELS_PER_DEGREE = 35.0
"""About; what the MIT/Tübingen benchmark takes for one degree."""


def read_mit1003(
    data: str | Path,
    stimuli: Sizes,
    *,
    method: Literal["ivt", "idt"] = "idt",
    velocity: float = 30.0,
    dispersion: float = 1.0,
    min_duration: float = 0.1,
    initial: Literal["keep", "drop"] = "drop",
    outside: Outside = "keep",
) -> Fixations:
    """Scanpaths of MIT1003's folder ``DATA``: ``<subject>/<picture>.mat``, fixations found here.

    The published fixations come out of the data set's own MATLAB program, which is not part of it in another language;
    these are found by I-DT or I-VT (:mod:`vlmattn.gaze.event_detection`), so they are not the same ones. Where you have
    the converted ones as a table, :func:`~vlmattn.gaze.readers.read_table` reads it. Negative samples are blinks.
    Pixels count from 1 in the file; half a pixel is taken off.

    Args:
        stimuli: the folder ``ALLSTIMULI``, or sizes of its pictures by name (``….jpeg``).
        method, velocity, dispersion, min_duration: see :func:`~vlmattn.gaze.find_fixations`; degrees of 35 pixels.
        initial: ``drop`` leaves out the first fixation, which rests in the middle where the eye was before, as the
            data set's authors do; scanpaths want it (``keep``).

    Raises:
        FileError: no such folder, a file of another content, or a picture that is not there; names the file.
        SpecError: another ``initial``, or a threshold of 0 or less.
    """
    if initial not in ("keep", "drop"):
        raise SpecError(f"initial must be 'keep' or 'drop', got {initial!r}")
    root, size = Path(data), size_of(stimuli)
    options: dict[str, Any] = {
        "method": method,
        "velocity": velocity,
        "dispersion": dispersion,
        "min_duration": min_duration,
    }
    paths = []
    for file in ordered(list(root.glob("*/*.mat")), "<subject>/<picture>.mat", root):
        image = _picture(file, stimuli)
        path = _scanpath(file, size(image), image, options)
        paths.append((path.take(slice(1, None)) if initial == "drop" else path).outside(outside))
    return Fixations(tuple(paths))


def _scanpath(file: Path, wh: tuple[int, int], image: str, options: dict[str, Any]) -> Scanpath:
    held = load_mat(file)
    if not held:
        raise FileError(f"{file} holds no variable")
    data = np.atleast_1d(struct_field(next(iter(held.values())), "DATA", str(file)))[0]
    with at(str(file)):
        eye = np.asarray(struct_field(data, "eyeData", str(file)), dtype=np.float64)
        if eye.ndim != 2 or eye.shape[1] < 2:
            raise FileError(f"{file}: eyeData must have shape (n, 2) or more columns, got {eye.shape}")
        xy = np.where((eye[:, :2] < 0).any(axis=1, keepdims=True), np.nan, eye[:, :2] - 0.5)
        samples = Samples(np.arange(len(xy)) / RATE, xy[:, 0], xy[:, 1])
    options = {**options, "image": image, "subject": file.parent.name}
    return find_fixations(samples, wh, screen=Screen(PIXELS_PER_DEGREE), **options)


def _picture(file: Path, stimuli: Sizes) -> str:
    """The picture's name: that of the file, with the ending that the picture has."""
    names = [f"{file.stem}{ending}" for ending in (".jpeg", ".jpg", ".png")]
    if isinstance(stimuli, (str, Path)):
        there = [name for name in names if (Path(stimuli) / name).is_file()]
    else:
        there = [name for name in names if not isinstance(stimuli, tuple) and name in stimuli]
    return (there or names)[0]
