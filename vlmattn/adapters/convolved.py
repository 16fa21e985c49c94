"""Cells of towers that shrink their grid by convolutions that overlap.

A token of such a grid looks at a field of pixels that is wider than its step, and the middle of that field is not the
middle of the step: with padding on both sides it lies at the step's first pixel, with padding at the end at its last.
A pixel belongs to the token whose field has the nearest middle, so cells meet half-way between middles, and the first
and last cell of a row reach to the edges of the view.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from vlmattn.adapters.canvas import Canvas
from vlmattn.core.errors import LayoutError
from vlmattn.core.layout import Spans, Tile, TileKind


@dataclass(frozen=True)
class Fields:
    """Where the fields of a row of tokens have their middles, in pixels of the view.

    Attributes:
        step: from one middle to the next.
        first: of the first token.

    Example, two convolutions of 3 x 3 with stride 2 over patches of 16 pixels:
        >>> Fields.of_patches(16).then(3, 2, 1).then(3, 2, 1)
        Fields(step=Fraction(64, 1), first=Fraction(8, 1))
    """

    step: Fraction
    first: Fraction

    @classmethod
    def of_patches(cls, size: int) -> Fields:
        """Patches of ``size`` pixels, which do not overlap; pixels themselves for 1."""
        return cls(Fraction(size), Fraction(size, 2))

    def then(self, kernel: int, stride: int, padding: int) -> Fields:
        """After a convolution, or the mean of a window, that starts ``padding`` before the first token."""
        return Fields(self.step * stride, self.first + self.step * (Fraction(kernel - 1, 2) - padding))

    def tile(self, kind: TileKind, view: Canvas, grid_hw: tuple[int, int]) -> Tile:
        """The grid of a view, from edge to edge."""
        x0, y0, x1, y1 = view.edges
        rows = self._spans(grid_hw[0], view.wh[1], y0, (y1 - y0) / view.wh[1])
        cols = self._spans(grid_hw[1], view.wh[0], x0, (x1 - x0) / view.wh[0])
        return Tile(kind, grid_hw, view.box_xyxy, rows, cols)

    def _spans(self, count: int, size: int, low: Fraction, scale: Fraction) -> Spans:
        inner = [self.first + self.step * Fraction(2 * k - 1, 2) for k in range(1, count)]
        edges = [Fraction(0), *inner, Fraction(size)]
        if any(b <= a for a, b in pairwise(edges)):
            raise LayoutError(f"{count} cells of {float(self.step)} pixels do not fit a view of {size} pixels")
        return tuple((float(low + a * scale), float(low + b * scale)) for a, b in pairwise(edges))
