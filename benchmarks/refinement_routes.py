"""Ways to answer a question about a scene a second time, many questions at once; used by ``refinement.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import vlmattn as va
from vlmattn.api.refinement import certainty
from vlmattn.core.errors import MapError
from vlmattn.refine import RECIPES, Recipe, Signs, signs_of
from vlmattn.refine.places import around
from vlmattn.scene import Question, Scene, split_item

SPEC = va.CaptureSpec(rows="answer", top_k=2)
LEAST = va.CaptureSpec(rows="answer", layers=[0], reduce="mean", top_k=2)
BATCH = 24


@dataclass(frozen=True)
class Asked:
    """One question with its first look."""

    scene: Scene
    question: Question
    run: va.Run
    signs: Signs

    @property
    def right(self) -> bool:
        """Whether the first answer is right."""
        return is_right(self.question, self.run.answer)


@dataclass
class Outcome:
    """Answers of one route: right or not, how sure, and looks besides the first, per question."""

    right: list[bool] = field(default_factory=list)
    sure: list[float] = field(default_factory=list)
    looks: list[int] = field(default_factory=list)
    boxes: list[tuple[int, int, int, int] | None] = field(default_factory=list)

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(np.mean(self.right))

    def add(self, right: bool, sure: float, looks: int, box: tuple[int, int, int, int] | None = None) -> None:
        """One more question."""
        self.right.append(right)
        self.sure.append(sure)
        self.looks.append(looks)
        self.boxes.append(box)


def is_right(question: Question, answer: str) -> bool:
    """Exact match, whatever case and full stop."""
    return answer.casefold().strip().rstrip(".") == question.answer


def cases(split: str, seed: int, scenes: int, kinds: Sequence[str]) -> list[tuple[Scene, Question]]:
    """Questions about one thing, or about one that is not there."""
    found = []
    for index in range(scenes):
        scene, questions = split_item(split, seed, index)
        found += [(scene, q) for q in questions if q.kind in kinds and len(q.targets) <= 1]
    return found


def first_looks(vlm: va.Vlm, asked: Sequence[tuple[Scene, Question]]) -> list[Asked]:
    """The questions, asked of the whole pictures."""
    runs = batched(vlm, [(scene.image, question.text) for scene, question in asked], SPEC)
    return [Asked(s, q, run, signs_of(run.trace)) for (s, q), run in zip(asked, runs, strict=True)]


def batched(vlm: va.Vlm, items: Sequence[tuple[Any, Any]], capture: va.CaptureSpec = LEAST) -> list[va.Run]:
    """Runs of pictures and prompts, some at once."""
    runs: list[va.Run] = []
    for first in range(0, len(items), BATCH):
        runs += vlm.ask_many(list(items[first : first + BATCH]), capture=capture, max_new_tokens=6)
    return runs


def plain(asked: Sequence[Asked]) -> Outcome:
    """The first answers."""
    out = Outcome()
    for one in asked:
        out.add(one.right, certainty(one.run), 0)
    return out


def by_recipe(vlm: va.Vlm, asked: Sequence[Asked], recipe: Recipe) -> Outcome:
    """Second answers on refined pictures; where the map is flat, the first answer."""
    made = []
    for one in asked:
        try:
            made.append(one.run.refine(recipe))
        except MapError:
            made.append(None)
    runs = iter(batched(vlm, [m.item() for m in made if m is not None]))
    out = Outcome()
    for one, refinement in zip(asked, made, strict=True):
        run = one.run if refinement is None else next(runs)
        box = None if refinement is None else refinement.box_xyxy
        out.add(is_right(one.question, run.answer), certainty(run), int(refinement is not None), box)
    return out


def by_box(vlm: va.Vlm, asked: Sequence[Asked], box_of: Callable[[Asked], Any]) -> Outcome:
    """Second answers on crops that the scene, or chance, says; None is the whole picture."""
    boxes = [box_of(one) for one in asked]
    items = [
        (one.scene.image if b is None else one.scene.image.crop(b), one.question.text)
        for one, b in zip(asked, boxes, strict=True)
    ]
    out = Outcome()
    for one, box, run in zip(asked, boxes, batched(vlm, items), strict=True):
        out.add(is_right(one.question, run.answer), certainty(run), 1, box)
    return out


def oracle(share: float) -> Callable[[Asked], Any]:
    """A window round the thing that is asked about; the whole picture where it is not there."""

    def box(one: Asked) -> Any:
        if not one.question.targets:
            return None
        middle = one.scene.objects[one.question.targets[0]].center_xy
        return around(middle, round(share * max(one.scene.image_wh)), one.scene.image_wh, (1, 1))

    return box


def anywhere(share: float, seed: int = 0) -> Callable[[Asked], Any]:
    """A window of the same size at a random place."""
    rng = np.random.default_rng(seed)

    def box(one: Asked) -> Any:
        width, height = one.scene.image_wh
        middle = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
        return around(middle, round(share * max(width, height)), (width, height), (1, 1))

    return box


def two_copies(vlm: va.Vlm, asked: Sequence[Asked]) -> Outcome:
    """Answers to the picture shown twice."""
    runs = batched(vlm, [([one.scene.image] * 2, one.question.text) for one in asked])
    out = Outcome()
    for one, run in zip(asked, runs, strict=True):
        out.add(is_right(one.question, run.answer), certainty(run), 1)
    return out


def by_search(asked: Sequence[Asked], rule: str, **changes: Any) -> Outcome:
    """The surest answers of a visual search."""
    out = Outcome()
    for one in asked:
        found = one.run.search(rule, **changes)
        out.add(is_right(one.question, found.answer), certainty(found.run), found.path.looks, found.box_xyxy)
    return out


def surer(first: Outcome, second: Outcome) -> Outcome:
    """Of two answers the surer; the second of equals."""
    out = Outcome()
    for n in range(len(first.right)):
        one = first if first.sure[n] > second.sure[n] else second
        out.add(one.right[n], one.sure[n], second.looks[n], second.boxes[n])
    return out


def gated(first: Outcome, second: Outcome, again: Sequence[bool]) -> Outcome:
    """The second outcome where a gate looks again, else the first."""
    out = Outcome()
    for n, wanted in enumerate(again):
        one = second if wanted else first
        out.add(one.right[n], one.sure[n], one.looks[n], one.boxes[n])
    return out


def recipe(name: str, **changes: Any) -> Recipe:
    """A named recipe with changes."""
    return RECIPES[name].but(**changes)
