"""Drawn displays for search: one thing of one kind among many of another, and the same with both exchanged."""

from __future__ import annotations

import numpy as np

from vlmattn.core.errors import SpecError
from vlmattn.scene.generator import Scene, SceneRule, painted
from vlmattn.scene.objects import COLORS, SHAPES, SceneObject

_SIDE, _SIZE = 224, 30
_RULE = SceneRule(backgrounds="held_out")


def search_display(target: str, distractor: str, *, items: int = 12, seed: int = 0) -> Scene:
    """A scene with one target, its first object, among ``items - 1`` distractors of the same size.

    Places, and which of them is the target's, depend only on ``items`` and ``seed``: exchanging target and distractor
    gives the matching display. The target is never nearest the middle.

    Args:
        target, distractor: colour and shape, as ``red ring``. items: 2 to 25.

    Raises:
        SpecError: no such thing, two alike, or another number of items.

    Example:
        >>> scene = search_display("red ring", "red circle", items=8)
        >>> scene.objects[0].name, len(scene.objects)
        ('red ring', 8)
    """
    pairs = [(name.partition(" ")[0], name.partition(" ")[2]) for name in (target, distractor)]
    if any(color not in COLORS or shape not in SHAPES for color, shape in pairs) or target == distractor:
        raise SpecError(f"target and distractor must be two different things like 'red ring', got {pairs}")
    if not 2 <= items <= 25:
        raise SpecError(f"a display holds 2 to 25 items, got {items!r}")
    rng = np.random.default_rng([seed, items])
    boxes = _boxes(rng, items)
    things = tuple(SceneObject(*pairs[0 if n == 0 else 1], "small", box) for n, box in enumerate(boxes))
    return Scene(painted(rng, things, _RULE, (_SIDE, _SIDE)), things)


def _boxes(rng: np.random.Generator, items: int) -> list[tuple[int, int, int, int]]:
    """Boxes in cells of five by five, each somewhere in its cell; the first is not in the middle one."""
    cell = _SIDE // 5
    cells = rng.permutation(25)
    if cells[0] == 12:
        cells[[0, 1]] = cells[[1, 0]]
    found = []
    for number in cells[:items]:
        across, down = (int(v) for v in rng.integers(1, cell - _SIZE, 2))
        x, y = int(number) % 5 * cell + across, int(number) // 5 * cell + down
        found.append((x, y, x + _SIZE, y + _SIZE))
    return found
