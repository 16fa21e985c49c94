"""Detectors that come with the library, for models in the box; nothing is fitted when one is used."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from vlmattn.core.errors import SpecError
from vlmattn.detection.detector import Detector

_FOLDER = Path(__file__).resolve().parent / "found"


def shipped_detectors() -> tuple[tuple[str, str], ...]:
    """(model, kind) of those there are: of ``claims``, a *yes* to a question, and of ``things`` that an answer names.

    Example:
        >>> shipped_detectors()
        (('scene-prior', 'claims'), ('scene-prior', 'things'))
    """
    names = (path.stem.rpartition(".") for path in sorted(_FOLDER.glob("*.safetensors")))
    return tuple((model, kind) for model, _, kind in names)


@cache
def shipped_detector(model: str, kind: str) -> Detector:
    """The detector of a model in the box. What it was fitted on is in its ``manifest``.

    Args:
        kind: ``claims`` or ``things``.

    Raises:
        SpecError: there is none; lists those there are. FileError: a damaged installation.

    Example:
        >>> shipped_detector("scene-prior", "claims").model.name
        'scene-prior'
    """
    if (model, kind) not in shipped_detectors():
        there = ", ".join(f"{kind} of {model}" for model, kind in shipped_detectors()) or "none"
        raise SpecError(f"no detector of {kind} is shipped for {model!r}; there are {there}")
    return Detector.load(_FOLDER / f"{model}.{kind}.safetensors")
