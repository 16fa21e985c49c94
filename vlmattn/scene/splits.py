"""The splits of the scene data: how scenes are drawn and what is asked, as data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlmattn.core.errors import SpecError
from vlmattn.scene.generator import PARTNERS, Scene, SceneRule, make_scene
from vlmattn.scene.questions import KINDS, Question, ask, ask_about


@dataclass(frozen=True)
class SplitSpec:
    """One split.

    Attributes:
        name: what it is called. seed: kept apart from every other split. rule: how scenes are drawn.
        kinds: what is asked, one question of each kind per scene where the scene allows it.
        about: ``any``; ``partner`` asks for the absent partner beside its anchor; ``binding`` keeps presence questions
            whose answer is *no* although colour and shape are both there; ``tiny`` keeps questions about tiny objects.
        purpose: what a score on it tells.
    """

    name: str
    seed: int
    rule: SceneRule
    kinds: tuple[str, ...] = KINDS
    about: str = "any"
    purpose: str = ""


_HELD_OUT = SceneRule(backgrounds="held_out")
SPLITS: dict[str, SplitSpec] = {
    s.name: s
    for s in (
        SplitSpec("train", 1, SceneRule(), purpose="what the scene model was trained on"),
        SplitSpec("validation", 2, _HELD_OUT, purpose="for choosing settings"),
        SplitSpec("test", 3, _HELD_OUT, purpose="for reporting: unseen scenes on unseen backgrounds"),
        SplitSpec(
            "adversarial",
            4,
            SceneRule(backgrounds="held_out", anchor="alone"),
            kinds=("exist",),
            about="partner",
            purpose="does it claim what usually goes with what is there",
        ),
        SplitSpec("binding", 5, _HELD_OUT, ("exist",), "binding", "does it join a colour and a shape of two objects"),
        SplitSpec(
            "tiny",
            6,
            SceneRule(backgrounds="held_out", size_odds=(0.2, 0.2, 0.6)),
            kinds=("color", "shape", "exist", "where"),
            about="tiny",
            purpose="does it see what needs a closer look",
        ),
    )
}


def split_item(split: str, seed: int, index: int) -> tuple[Scene, tuple[Question, ...]]:
    """Scene ``index`` of a split with its questions; depends on nothing but the three arguments.

    Raises:
        SpecError: no such split.
    """
    spec = SPLITS.get(split)
    if spec is None:
        raise SpecError(f"split {split!r} does not exist; splits are {', '.join(SPLITS)}")
    for attempt in range(1000):
        rng = np.random.default_rng([spec.seed, seed, index, attempt])
        scene = make_scene(rng, spec.rule)
        questions = _questions(rng, spec, scene)
        if questions:
            return scene, questions
    raise SpecError(f"split {split!r} found no question for scene {index}")


def _questions(rng: np.random.Generator, spec: SplitSpec, scene: Scene) -> tuple[Question, ...]:
    if spec.about == "partner":
        names = {o.name for o in scene.objects}
        partners = [" ".join(p) for a, p in PARTNERS.items() if " ".join(a) in names and " ".join(p) not in names]
        return tuple(ask_about(scene, partner) for partner in partners)
    asked = [q for kind in spec.kinds if (q := ask(rng, kind, scene)) is not None]
    if spec.about == "binding":
        asked = [q for q in asked if q.foil == "binding"]
    if spec.about == "tiny":
        asked = [q for q in asked if len(q.targets) == 1 and scene.objects[q.targets[0]].size == "tiny"]
    return tuple(asked)
