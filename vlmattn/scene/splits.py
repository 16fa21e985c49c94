"""The splits of the scene data: how scenes are drawn and what is asked, as data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlmattn.core.errors import SpecError
from vlmattn.scene.generator import TRAINING, Scene, SceneRule, make_scene
from vlmattn.scene.phrasings import Phrasing
from vlmattn.scene.questions import FOILS, KINDS, Asking, Question, ask, ask_absent, ask_whether


@dataclass(frozen=True)
class SplitSpec:
    """One split.

    Attributes:
        name: what it is called. seed: kept apart from every other split. rule: how scenes are drawn.
        kinds: what is asked, one question of each kind per scene where the scene allows it.
        about: ``any``; one of :data:`~vlmattn.scene.questions.FOILS` asks, per scene, about one absent thing of that
            kind and about one that is there; ``tiny`` keeps questions about tiny objects.
        phrasing: ``train``, or ``held_out`` for phrasings that training never uses. purpose: what a score on it tells.
    """

    name: str
    seed: int
    rule: SceneRule
    kinds: tuple[str, ...] = KINDS
    about: str = "any"
    phrasing: Phrasing = "held_out"
    purpose: str = ""


_HELD_OUT = SceneRule(backgrounds="held_out")
_ALONE = SceneRule(backgrounds="held_out", anchor="alone")
_TINY = SceneRule(backgrounds="held_out", size_odds=(0.2, 0.2, 0.6))
_CROWDED = SceneRule(backgrounds="held_out", size_odds=(0.1, 0.6, 0.3), fewest_objects=7, most_objects=9)
_PRESENCE = ("exist",)
SPLITS: dict[str, SplitSpec] = {
    s.name: s
    for s in (
        SplitSpec("train", 1, TRAINING, phrasing="train", purpose="what the scene model was trained on"),
        SplitSpec("validation", 2, _HELD_OUT, phrasing="train", purpose="for choosing settings: unseen backgrounds"),
        SplitSpec("test", 3, _HELD_OUT, purpose="for reporting: unseen scenes, backgrounds and phrasings"),
        SplitSpec("adversarial", 4, _ALONE, _PRESENCE, "partner", purpose="does it claim what goes with what is there"),
        SplitSpec(
            "binding", 5, _HELD_OUT, _PRESENCE, "binding", purpose="does it join a colour and a shape of two things"
        ),
        SplitSpec(
            "tiny",
            6,
            _TINY,
            ("color", "shape", "where", "at", "exist"),
            "tiny",
            purpose="does it see what needs a closer look",
        ),
        SplitSpec("popular", 7, _HELD_OUT, _PRESENCE, "popular", purpose="does it claim what is common"),
        SplitSpec("random", 8, _HELD_OUT, _PRESENCE, "random", purpose="does it claim anything at all"),
        SplitSpec("crowded", 9, _CROWDED, purpose="seven to nine things, more than training ever showed"),
    )
}


def split_item(split: str, seed: int, index: int) -> tuple[Scene, tuple[Question, ...]]:
    """Scene ``index`` of a split with its questions; depends on nothing but the three arguments.

    Raises:
        SpecError: no such split, or a negative number.

    Example:
        >>> from vlmattn.scene import split_item
        >>> scene, questions = split_item("test", seed=0, index=0)
        >>> questions[0].kind
        'color'
    """
    spec = SPLITS.get(split)
    if spec is None:
        raise SpecError(f"split {split!r} does not exist; splits are {', '.join(SPLITS)}")
    if seed < 0 or index < 0:
        raise SpecError(f"seed and index must be 0 or more, got {seed} and {index}")
    for attempt in range(1000):
        rng = np.random.default_rng([spec.seed, seed, index, attempt])
        scene = make_scene(rng, spec.rule)
        questions = _questions(rng, spec, scene)
        if questions:
            return scene, questions
    raise SpecError(f"split {split!r} found no question for scene {index}")


def _questions(rng: np.random.Generator, spec: SplitSpec, scene: Scene) -> tuple[Question, ...]:
    if spec.about in FOILS:
        asking = Asking(rng, spec.phrasing)
        absent = ask_absent(asking, scene, spec.about)
        there = ask_whether(asking, scene, scene.objects[rng.integers(len(scene.objects))].name)
        return () if absent is None else (absent, there)
    found = (ask(rng, kind, scene, phrasing=spec.phrasing) for kind in spec.kinds)
    asked = [q for q in found if q is not None]
    if spec.about == "tiny":
        asked = [q for q in asked if len(q.targets) == 1 and scene.objects[q.targets[0]].size == "tiny"]
    return tuple(asked)
