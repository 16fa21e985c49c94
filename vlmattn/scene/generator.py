"""Scenes: two to six objects on a texture, the same for the same seed.

Co-occurrence rule: half of the scenes of a mixed split have an *anchor* (blue square, yellow star or purple ring). Its
*partner* (red circle, green triangle, orange cross, in this order) is put beside it in 85 % of them and kept out of the
others. Everything else is independent and uniform, so anchors also turn up by chance, without the rule: over all
scenes, an anchor has its partner beside it about two times in three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmattn.scene.backgrounds import CANVAS, background_bank
from vlmattn.scene.objects import COLORS, SHAPES, SIZES, SceneObject, shape_mask

PARTNERS: dict[tuple[str, str], tuple[str, str]] = {
    ("blue", "square"): ("red", "circle"),
    ("yellow", "star"): ("green", "triangle"),
    ("purple", "ring"): ("orange", "cross"),
}
Anchor = Literal["mixed", "alone", "never"]
_GAP = 4
_TRIES = 60
_JITTER = 14.0
_NOISE = 3.0


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture with everything that is on it.

    Attributes:
        pixels: (H, W, 3) uint8, longest side 224. objects: not overlapping, at least 4 pixels apart.
    """

    pixels: NDArray[np.uint8]
    objects: tuple[SceneObject, ...]

    @property
    def image(self) -> Image.Image:
        """The picture."""
        return Image.fromarray(self.pixels)

    @property
    def image_wh(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]


@dataclass(frozen=True)
class SceneRule:
    """How scenes of a split are drawn.

    Attributes:
        backgrounds: ``train`` or ``held_out``. anchor: ``mixed`` (see the module), ``alone`` (always an anchor, never
            its partner) or ``never``. size_odds: probability of large, small and tiny. most_objects: 2 to 6.
    """

    backgrounds: str = "train"
    anchor: Anchor = "mixed"
    size_odds: tuple[float, float, float] = (0.45, 0.40, 0.15)
    most_objects: int = 6


def make_scene(seed: int | np.random.Generator, rule: SceneRule = SceneRule()) -> Scene:
    """A scene; the same seed gives the same bytes.

    Args:
        seed: a number, or a generator to draw from. rule: how to draw.
    """
    rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(seed)
    width, height = _size(rng)
    objects = _placed(rng, _wanted(rng, rule), rule, width, height)
    return Scene(_painted(rng, objects, rule, width, height), objects)


def zone(item: SceneObject, image_wh: tuple[int, int]) -> str:
    """Which ninth of the picture the middle of an object lies in: ``top left`` … ``bottom right``."""
    x, y = item.center_xy
    row = ("top", "middle", "bottom")[min(int(y / image_wh[1] * 3), 2)]
    return f"{row} {('left', 'center', 'right')[min(int(x / image_wh[0] * 3), 2)]}"


def _size(rng: np.random.Generator) -> tuple[int, int]:
    # One scene in five is not square.
    width = height = CANVAS
    if rng.random() < 0.2:
        if rng.random() < 0.5:
            height = int(rng.integers(140, 212))
        else:
            width = int(rng.integers(140, 212))
    return width, height


def _wanted(rng: np.random.Generator, rule: SceneRule) -> list[tuple[str, str]]:
    count = int(rng.integers(2, rule.most_objects + 1))
    wanted: list[tuple[str, str]] = []
    anchor = None
    odds = {"mixed": 0.5, "alone": 1.0, "never": 0.0}[rule.anchor]
    if rng.random() < odds:
        anchor = list(PARTNERS)[rng.integers(len(PARTNERS))]
        wanted.append(anchor)
        if rng.random() < 0.85 and rule.anchor == "mixed":
            wanted.append(PARTNERS[anchor])
    while len(wanted) < count:
        pair = (list(COLORS)[rng.integers(len(COLORS))], SHAPES[rng.integers(len(SHAPES))])
        if pair in wanted or (anchor is not None and pair == PARTNERS[anchor]):
            continue
        wanted.append(pair)
    rng.shuffle(wanted)
    return wanted


def _placed(
    rng: np.random.Generator, wanted: list[tuple[str, str]], rule: SceneRule, width: int, height: int
) -> tuple[SceneObject, ...]:
    # An object that finds no free place is left out.
    objects: list[SceneObject] = []
    for color, shape in wanted:
        for _ in range(_TRIES):
            size = list(SIZES)[rng.choice(3, p=list(rule.size_odds))]
            side = int(rng.integers(SIZES[size][0], SIZES[size][1] + 1))
            x, y = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
            box = (x, y, x + side, y + side)
            if all(_apart(box, other.box_xyxy) for other in objects):
                objects.append(SceneObject(color, shape, size, box))
                break
    return tuple(objects)


def _apart(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    across = a[0] >= b[2] + _GAP or a[2] + _GAP <= b[0]
    return across or a[1] >= b[3] + _GAP or a[3] + _GAP <= b[1]


def _painted(
    rng: np.random.Generator, objects: tuple[SceneObject, ...], rule: SceneRule, width: int, height: int
) -> NDArray[np.uint8]:
    bank = background_bank(rule.backgrounds)
    texture = bank[rng.integers(len(bank))]
    if rng.random() < 0.5:
        texture = texture[:, ::-1]
    pixels = np.rot90(texture, int(rng.integers(4)))[:height, :width].astype(np.float32)
    for item in objects:
        x0, y0, x1, y1 = item.box_xyxy
        cover = shape_mask(item.shape, x1 - x0)[..., None]
        color = np.clip(np.array(COLORS[item.color]) + rng.uniform(-_JITTER, _JITTER, 3), 0, 255)
        pixels[y0:y1, x0:x1] = pixels[y0:y1, x0:x1] * (1 - cover) + color * cover
    return np.clip(pixels + rng.normal(0, _NOISE, pixels.shape), 0, 255).astype(np.uint8)
