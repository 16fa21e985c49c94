"""Do visual sinks lie on the background? Against boxes, with the chance of as many random patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmattn.core.errors import SpecError
from vlmattn.core.layout import Box
from vlmattn.grid import cell_coverage
from vlmattn.sinks.found import Sinks


@dataclass(frozen=True)
class BackgroundTest:
    """How many visual sinks lie outside all boxes.

    Attributes:
        sinks, on_background: visual sinks with a place, and how many of them lie on the background. patches,
            background: the same of all patches.
        p_value: chance that as many random patches lie on the background at least as often (hypergeometric); 1 where
            there is no sink.
    """

    sinks: int
    on_background: int
    patches: int
    background: int
    p_value: float

    @property
    def share(self) -> float:
        """Share of sinks on the background; NaN without sinks."""
        return self.on_background / self.sinks if self.sinks else float("nan")

    @property
    def expected(self) -> float:
        """Share of all patches on the background: what random patches would give."""
        return self.background / self.patches


def background_test(sinks: Sinks, boxes_xyxy: Sequence[Box], *, image: int = 0, covered: float = 0.5) -> BackgroundTest:
    """Whether visual sinks avoid the boxes of a picture's objects (Kang et al., ICLR 2025, report 90 % and more).

    Args:
        boxes_xyxy: in original pixels. covered: a patch lies on the background if no box covers more than this share of
            its area.

    Raises:
        SpecError: no such picture, or a share outside 0 to 1. MapError: a box without area.
    """
    if not 0 <= covered < 1:
        raise SpecError(f"covered must be at least 0 and below 1, got {covered!r}")
    if image not in range(len(sinks.layout.images)):
        raise SpecError(f"picture {image} does not exist; there are {len(sinks.layout.images)}")
    picture = sinks.layout.images[image]
    free = [tile.held for tile in picture.tiles]
    for box in boxes_xyxy:
        free = [grid & (cover <= covered) for grid, cover in zip(free, cell_coverage(picture, box), strict=True)]
    placed = [t for t in sinks.visual if t.image == image and t.tile is not None]
    on = sum(bool(free[t.tile or 0][t.row or 0, t.col or 0]) for t in placed)
    background = int(np.sum([grid.sum() for grid in free]))
    return BackgroundTest(
        len(placed), on, picture.cells, background, _chance(on, picture.cells, background, len(placed))
    )


def _chance(hits: int, patches: int, background: int, drawn: int) -> float:
    from scipy.stats import hypergeom

    return float(hypergeom.sf(hits - 1, patches, background, drawn)) if drawn else 1.0
