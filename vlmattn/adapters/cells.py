"""Where the cells of a grid lie along one side of a view, in its pixels, where they do not divide it evenly."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from vlmattn.adapters.canvas import Canvas
from vlmattn.core.layout import Spans, Tile, TileKind

Cells = list[tuple[Fraction, Fraction]]


def pooled_cells(size: int, patch: int, pool: int) -> Cells:
    """Cells of ``pool`` patches around the middle: where they do not fit, the first and last hold fewer patches."""
    patches = size // patch
    count = -(-patches // pool)
    before = (count * pool - patches) // 2
    edges = [min(max(k * pool - before, 0), patches) * patch for k in range(count + 1)]
    return [(Fraction(a), Fraction(b)) for a, b in pairwise(edges)]


def placed(kind: TileKind, canvas: Canvas, rows: Cells, cols: Cells) -> Tile:
    """A tile whose rows and columns lie at these pixels of a view."""
    x0, y0, x1, y1 = canvas.edges
    scale_x, scale_y = (x1 - x0) / canvas.wh[0], (y1 - y0) / canvas.wh[1]
    in_x = [(x0 + a * scale_x, x0 + b * scale_x) for a, b in cols]
    in_y = [(y0 + a * scale_y, y0 + b * scale_y) for a, b in rows]
    box = (float(in_x[0][0]), float(in_y[0][0]), float(in_x[-1][1]), float(in_y[-1][1]))
    return Tile(kind, (len(rows), len(cols)), box, if_uneven(in_y), if_uneven(in_x))


def if_uneven(spans: Cells) -> Spans | None:
    """The spans if any two neighbours do not touch or differ in length, else None."""
    touch = all(a[1] == b[0] for a, b in pairwise(spans))
    if touch and len({b - a for a, b in spans}) == 1:
        return None
    return tuple((float(a), float(b)) for a, b in spans)
