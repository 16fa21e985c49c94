"""Two kinds of visual sinks: those that the vision tower marks, and those that emerge in the language model.

Tokens that the tower gives a high norm may carry coarse information of the whole picture, while massive ones of the
language model need not ("To Sink or Not to Sink", 2025): they are told apart, with their overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vlmattn.core.errors import SpecError
from vlmattn.sinks.found import Sinks

Cell = tuple[int, int, int]


class Marked(Protocol):
    """A patch of the tower with the cell that it goes into most, such as a
    :class:`vlmattn.maps.HighNormToken`; None where the language model gets none of it."""

    @property
    def tile(self) -> int | None:
        """Of the picture."""

    @property
    def row(self) -> int | None:
        """Of the tile."""

    @property
    def col(self) -> int | None:
        """Of the tile."""


@dataclass(frozen=True)
class TowerOverlap:
    """Cells (tile, row, col) of a picture: marked by the tower alone, sinks of the language model alone, and both."""

    tower_only: tuple[Cell, ...]
    language_only: tuple[Cell, ...]
    both: tuple[Cell, ...]


def tower_overlap(sinks: Sinks, outliers: Sequence[Marked], *, image: int = 0) -> TowerOverlap:
    """Visual sinks of a picture beside the tokens that its vision tower marks with high norms.

    Args:
        outliers: of :func:`vlmattn.maps.high_norm_tokens`; those that the language model gets none of are left out.

    Raises:
        SpecError: no such picture.
    """
    if image not in range(len(sinks.layout.images)):
        raise SpecError(f"picture {image} does not exist; there are {len(sinks.layout.images)}")
    tower = {(t.tile, t.row, t.col) for t in outliers if t.tile is not None and t.row is not None and t.col is not None}
    language = {
        (t.tile, t.row, t.col)
        for t in sinks.visual
        if t.image == image and t.tile is not None and t.row is not None and t.col is not None
    }
    return TowerOverlap(*(tuple(sorted(s)) for s in (tower - language, language - tower, tower & language)))
