"""Residual coordinates in which a model's sinks are massive: published ones, and those found by calibration."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.files import as_path, write_json
from vlmattn.display import Told

TAU_RELATIVE = 20 / 64
"""Threshold on phi over its upper bound, the root of the width: Kang et al. (ICLR 2025) take 20 at a width of 4096."""

_KIND = "vlmattn sink coordinates"
_FORMAT = 1


@dataclass(frozen=True)
class SinkCoordinates(Told):
    """Where in the residual stream a model's sink tokens are massive.

    Attributes:
        coordinates: ascending; empty where a calibration found none.
        width: coordinates of the residual stream.
        tau_relative: threshold on phi over the root of ``width``.
        first_layer: first layer (from 0) whose input has massive activations.
        source: the paper, or how it was calibrated. model: what they belong to.
        confidence: 0 to 1, of a calibration: the lower end of the 95 % Wilson interval of the share of held-out prompts
            that agree; None for published coordinates.
        notes: what was looked at, one phrase each.

    Raises:
        SpecError: coordinates outside the width, or a threshold, a layer or a confidence that cannot be.

    Example:
        >>> SinkCoordinates((2533, 1415), width=4096).tau
        20.0
    """

    coordinates: tuple[int, ...]
    width: int
    tau_relative: float = TAU_RELATIVE
    first_layer: int = 0
    source: str = "given"
    model: str = ""
    confidence: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(_is_whole(n) for n in (*self.coordinates, self.width, self.first_layer)):
            raise SpecError(
                f"coordinates, width and first_layer must be whole numbers, got {list(self.coordinates)}, "
                f"{self.width!r} and {self.first_layer!r}"
            )
        chosen = tuple(sorted({int(c) for c in self.coordinates}))
        object.__setattr__(self, "coordinates", chosen)
        if self.width < 1 or any(not 0 <= c < self.width for c in chosen):
            raise SpecError(f"coordinates must be 0 to width - 1 = {self.width - 1}, got {list(chosen)}")
        if not isinstance(self.tau_relative, Real) or not 0 < self.tau_relative < 1:
            raise SpecError(f"tau_relative must be between 0 and 1, got {self.tau_relative!r}")
        if self.first_layer < 0:
            raise SpecError(f"first_layer must be at least 0, got {self.first_layer}")
        if self.confidence is not None and not (isinstance(self.confidence, Real) and 0 <= self.confidence <= 1):
            raise SpecError(f"confidence must be from 0 to 1, or None, got {self.confidence!r}")

    @property
    def found(self) -> bool:
        """Whether there are any."""
        return bool(self.coordinates)

    @property
    def tau(self) -> float:
        """Threshold on phi itself."""
        return self.tau_relative * math.sqrt(self.width)

    def said(self) -> str:
        """One phrase for provenance."""
        listed = ", ".join(str(c) for c in self.coordinates)
        sure = "" if self.confidence is None else f", confidence {self.confidence:.2f}"
        what = f"coordinates {listed} of {self.width}" if self.found else "no sink coordinates"
        return f"{what} ({self.source}{sure})"

    def __str__(self) -> str:
        lines = [self.said(), *self.notes]
        if self.found:
            lines.insert(1, f"phi above {self.tau:.3g}, from layer {self.first_layer} on")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"coordinates": list(self.coordinates), "notes": list(self.notes)}

    def save(self, path: str | Path) -> Path:
        """Write JSON that :meth:`load` reads."""
        return write_json(path, {"kind": _KIND, "format": _FORMAT} | self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> SinkCoordinates:
        """Read what :meth:`save` wrote.

        Raises:
            FileError: missing, half written, or of another kind.
        """
        target = as_path(path)
        try:
            held = json.loads(target.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FileError(f"cannot read sink coordinates from {str(target)!r}: {error}") from error
        if not isinstance(held, dict) or held.get("kind") != _KIND or held.get("format") != _FORMAT:
            raise FileError(f"{str(target)!r} holds no sink coordinates of format {_FORMAT}: calibrate again")
        try:
            values = {name: held[name] for name in cls.__dataclass_fields__}
            values |= {"coordinates": tuple(values["coordinates"]), "notes": tuple(values["notes"])}
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"sink coordinates in {str(target)!r} are not whole: {error!r}: calibrate again") from error


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


class _Published(NamedTuple):
    checkpoints: tuple[str, ...]
    coordinates: tuple[int, ...]
    width: int
    depth: int
    source: str


_KANG = "Kang et al., ICLR 2025"
PUBLISHED: dict[str, _Published] = {
    "llama-2-7b": _Published(
        ("llama-2-7b", "vicuna-7b", "llava-1.5-7b", "llava-v1.5-7b"), (1415, 2533), 4096, 32,
        f"{_KANG}; Sun et al., COLM 2024",
    ),
    "llama-2-13b": _Published(
        ("llama-2-13b", "vicuna-13b", "llava-1.5-13b", "llava-v1.5-13b"), (2100, 4743), 5120, 40,
        f"{_KANG}; Sun et al., COLM 2024",
    ),
    "qwen2-vl-7b": _Published(("qwen2-vl-7b",), (458, 2570), 3584, 28, f"{_KANG}, appendix, as noted by others"),
    "internvl2-8b": _Published(("internvl2-8b",), (3584,), 4096, 32, f"{_KANG}, appendix, as noted by others"),
}  # fmt: skip
"""Published sink coordinates by language model. Fine-tuning may move them: calibrate where it matters."""


def published_coordinates(name: str, width: int | None, depth: int) -> SinkCoordinates | None:
    """Published coordinates of a checkpoint, by its name, width and depth; None where there are none.

    Example:
        >>> published_coordinates("llava-hf/llava-1.5-7b-hf", 4096, 32).coordinates
        (1415, 2533)
    """
    plain = name.rstrip("/").rsplit("/", 1)[-1].casefold()
    for key, one in PUBLISHED.items():
        if (width, depth) == (one.width, one.depth) and any(part in plain for part in one.checkpoints):
            return SinkCoordinates(
                one.coordinates, one.width, first_layer=2, source=f"published: {one.source}", model=key
            )
    return None
