"""Two kinds of visual sinks: those that the vision tower marks, and those that emerge in the language model.

Tokens that the tower gives a high norm may carry coarse information of the whole picture, while massive ones of the
language model need not ("To Sink or Not to Sink", 2025): they are told apart, with their overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmattn.maps import HighNormToken
from vlmattn.sinks.found import Sinks

Cell = tuple[int, int, int]


@dataclass(frozen=True)
class TowerOverlap:
    """Cells (tile, row, col) of a picture: marked by the tower alone, sinks of the language model alone, and both."""

    tower_only: tuple[Cell, ...]
    language_only: tuple[Cell, ...]
    both: tuple[Cell, ...]


def tower_overlap(sinks: Sinks, outliers: Sequence[HighNormToken], *, image: int = 0) -> TowerOverlap:
    """Visual sinks of a picture beside the tokens that its vision tower marks with high norms.

    Args:
        outliers: of :func:`vlmattn.maps.high_norm_tokens`; those that the language model gets none of are left out.
    """
    tower = {(t.tile, t.row, t.col) for t in outliers if t.tile is not None and t.row is not None and t.col is not None}
    language = {
        (t.tile, t.row, t.col)
        for t in sinks.visual
        if t.image == image and t.tile is not None and t.row is not None and t.col is not None
    }
    return TowerOverlap(*(tuple(sorted(s)) for s in (tower - language, language - tower, tower & language)))
