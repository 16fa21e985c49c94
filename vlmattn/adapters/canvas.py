"""Where the pixels of a model's input lie in the user's picture, through any chain of resizes, crops and pads."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from vlmattn.core.errors import ImageError, LayoutError
from vlmattn.core.layout import Box

MOST_PIXELS = 2**28


@dataclass(frozen=True)
class Canvas:
    """A picture on its way to the model.

    Attributes:
        wh: width and height in pixels of its own.
        edges: left, top, right and bottom in pixels of the original, as exact fractions; beyond the original where
            the picture was padded.

    Example, a centre crop of 80 x 60 pixels:
        >>> Canvas.of((80, 60)).resized(448, 336).window(56, 0, 336, 336).box_xyxy
        (10.0, 0.0, 70.0, 60.0)
    """

    wh: tuple[int, int]
    edges: tuple[Fraction, Fraction, Fraction, Fraction]

    @property
    def box_xyxy(self) -> Box:
        """What the outer edges span in pixels of the original, as floats."""
        x0, y0, x1, y1 = (float(e) for e in self.edges)
        return x0, y0, x1, y1

    @classmethod
    def of(cls, image_wh: tuple[int, int]) -> Canvas:
        """The original itself. Raises ImageError if a side is not at least 1 pixel."""
        width, height = image_wh
        if width < 1 or height < 1:
            raise ImageError(f"a picture needs at least 1 x 1 pixels, got {width} x {height}")
        return cls((int(width), int(height)), (Fraction(0), Fraction(0), Fraction(width), Fraction(height)))

    def resized(self, width: int, height: int) -> Canvas:
        """The same view with another number of pixels (half-pixel centres, as every image library resizes)."""
        self._check_size(width, height)
        return Canvas((width, height), self.edges)

    def window(self, left: int, top: int, width: int, height: int) -> Canvas:
        """The part from (left, top), in own pixels; negative offsets or larger sizes reach into padding."""
        self._check_size(width, height)
        x0, y0, x1, y1 = self.edges
        sx, sy = (x1 - x0) / self.wh[0], (y1 - y0) / self.wh[1]
        edges = (x0 + left * sx, y0 + top * sy, x0 + (left + width) * sx, y0 + (top + height) * sy)
        return Canvas((width, height), edges)

    def squared(self) -> Canvas:
        """Padded to a square around the middle; an odd pixel goes to the right or bottom."""
        width, height = self.wh
        side = max(width, height)
        return self.window(-((side - width) // 2), -((side - height) // 2), side, side)

    def grid(self, patch: int) -> tuple[tuple[int, int], Box]:
        """Rows and columns of whole patches, and the box they span; what is left over at right and bottom is cut."""
        cols, rows = self.wh[0] // patch, self.wh[1] // patch
        if rows < 1 or cols < 1:
            raise LayoutError(f"an input of {self.wh[0]} x {self.wh[1]} pixels holds no patch of {patch} pixels")
        return (rows, cols), self.window(0, 0, cols * patch, rows * patch).box_xyxy

    def _check_size(self, width: int, height: int) -> None:
        if width < 1 or height < 1 or width * height > MOST_PIXELS:
            raise ImageError(
                f"the picture is too long and thin for this model: its preparation would make {width} x {height}"
                f" pixels (at least 1 x 1, at most {MOST_PIXELS} in all); cut it into less extreme parts"
            )
