"""What a report shows, before it is a page: words, pictures, and their maps as plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.layout import Box, ImageLayout
from vlmattn.core.provenance import Provenance
from vlmattn.core.videos import Video, Visual
from vlmattn.grid.packing import QuantisedGrids

Part = Literal["all", "question", "answer"]
Piece = tuple[str, int | None]


@dataclass(frozen=True)
class ReportWord:
    """A word that a page has maps of.

    Attributes:
        text: the word. part: ``question`` or ``answer``; ``all`` for the whole answer. occurrence, of: which one it is
            (from 1) of how many equal ones in its part.
        log_probability: of its tokens together, natural log; None where it is not known.
        risk: that it is made up, 0 to 1; verdict: ``supported``, ``unclear`` or ``unsupported``; None where it was
            not asked for or is not known.
        note: why there is no map, in words; empty where there is one.
    """

    text: str
    part: Part
    occurrence: int = 1
    of: int = 1
    log_probability: float | None = None
    risk: float | None = None
    verdict: str | None = None
    note: str = ""


@dataclass(frozen=True, eq=False)
class MapView:
    """The maps of all W words, layer by layer, read in one way.

    Attributes:
        heads: name of the preset; ``all`` for every head. source: where the preset comes from.
        sinks: ``keep``, or ``drop`` where visual sinks were left out and the other patches scaled up.
        layers: numbers of the L layers; empty where the method has one map for all layers (L is 1 then).
        weights: (L,) how much each layer counts in the mean over several.
        grids: (W, L, K): the K cells of all pictures, tile by tile, row by row.
        visible: (W, L, K) False where the word could not attend to the cell; None if all could.
        share: (W, L, P) of the word's raw attention on each of P pictures; NaN where that is not known.
    """

    heads: str
    sinks: Literal["keep", "drop"]
    source: str
    layers: tuple[int, ...]
    weights: tuple[float, ...]
    grids: QuantisedGrids
    visible: NDArray[np.bool_] | None
    share: NDArray[np.float32]

    def __post_init__(self) -> None:
        shape = self.grids.levels.shape
        if len(shape) != 3 or shape[1] != max(len(self.layers), 1) or len(self.weights) != shape[1]:
            raise MapError(f"grids must have shape (W, L, K) with L = {max(len(self.layers), 1)}, got {shape}")
        if self.visible is not None and self.visible.shape != shape:
            raise MapError(f"visible must have the shape of the grids, {shape}, got {self.visible.shape}")
        if self.share.shape[:2] != shape[:2]:
            raise MapError(f"share must have shape (W, L, P) = {shape[:2]} and pictures, got {self.share.shape}")


@dataclass(frozen=True)
class MarkedBox:
    """A box to draw: what is in it, (x0, y0, x1, y1) in original pixels, and on which picture."""

    label: str
    box_xyxy: Box
    picture: int = 0


@dataclass(frozen=True)
class MarkedSink:
    """A visual sink: its cell (counted as in :class:`MapView`) and the layers where it is one."""

    cell: int
    layers: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Panel:
    """One answer, read by one method: a column of a report.

    Attributes:
        title: what tells it from the others. model, method: names. unit: what its numbers are.
        pictures, layouts: the originals and their tiles.
        question, answer: pieces of text, each with the index of its word in ``words`` or None.
        words: the whole answer first. views: at least one; the first is shown first.
        depth: layers of the decoder. boxes, sinks: marks. notes: what else is to be told, one phrase each.
        provenance: how it was made. risk_by: what risks and verdicts go by.
    """

    title: str
    model: str
    method: str
    unit: str
    pictures: tuple[Visual, ...]
    layouts: tuple[ImageLayout, ...]
    question: tuple[Piece, ...]
    answer: tuple[Piece, ...]
    words: tuple[ReportWord, ...]
    views: tuple[MapView, ...]
    depth: int
    boxes: tuple[MarkedBox, ...] = ()
    sinks: tuple[MarkedSink, ...] | None = None
    notes: tuple[str, ...] = ()
    risk_by: str = ""
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        if len(self.pictures) != len(self.layouts) or not self.pictures:
            raise MapError(f"a panel needs a layout for each picture: {len(self.pictures)}, {len(self.layouts)}")
        for seen, layout in zip(self.pictures, self.layouts, strict=True):
            frames = len(seen) if isinstance(seen, Video) else 0
            if tuple(seen.wh) != tuple(layout.image_wh) or frames != len(layout.times):
                raise MapError(
                    f"{seen.name} has {seen.wh} pixels and {frames} frames, but its layout {layout.image_wh} and "
                    f"{len(layout.times)}: they do not belong together"
                )
        shape = (len(self.words), sum(cells_of(one) for one in self.layouts))
        if not self.views or any(v.grids.levels.shape[::2] != shape for v in self.views):
            raise MapError(f"every view must have maps of (words, cells) = {shape}, and there must be one")
        if any(not 0 <= box.picture < len(self.pictures) for box in self.boxes):
            raise SpecError(f"boxes must lie on pictures 0 to {len(self.pictures) - 1}")


class HasPanels(Protocol):
    """Something that makes panels of itself, such as :class:`vlmattn.Run`."""

    def panels(self, **options: Any) -> Sequence[Panel]:
        """Its panels."""
        ...


def cells_of(layout: ImageLayout) -> int:
    """Cells of all grids of a picture, lost ones too: K of :class:`MapView`."""
    return sum(tile.grid_hw[0] * tile.grid_hw[1] for tile in layout.tiles)


def marked_boxes(boxes: Any) -> tuple[MarkedBox, ...]:
    """Boxes as they are given: (label, box), (label, box, picture), or :class:`MarkedBox`.

    Raises:
        SpecError: something else, or a box without area.
    """
    return tuple(one if isinstance(one, MarkedBox) else _marked(one) for one in boxes)


def _marked(given: Any) -> MarkedBox:
    try:
        label, box, *rest = given
        x0, y0, x1, y1 = (float(edge) for edge in box)
        picture = int(rest[0]) if rest else 0
    except (TypeError, ValueError):
        raise SpecError(
            f"a box must be (label, (x0, y0, x1, y1)), and a picture's number if need be; got {given!r}"
        ) from None
    if not (np.isfinite([x0, y0, x1, y1]).all() and x1 > x0 and y1 > y0):
        raise SpecError(f"the box of {label!r} must have positive width and height, got {(x0, y0, x1, y1)}")
    return MarkedBox(str(label), (x0, y0, x1, y1), picture)
