"""How much a model leans on what usually goes together: does it claim an anchor's absent partner?

Scenes of the split ``adversarial`` have an anchor and never its partner; a model that looks says *no* to the partner
and leaves it out of its caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlmattn.core.errors import SpecError
from vlmattn.scene.captions import mentioned
from vlmattn.scene.evaluation import Answerer, evaluate
from vlmattn.scene.generator import Scene
from vlmattn.scene.partners import CONTROLS, LEANED, Name
from vlmattn.scene.phrasings import with_article
from vlmattn.scene.questions import Asking
from vlmattn.scene.splits import split_item


@dataclass(frozen=True)
class LeaningScore:
    """Shares from 0 to 1, over ``scenes`` scenes each.

    Attributes:
        yes_leaned, yes_controls: *yes* to the absent partner of a pair of ``LEANED``, of ``CONTROLS``. yes_random:
            *yes* to an absent thing at random. said_leaned, said_controls: captions that name the absent partner.
        plain: accuracy on colour, shape and size questions of the split ``test``.
    """

    scenes: int
    yes_leaned: float
    yes_controls: float
    yes_random: float
    said_leaned: float
    said_controls: float
    plain: dict[str, float]


def measure_leaning(answer: Answerer, *, scenes: int = 200, seed: int = 0, batch: int = 32) -> LeaningScore:
    """Ask for absent partners, of both groups of pairs, and for captions.

    Args:
        answer: the model. scenes: of each group. seed: of the scenes. batch: questions at once.

    Raises:
        SpecError: no scene at all.
    """
    if scenes < 1:
        raise SpecError(f"scenes must be at least 1, got {scenes}")
    groups = {name: _scenes(pairs, scenes, seed) for name, pairs in (("leaned", LEANED), ("controls", CONTROLS))}
    yes = {name: _yes(answer, found, batch) for name, found in groups.items()}
    said = {name: _said(answer, found, batch) for name, found in groups.items()}
    (random,) = evaluate(answer, split="random", scenes=scenes, seed=seed, batch=batch)
    plain = evaluate(answer, scenes=scenes, seed=seed, kinds=("color", "shape", "size"), batch=batch)
    return LeaningScore(
        scenes=scenes,
        yes_leaned=yes["leaned"],
        yes_controls=yes["controls"],
        yes_random=1 - random.by_answer["no"],
        said_leaned=said["leaned"],
        said_controls=said["controls"],
        plain={score.kind: score.accuracy for score in plain},
    )


Asked = list[tuple[Scene, str]]


def _scenes(pairs: dict[Name, Name], count: int, seed: int) -> Asked:
    # Scenes with an anchor of these pairs, and the name of its absent partner.
    found: Asked = []
    index = 0
    while len(found) < count:
        scene, _ = split_item("adversarial", seed, index)
        found += [(scene, " ".join(p)) for a, p in pairs.items() if _fits(scene, a, p)]
        index += 1
    return found[:count]


def _fits(scene: Scene, anchor: Name, partner: Name) -> bool:
    return " ".join(anchor) in scene.names and " ".join(partner) not in scene.names


def _yes(answer: Answerer, asked: Asked, batch: int) -> float:
    asking = Asking(np.random.default_rng(0), "held_out")
    texts = [asking.text("exist", o=with_article(name)) for _, name in asked]
    return float(np.mean([t.casefold().startswith("yes") for t in _told(answer, asked, texts, batch)]))


def _said(answer: Answerer, asked: Asked, batch: int) -> float:
    asking = Asking(np.random.default_rng(0), "held_out")
    told = _told(answer, asked, [asking.text("caption") for _ in asked], batch)
    return float(np.mean([name in mentioned(text) for (_, name), text in zip(asked, told, strict=True)]))


def _told(answer: Answerer, asked: Asked, texts: Sequence[str], batch: int) -> list[str]:
    told: list[str] = []
    for first in range(0, len(asked), batch):
        images: list[Any] = [scene.image for scene, _ in asked[first : first + batch]]
        told += answer(images, list(texts[first : first + batch]))
    return told
