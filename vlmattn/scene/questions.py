"""Questions about a scene, with their true answers and the objects they are about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vlmattn.scene.generator import Scene, zone
from vlmattn.scene.objects import COLORS, SHAPES

TEMPLATES: dict[str, tuple[str, ...]] = {
    "color": ("What color is the {o}?", "What is the color of the {o}?", "Which color does the {o} have?"),
    "shape": (
        "What shape is the {o} object?",
        "What is the shape of the {o} thing?",
        "Which shape does the {o} object have?",
    ),
    "size": ("How big is the {o}?", "What size is the {o}?"),
    "exist": ("Is there a {o} in the picture?", "Is there a {o}?", "Can you see a {o}?"),
    "where": ("Where is the {o}?", "In which part of the picture is the {o}?"),
    "at": ("What is at the {o}?", "What do you see at the {o}?"),
    "count": ("How many objects are there?", "How many things are in the picture?"),
    "count_color": ("How many {o} objects are there?",),
    "caption": ("Describe the picture.", "What is in the picture?", "Write a general description of the image."),
}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
KINDS = ("color", "shape", "where", "size", "at", "count", "exist", "caption")
MIX = (0.21, 0.21, 0.11, 0.05, 0.10, 0.07, 0.20, 0.05)
"""How often each of :data:`KINDS` is asked in training."""


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        kind: one of :data:`KINDS`. text, answer: as asked and as expected.
        targets: indices into ``scene.objects`` of what it is about; empty where the true answer is *no*.
        foil: for presence questions, ``binding`` if colour and shape are both there but on different objects,
            ``random`` for other absent things, ``partner`` for the absent partner of an anchor; else empty.
    """

    kind: str
    text: str
    answer: str
    targets: tuple[int, ...]
    foil: str = ""


def ask(rng: np.random.Generator, kind: str, scene: Scene) -> Question | None:
    """A question of a kind, or None if the scene does not allow an unambiguous one."""
    return _ASK[kind](rng, scene)


def ask_about(scene: Scene, name: str) -> Question:
    """Whether ``name`` (``red circle``) is in the scene, in the first phrasing."""
    there = tuple(i for i, o in enumerate(scene.objects) if o.name == name)
    return Question("exist", TEMPLATES["exist"][0].format(o=name), "yes" if there else "no", there)


def _phrase(rng: np.random.Generator, kind: str, filler: str = "") -> str:
    options = TEMPLATES[kind]
    return options[rng.integers(len(options))].format(o=filler)


def _color(rng: np.random.Generator, scene: Scene) -> Question | None:
    shapes = [o.shape for o in scene.objects]
    alone = [i for i, s in enumerate(shapes) if shapes.count(s) == 1]
    if not alone:
        return None
    index = alone[rng.integers(len(alone))]
    item = scene.objects[index]
    return Question("color", _phrase(rng, "color", item.shape), item.color, (index,))


def _shape(rng: np.random.Generator, scene: Scene) -> Question | None:
    colors = [o.color for o in scene.objects]
    alone = [i for i, c in enumerate(colors) if colors.count(c) == 1]
    if not alone:
        return None
    index = alone[rng.integers(len(alone))]
    item = scene.objects[index]
    return Question("shape", _phrase(rng, "shape", item.color), item.shape, (index,))


def _size(rng: np.random.Generator, scene: Scene) -> Question | None:
    index = int(rng.integers(len(scene.objects)))
    item = scene.objects[index]
    return Question("size", _phrase(rng, "size", item.name), item.size, (index,))


def _where(rng: np.random.Generator, scene: Scene) -> Question | None:
    index = int(rng.integers(len(scene.objects)))
    item = scene.objects[index]
    return Question("where", _phrase(rng, "where", item.name), zone(item, scene.image_wh), (index,))


def _exist(rng: np.random.Generator, scene: Scene) -> Question | None:
    if rng.random() < 0.5:
        index = int(rng.integers(len(scene.objects)))
        return Question("exist", _phrase(rng, "exist", scene.objects[index].name), "yes", (index,))
    name, foil = _absent(rng, scene)
    return Question("exist", _phrase(rng, "exist", name), "no", (), foil)


def _absent(rng: np.random.Generator, scene: Scene) -> tuple[str, str]:
    there = {o.name for o in scene.objects}
    colors, shapes = dict.fromkeys(o.color for o in scene.objects), dict.fromkeys(o.shape for o in scene.objects)
    crossed = [name for c in colors for s in shapes if (name := f"{c} {s}") not in there]
    if crossed and rng.random() < 0.5:
        return crossed[rng.integers(len(crossed))], "binding"
    while True:
        name = f"{list(COLORS)[rng.integers(len(COLORS))]} {SHAPES[rng.integers(len(SHAPES))]}"
        if name not in there:
            return name, "random"


def _at(rng: np.random.Generator, scene: Scene) -> Question | None:
    zones = [zone(o, scene.image_wh) for o in scene.objects]
    alone = [i for i, z in enumerate(zones) if zones.count(z) == 1]
    if not alone:
        return None
    index = alone[rng.integers(len(alone))]
    return Question("at", _phrase(rng, "at", zones[index]), scene.objects[index].name, (index,))


def _count(rng: np.random.Generator, scene: Scene) -> Question | None:
    if rng.random() < 0.5:
        everything = tuple(range(len(scene.objects)))
        return Question("count", _phrase(rng, "count"), NUMBERS[len(everything)], everything)
    color = scene.objects[rng.integers(len(scene.objects))].color
    found = tuple(i for i, o in enumerate(scene.objects) if o.color == color)
    return Question("count", _phrase(rng, "count_color", color), NUMBERS[len(found)], found)


def _caption(rng: np.random.Generator, scene: Scene) -> Question | None:
    boxes = [o.box_xyxy for o in scene.objects]
    order = sorted(range(len(boxes)), key=lambda i: (boxes[i][1] // 48, boxes[i][0]))
    text = ", ".join(f"a {scene.objects[i].name}" for i in order)
    return Question("caption", _phrase(rng, "caption"), text, tuple(range(len(boxes))))


_ASK: dict[str, Callable[[np.random.Generator, Scene], Question | None]] = {
    "color": _color,
    "shape": _shape,
    "size": _size,
    "where": _where,
    "exist": _exist,
    "at": _at,
    "count": _count,
    "caption": _caption,
}
