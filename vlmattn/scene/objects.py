"""The things a scene is made of: eight shapes in eight colours and three sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "ring", "heart")
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "green": (40, 160, 60),
    "blue": (45, 85, 215),
    "yellow": (240, 212, 50),
    "purple": (140, 60, 170),
    "orange": (240, 135, 35),
    "cyan": (60, 200, 215),
    "white": (238, 238, 238),
}
SIZES: dict[str, tuple[int, int]] = {"large": (52, 66), "small": (28, 36), "tiny": (16, 21)}
"""Width and height in pixels, smallest and largest, inclusive."""

_OVERSAMPLING = 4


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Attributes:
        color, shape, size: names from :data:`COLORS`, :data:`SHAPES`, :data:`SIZES`.
        box_xyxy: pixels, ends exclusive.
    """

    color: str
    shape: str
    size: str
    box_xyxy: tuple[int, int, int, int]

    @property
    def name(self) -> str:
        """Colour and shape, as questions say it: ``red circle``."""
        return f"{self.color} {self.shape}"

    @property
    def side(self) -> int:
        """Width and height of the box in pixels."""
        return self.box_xyxy[2] - self.box_xyxy[0]

    @property
    def center_xy(self) -> tuple[float, float]:
        """The middle of the box, in pixels."""
        x0, y0, x1, y1 = self.box_xyxy
        return (x0 + x1) / 2, (y0 + y1) / 2


@lru_cache(maxsize=1024)
def shape_mask(shape: str, side: int) -> NDArray[np.uint8]:
    """(side, side) coverage of a shape in its box, 0 to 255, anti-aliased by oversampling."""
    big = side * _OVERSAMPLING
    canvas = Image.new("L", (big, big), 0)
    _DRAW[shape](ImageDraw.Draw(canvas), big)
    mask = np.array(canvas.resize((side, side), Image.Resampling.BOX))
    mask.setflags(write=False)
    return mask


def _polygon(draw: ImageDraw.ImageDraw, side: int, points: list[tuple[float, float]]) -> None:
    draw.polygon([(round(x * side), round(y * side)) for x, y in points], fill=255)


def _circle(draw: ImageDraw.ImageDraw, side: int) -> None:
    draw.ellipse((0, 0, side - 1, side - 1), fill=255)


def _square(draw: ImageDraw.ImageDraw, side: int) -> None:
    low, high = round(side * 0.06), round(side * 0.94)
    draw.rectangle((low, low, high, high), fill=255)


def _triangle(draw: ImageDraw.ImageDraw, side: int) -> None:
    _polygon(draw, side, [(0.5, 0.02), (1, 0.95), (0, 0.95)])


def _diamond(draw: ImageDraw.ImageDraw, side: int) -> None:
    _polygon(draw, side, [(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)])


def _star(draw: ImageDraw.ImageDraw, side: int) -> None:
    angles = -np.pi / 2 + np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 0.52, 0.21)
    corners = zip(radii, angles, strict=True)
    _polygon(draw, side, [(0.5 + r * np.cos(a), 0.52 + r * np.sin(a)) for r, a in corners])


def _cross(draw: ImageDraw.ImageDraw, side: int) -> None:
    low, high = round(side * 0.34), round(side * 0.66)
    draw.rectangle((low, 0, high, side), fill=255)
    draw.rectangle((0, low, side, high), fill=255)


def _ring(draw: ImageDraw.ImageDraw, side: int) -> None:
    _circle(draw, side)
    low, high = round(side * 0.27), round(side * 0.73)
    draw.ellipse((low, low, high, high), fill=0)


def _heart(draw: ImageDraw.ImageDraw, side: int) -> None:
    t = np.linspace(0, 2 * np.pi, 90)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    _polygon(draw, side, [(0.5 + a / 34, 0.47 + b / 34) for a, b in zip(x, y, strict=True)])


_DRAW: dict[str, Callable[[ImageDraw.ImageDraw, int], None]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "heart": _heart,
}
