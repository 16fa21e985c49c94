"""What all ways to answer share: questions, pictures, and whether answers are right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import vlmattn as va
from vlmattn.api.answers import answers_of
from vlmattn.api.request import Request
from vlmattn.scene import Question, Scene, split_item

BATCH = 20
Asked = list[tuple[Scene, Question]]
Answers = list[str]


@dataclass
class Route:
    """A way to answer: ``say`` takes pictures and texts, and how long an answer may be; ``spent`` tells what answers of
    a length cost where several ways share them."""

    name: str
    say: Callable[[Sequence[Any], Sequence[str], int], Answers]
    told: str = ""
    control: bool = False
    only: tuple[str, ...] = ("presence", "captions")
    names: Callable[[Sequence[Any], Sequence[str], int], list[list[str]]] | None = field(default=None, repr=False)
    spent: Callable[[int], float] | None = field(default=None, repr=False)


def presence(split: str, count: int, seed: int) -> Asked:
    """The first questions of presence of a split."""
    found: Asked = []
    index = 0
    while len(found) < count:
        scene, asked = split_item(split, seed, index)
        found += [(scene, one) for one in asked if one.kind == "exist"]
        index += 1
    return found[:count]


def pictures(count: int, seed: int) -> list[Scene]:
    """Scenes with an anchor whose partner is missing."""
    return [split_item("adversarial", seed, index)[0] for index in range(count)]


def steered(vlm: va.Vlm, *steering: Any) -> Callable[[Sequence[Any], Sequence[str], int], Answers]:
    """Answers under steering, in batches."""

    def say(images: Sequence[Any], texts: Sequence[str], new: int) -> Answers:
        told: Answers = []
        for first in range(0, len(texts), BATCH):
            pairs = tuple(zip(images[first : first + BATCH], texts[first : first + BATCH], strict=True))
            told += [one.text for one in answers_of(vlm, Request(pairs, steering=steering, max_new_tokens=new))]
        return told

    return say


def right(say: Callable[..., Answers], asked: Asked) -> list[bool]:
    """Whether each question is answered as expected."""
    told = say([scene.image for scene, _ in asked], [q.text for _, q in asked], 4)
    return [one.strip(" .").casefold() == q.answer for one, (_, q) in zip(told, asked, strict=True)]
