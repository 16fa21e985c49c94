"""Scenes: objects on a background, the same for the same seed. What goes together: :mod:`vlmattn.scene.partners`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmattn.scene.backgrounds import BANKS, CANVAS, background
from vlmattn.scene.objects import COLORS, SHAPES, SIZES, SceneObject, shape_mask
from vlmattn.scene.partners import ANCHOR_ODDS, PARTNER_ODDS, PARTNERS, Name

ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")
Anchor = Literal["mixed", "alone", "never"]
_GAP = 4
_TRIES = 60
_JITTER = 14
_NOISE = 5


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

    @property
    def names(self) -> set[str]:
        """Colour and shape of everything: ``{"red circle", …}``."""
        return {o.name for o in self.objects}


@dataclass(frozen=True)
class SceneRule:
    """How scenes of a split are drawn.

    Attributes:
        backgrounds: ``train`` or ``held_out``. anchor: ``mixed`` (see :mod:`vlmattn.scene.partners`), ``alone`` (always
            an anchor, never its partner) or ``never``. size_odds: probability of large, small and tiny. fewest_objects,
            most_objects: how many are wanted; one that finds no free place is left out.
    """

    backgrounds: str = "train"
    anchor: Anchor = "mixed"
    size_odds: tuple[float, float, float] = (0.45, 0.40, 0.15)
    fewest_objects: int = 2
    most_objects: int = 6


TRAINING = SceneRule(size_odds=(0.36, 0.36, 0.28))
"""How training scenes are drawn: with more tiny things than the others."""


def make_scene(seed: int | np.random.Generator, rule: SceneRule = SceneRule()) -> Scene:
    """A scene; the same seed gives the same bytes.

    Args:
        seed: a number, or a generator to draw from. rule: how to draw.

    Example:
        >>> from vlmattn.scene import make_scene
        >>> make_scene(0).image_wh
        (224, 224)
    """
    rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(seed)
    width, height = _size(rng)
    objects = _placed(rng, _wanted(rng, rule), rule, width, height)
    return Scene(painted(rng, objects, rule, (width, height)), objects)


def zone(item: SceneObject, image_wh: tuple[int, int]) -> str:
    """Which ninth of the picture the middle of an object lies in: ``top left`` … ``bottom right``."""
    x, y = item.center_xy
    return f"{ROWS[min(int(y / image_wh[1] * 3), 2)]} {COLUMNS[min(int(x / image_wh[0] * 3), 2)]}"


def painted(
    rng: np.random.Generator, objects: tuple[SceneObject, ...], rule: SceneRule, image_wh: tuple[int, int]
) -> NDArray[np.uint8]:
    """(H, W, 3) picture of the objects on a background of the rule's bank."""
    width, height = image_wh
    texture = background(rule.backgrounds, int(rng.integers(len(BANKS[rule.backgrounds]))))
    if rng.random() < 0.5:
        texture = texture[:, ::-1]
    pixels = np.rot90(texture, int(rng.integers(4)))[:height, :width].astype(np.int32)
    for item in objects:
        x0, y0, x1, y1 = item.box_xyxy
        cover = shape_mask(item.shape, x1 - x0)[..., None].astype(np.int32)
        color = np.clip(np.array(COLORS[item.color]) + rng.integers(-_JITTER, _JITTER + 1, 3), 0, 255)
        pixels[y0:y1, x0:x1] = (pixels[y0:y1, x0:x1] * (255 - cover) + color * cover + 127) // 255
    grain = rng.integers(-_NOISE, _NOISE + 1, pixels.shape, dtype=np.int8)
    return np.clip(pixels + grain, 0, 255).astype(np.uint8)


def _size(rng: np.random.Generator) -> tuple[int, int]:
    # One scene in five is not square.
    width = height = CANVAS
    if rng.random() < 0.2:
        if rng.random() < 0.5:
            height = int(rng.integers(140, 212))
        else:
            width = int(rng.integers(140, 212))
    return width, height


def _wanted(rng: np.random.Generator, rule: SceneRule) -> list[Name]:
    count = int(rng.integers(rule.fewest_objects, rule.most_objects + 1))
    wanted: list[Name] = []
    anchor = None
    odds = {"mixed": ANCHOR_ODDS, "alone": 1.0, "never": 0.0}[rule.anchor]
    if rng.random() < odds:
        anchor = list(PARTNERS)[rng.integers(len(PARTNERS))]
        wanted.append(anchor)
        if rng.random() < PARTNER_ODDS and rule.anchor == "mixed":
            wanted.append(PARTNERS[anchor])
    while len(wanted) < count:
        pair = (list(COLORS)[rng.integers(len(COLORS))], SHAPES[rng.integers(len(SHAPES))])
        if pair in wanted or (anchor is not None and pair == PARTNERS[anchor]):
            continue
        wanted.append(pair)
    rng.shuffle(wanted)
    return wanted


def _placed(
    rng: np.random.Generator, wanted: list[Name], rule: SceneRule, width: int, height: int
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
