"""What a batch of overlays is made with: everything that its results depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmattn.core.errors import FileError, SpecError
from vlmattn.evaluate import Decoding
from vlmattn.overlay.colours import DEFAULT

if TYPE_CHECKING:
    from vlmattn.api import Vlm

FORMATS = ("png", "webp", "jpg")


@dataclass(frozen=True)
class ModelChoice:
    """Which model, and how it is loaded: the arguments of :func:`vlmattn.load`.

    Attributes:
        device: may differ between two sittings; nothing else may.
    """

    model: str = "scene"
    device: str | None = None
    dtype: str | None = None
    revision: str | None = None
    attention: str | None = None

    def load(self) -> Vlm:
        """The model."""
        from vlmattn.api import load

        return load(
            self.model,
            device=self.device,
            dtype=self.dtype,
            revision=self.revision,
            attn_implementation=self.attention,
        )


@dataclass(frozen=True)
class Reading:
    """How maps are read off: options of :meth:`vlmattn.Run.map`.

    Attributes:
        method, layers, heads, rows, normalise, sinks: as there. each_word: of rows that name no word, a map of every
            word of the answer, instead of one of the whole answer.
    """

    method: str = "raw"
    layers: str | Sequence[int] | None = None
    heads: str | Sequence[int] | None = None
    rows: str | None = None
    normalise: str = "none"
    sinks: str = "keep"
    each_word: bool = False

    def __post_init__(self) -> None:
        from vlmattn.core.provenance import METHODS
        from vlmattn.maps import NORMALISATIONS, ROW_PRESETS
        from vlmattn.sinks.removal import KEEPS

        _one_of("method", self.method, METHODS)
        _one_of("normalise", self.normalise, NORMALISATIONS)
        _one_of("sinks", self.sinks, KEEPS)
        if self.rows is not None:
            _one_of("rows", self.rows, ROW_PRESETS)

    @property
    def options(self) -> dict[str, Any]:
        """Those of :meth:`vlmattn.Run.map`."""
        told = {"method": self.method, "normalise": self.normalise, "sinks": self.sinks}
        return told | self.where | ({} if self.rows is None else {"rows": self.rows})

    @property
    def where(self) -> dict[str, Any]:
        """Layers and heads."""
        return {"layers": self.layers, "heads": self.heads}


@dataclass(frozen=True)
class Drawing:
    """What overlays look like: ``format`` of their files; ``figure``: with title, colour bar and small print; ``cmap``:
    one of :data:`vlmattn.overlay.COLOUR_MAPS`; ``quality`` of JPEG and WebP, 1 to 100."""

    format: str = "png"
    figure: bool = True
    cmap: str = DEFAULT
    quality: int = 92

    def __post_init__(self) -> None:
        from vlmattn.overlay import COLOUR_MAPS

        _one_of("format", self.format, FORMATS)
        _one_of("cmap", self.cmap, COLOUR_MAPS)
        if not 1 <= self.quality <= 100:
            raise SpecError(f"quality must be 1 to 100, got {self.quality}")


@dataclass(frozen=True)
class OverlayJob:
    """Everything that the results of a batch depend on, but the table.

    Attributes:
        model, reading, drawing, decoding: see there. steering: names, as :func:`vlmattn.steering.steering_of` takes
            them. detector: file of a detector, by which words get a risk. batch: rows that go through the model
            together. images: folder or address that relative pictures start from; None for that of the table.

    Raises:
        SpecError: a value that cannot be. FileError: no such detector.
    """

    model: ModelChoice = field(default_factory=ModelChoice)
    reading: Reading = field(default_factory=Reading)
    drawing: Drawing = field(default_factory=Drawing)
    decoding: Decoding = field(default_factory=Decoding)
    steering: tuple[str, ...] = ()
    detector: str | None = None
    batch: int = 8
    images: str | None = None

    def __post_init__(self) -> None:
        from vlmattn.api.checks import check_generate
        from vlmattn.steering import steering_of

        if self.batch < 1:
            raise SpecError(f"a batch must have at least 1 row, got {self.batch}")
        for one in self.steering:
            steering_of(one)
        check_generate(self.decoding.generate, 1)
        if self.detector is not None:
            _hash_of(self.detector)

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values for a manifest: what may not change between two sittings."""
        model, reading, drawn = self.model, self.reading, self.drawing
        return {
            "model": model.model,
            "options": {"dtype": model.dtype, "revision": model.revision, "attention": model.attention},
            "reading": {**reading.options, "each_word": reading.each_word},
            "drawing": {name: getattr(drawn, name) for name in ("format", "figure", "cmap", "quality")},
            "decoding": self.decoding.to_dict(),
            "steering": list(self.steering),
            "detector": None if self.detector is None else _hash_of(self.detector),
            "batch": self.batch,
        }


def _one_of(what: str, value: Any, known: Mapping[str, Any] | Sequence[str]) -> None:
    if value not in known:
        raise SpecError(f"{what} must be one of {', '.join(known)}; got {value!r}")


def _hash_of(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise FileError(f"the detector {path} cannot be read: {error.strerror or error}") from error
