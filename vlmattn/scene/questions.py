"""Questions about a scene, with their true answers and the objects they are about.

A question is asked only where its answer is plain: positions only of things whose middle is well inside a ninth of the
picture, relations only of things that are well apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vlmattn.scene.generator import Scene, zone
from vlmattn.scene.objects import COLORS, SHAPES, SIZES, SceneObject
from vlmattn.scene.partners import PARTNERS, absent_partners
from vlmattn.scene.phrasings import (
    COMPARISONS,
    ENDING_ODDS,
    ENDINGS,
    PLURALS,
    RELATIONS,
    Phrasing,
    pick_template,
    with_article,
)

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
KINDS = ("color", "shape", "where", "size", "at", "count", "exist", "compare", "relation", "caption")
MARGIN = 8
"""How many pixels the middle of an object keeps from a border of its ninth where a question is about position."""
APART = 32
"""How many pixels the middles of two objects are apart, along the axis of a relation that is asked about."""
LOOSE = 12.0
"""Standard deviation, in pixels, by which captions of training stray from the order left to right: one that names a
thing too early has then seen what to do about those it passed."""
FOILS = ("binding", "partner", "popular", "random")


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        kind: one of :data:`KINDS`. text, answer: as asked and as expected.
        targets: indices into ``scene.objects`` of what it is about; empty where nothing of it is there.
        foil: for presence questions whose answer is *no*, one of :data:`FOILS`: ``binding`` if colour and shape are
            both there but on different objects, ``partner`` for the absent partner of an anchor that is there,
            ``popular`` for a partner whose anchor is not there, ``random`` for other absent things; else empty.
    """

    kind: str
    text: str
    answer: str
    targets: tuple[int, ...]
    foil: str = ""


@dataclass(frozen=True)
class Asking:
    """How to ask.

    Attributes:
        rng: where choices come from. phrasing: which phrasings. teaching: as in training, where some questions end in
            an instruction such as "Please answer with one word." and captions keep to their order only roughly.
    """

    rng: np.random.Generator
    phrasing: Phrasing = "train"
    teaching: bool = False

    def text(self, kind: str, **fillers: str) -> str:
        """A question of a kind in one of its phrasings."""
        text = pick_template(self.rng, kind, self.phrasing).format(**fillers)
        if self.teaching and kind in ENDINGS and self.rng.random() < ENDING_ODDS:
            text = f"{text} {self.pick(ENDINGS[kind])}"
        return text

    def pick(self, options: tuple[str, ...]) -> str:
        """One of several words."""
        return options[self.rng.integers(len(options))]

    def one_of(self, indices: list[int]) -> int:
        """One of several numbers."""
        return indices[self.rng.integers(len(indices))]


def ask(
    rng: np.random.Generator, kind: str, scene: Scene, *, phrasing: Phrasing = "train", teaching: bool = False
) -> Question | None:
    """A question of a kind, or None if the scene does not allow a plain one."""
    return _ASK[kind](Asking(rng, phrasing, teaching), scene)


def ask_whether(asking: Asking, scene: Scene, name: str, foil: str = "") -> Question:
    """Whether ``name`` (``red circle``) is in the scene."""
    there = tuple(i for i, o in enumerate(scene.objects) if o.name == name)
    text = asking.text("exist", o=with_article(name))
    return Question("exist", text, "yes" if there else "no", there, "" if there else foil)


def ask_absent(asking: Asking, scene: Scene, foil: str) -> Question | None:
    """A presence question whose answer is *no*, of a kind of :data:`FOILS`; None if the scene has none."""
    there = scene.names
    if foil == "partner":
        names = [" ".join(p) for _, p in absent_partners(there)]
    elif foil == "popular":
        names = [" ".join(p) for a, p in PARTNERS.items() if " ".join(a) not in there and " ".join(p) not in there]
    elif foil == "binding":
        colors, shapes = dict.fromkeys(o.color for o in scene.objects), dict.fromkeys(o.shape for o in scene.objects)
        names = [name for c in colors for s in shapes if (name := f"{c} {s}") not in there]
    else:
        names = [name for c in COLORS for s in SHAPES if (name := f"{c} {s}") not in there]
    return ask_whether(asking, scene, asking.pick(tuple(names)), foil) if names else None


def clear_zone(item: SceneObject, image_wh: tuple[int, int]) -> str | None:
    """The ninth of the picture an object lies in, or None if its middle is near a border of it."""
    for middle, extent in zip(item.center_xy, image_wh, strict=True):
        if min(abs(middle - extent / 3), abs(middle - 2 * extent / 3)) < MARGIN:
            return None
    return zone(item, image_wh)


def _color(asking: Asking, scene: Scene) -> Question | None:
    alone = _alone([o.shape for o in scene.objects])
    if not alone:
        return None
    index = asking.one_of(alone)
    item = scene.objects[index]
    return Question("color", asking.text("color", o=item.shape), item.color, (index,))


def _shape(asking: Asking, scene: Scene) -> Question | None:
    alone = _alone([o.color for o in scene.objects])
    if not alone:
        return None
    index = asking.one_of(alone)
    item = scene.objects[index]
    return Question("shape", asking.text("shape", o=item.color), item.shape, (index,))


def _size(asking: Asking, scene: Scene) -> Question | None:
    index = int(asking.rng.integers(len(scene.objects)))
    item = scene.objects[index]
    return Question("size", asking.text("size", o=item.name), item.size, (index,))


def _where(asking: Asking, scene: Scene) -> Question | None:
    zones = [clear_zone(o, scene.image_wh) for o in scene.objects]
    clear = [i for i, z in enumerate(zones) if z is not None]
    if not clear:
        return None
    index = asking.one_of(clear)
    return Question("where", asking.text("where", o=scene.objects[index].name), str(zones[index]), (index,))


def _at(asking: Asking, scene: Scene) -> Question | None:
    zones = [clear_zone(o, scene.image_wh) for o in scene.objects]
    unclear = {zone(o, scene.image_wh) for o, z in zip(scene.objects, zones, strict=True) if z is None}
    alone = [i for i, z in enumerate(zones) if z is not None and zones.count(z) == 1 and z not in unclear]
    if not alone:
        return None
    index = asking.one_of(alone)
    return Question("at", asking.text("at", o=str(zones[index])), scene.objects[index].name, (index,))


def _count(asking: Asking, scene: Scene) -> Question | None:
    which = asking.rng.random()
    if which < 0.4:
        found, things = tuple(range(len(scene.objects))), asking.pick(("objects", "things"))
    elif which < 0.7:
        color = _counted(asking, [o.color for o in scene.objects], tuple(COLORS))
        found, things = tuple(i for i, o in enumerate(scene.objects) if o.color == color), f"{color} objects"
    else:
        shape = _counted(asking, [o.shape for o in scene.objects], SHAPES)
        found, things = tuple(i for i, o in enumerate(scene.objects) if o.shape == shape), PLURALS[shape]
    return Question("count", asking.text("count", o=things), NUMBERS[len(found)], found)


def _counted(asking: Asking, there: list[str], known: tuple[str, ...]) -> str:
    # One that is there twice or more often in two of five questions that can be so asked; any, once in seven.
    repeated = tuple(word for word in dict.fromkeys(there) if there.count(word) > 1)
    if repeated and asking.rng.random() < 0.4:
        return asking.pick(repeated)
    return asking.pick(tuple(there) if asking.rng.random() < 0.85 else known)


def _exist(asking: Asking, scene: Scene) -> Question | None:
    if asking.rng.random() < 0.2:
        return _exist_part(asking, scene)
    if asking.rng.random() < 0.5:
        return ask_whether(asking, scene, scene.objects[asking.rng.integers(len(scene.objects))].name)
    crossed = ask_absent(asking, scene, "binding") if asking.rng.random() < 0.5 else None
    return crossed or ask_absent(asking, scene, "random")


def _exist_part(asking: Asking, scene: Scene) -> Question:
    # A colour or a shape alone.
    by_color = asking.rng.random() < 0.5
    there = [o.color if by_color else o.shape for o in scene.objects]
    absent = tuple(w for w in (COLORS if by_color else SHAPES) if w not in there)
    word = asking.pick(tuple(there) if asking.rng.random() < 0.5 else absent)
    found = tuple(i for i, w in enumerate(there) if w == word)
    text = asking.text("exist", o=with_article(f"{word} object" if by_color else word))
    return Question("exist", text, "yes" if found else "no", found, "" if found else "random")


def _compare(asking: Asking, scene: Scene) -> Question | None:
    things, sizes = scene.objects, list(SIZES)
    pairs = [(i, j) for i, a in enumerate(things) for j, b in enumerate(things) if a.size != b.size]
    if not pairs:
        return None
    i, j = pairs[asking.rng.integers(len(pairs))]
    wanted = asking.pick(COMPARISONS)
    first_larger = sizes.index(things[i].size) < sizes.index(things[j].size)
    best = i if first_larger == (wanted == "larger") else j
    text = asking.text("compare", r=wanted, a=things[i].name, b=things[j].name)
    return Question("compare", text, things[best].name, (i, j))


def _relation(asking: Asking, scene: Scene) -> Question | None:
    if len(scene.objects) < 2:
        return None
    i, j = (int(v) for v in asking.rng.choice(len(scene.objects), 2, replace=False))
    wanted = asking.pick(RELATIONS)
    axis = 0 if wanted in ("left of", "right of") else 1
    step = scene.objects[j].center_xy[axis] - scene.objects[i].center_xy[axis]
    if abs(step) < APART:
        return None
    true = (step > 0) == (wanted in ("left of", "above"))
    text = asking.text("relation", r=wanted, a=scene.objects[i].name, b=scene.objects[j].name)
    return Question("relation", text, "yes" if true else "no", (i, j))


def _caption(asking: Asking, scene: Scene) -> Question | None:
    centers = [item.center_xy for item in scene.objects]
    loose = asking.rng.normal(0, LOOSE, len(centers)) if asking.teaching else np.zeros(len(centers))
    order = sorted(range(len(centers)), key=lambda i: (centers[i][0] + loose[i], centers[i][1]))
    text = ", ".join(with_article(scene.objects[i].name) for i in order)
    return Question("caption", asking.text("caption"), text, tuple(range(len(order))))


def _alone(words: list[str]) -> list[int]:
    return [i for i, word in enumerate(words) if words.count(word) == 1]


_ASK: dict[str, Callable[[Asking, Scene], Question | None]] = {
    "color": _color,
    "shape": _shape,
    "size": _size,
    "where": _where,
    "exist": _exist,
    "at": _at,
    "count": _count,
    "compare": _compare,
    "relation": _relation,
    "caption": _caption,
}
