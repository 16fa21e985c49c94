"""Detectors that come with the library, for models in the box; nothing is fitted when one is used."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from vlmattn.core.errors import SpecError
from vlmattn.detection.detector import Detector

_FOLDER = Path(__file__).resolve().parent / "found"


def shipped_detectors() -> tuple[str, ...]:
    """Names of the models that a detector is shipped for.

    Example:
        >>> shipped_detectors()
        ('scene-prior',)
    """
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.safetensors")))


@cache
def shipped_detector(name: str) -> Detector:
    """The detector shipped for a model in the box. What it was fitted on is in its ``manifest``.

    Raises:
        SpecError: there is none; lists those there are. FileError: a damaged installation.

    Example:
        >>> shipped_detector("scene-prior").model.name
        'scene-prior'
    """
    if name not in shipped_detectors():
        raise SpecError(f"no detector is shipped for {name!r}; there are {', '.join(shipped_detectors()) or 'none'}")
    return Detector.load(_FOLDER / f"{name}.safetensors")
