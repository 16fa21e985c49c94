"""All numbers of a training, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from vlmattn.scene.questions import KINDS


@dataclass(frozen=True)
class Stage:
    """One stage of a training.

    Attributes:
        name: of its checkpoint folder. steps: how many. pictures: per step and process. rate: highest learning rate.
        warm: steps until it is reached. flat: share of the stage until it falls, along a cosine, to 2 %.
    """

    name: str
    steps: int
    pictures: int
    rate: float
    warm: int
    flat: float

    def learning_rate(self, step: int) -> float:
        """At a step, from 0."""
        done = step / self.steps
        falling = 0.5 * (1 + math.cos(math.pi * (done - self.flat) / (1 - self.flat)))
        return self.rate * min(1.0, (step + 1) / self.warm) * (1.0 if done < self.flat else max(0.02, falling))


@dataclass(frozen=True)
class QuestionRecipe:
    """What every training with packed questions has; the defaults are those of ``scene``.

    Attributes:
        scenes: drawn once, before. questions: the stage. per_picture: questions in one packed sequence.
        mix: how often each of :data:`~vlmattn.scene.questions.KINDS` is asked. caption_weight, end_weight: of one
            caption word and of the end of an answer, where a word of another answer has 1. patch_weight, align_weight:
            of the side losses. easy: share of the stage with scenes of at most three objects. compiled: whether tower
            and language model are compiled first, which needs a C++ compiler and takes a third off a step.

    Raises:
        ValueError: a mix that does not add up.
    """

    scenes: int = 40_000
    questions: Stage = Stage("questions", steps=7_000, pictures=8, rate=1.4e-3, warm=150, flat=0.35)
    per_picture: int = 10
    mix: tuple[float, ...] = (0.09, 0.14, 0.14, 0.03, 0.11, 0.13, 0.12, 0.05, 0.08, 0.11)
    caption_weight: float = 0.25
    end_weight: float = 0.1
    patch_weight: float = 0.2
    align_weight: float = 0.1
    easy: float = 0.06
    compiled: bool = False

    def __post_init__(self) -> None:
        _check_mix("mix", self.mix)


def _check_mix(name: str, mix: tuple[float, ...]) -> None:
    if len(mix) != len(KINDS) or abs(sum(mix) - 1) > 1e-6:
        raise ValueError(f"{name} needs {len(KINDS)} shares that add up to 1, got {mix}")


@dataclass(frozen=True)
class SceneRecipe(QuestionRecipe):
    """How ``scene`` is made.

    Attributes:
        vision: the stage before the questions. again: the one after them, with a fresh optimiser; its sequences ask
            most about what is learned last. again_mix: how often, as ``mix``.

    Raises:
        ValueError: a mix that does not add up.
    """

    vision: Stage = Stage("vision", steps=2_000, pictures=32, rate=1.5e-3, warm=100, flat=0.4)
    again: Stage = Stage("again", steps=3_600, pictures=8, rate=1e-3, warm=150, flat=0.3)
    again_mix: tuple[float, ...] = (0.06, 0.12, 0.09, 0.02, 0.08, 0.22, 0.09, 0.05, 0.18, 0.09)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_mix("again_mix", self.again_mix)

    def once_more(self) -> QuestionRecipe:
        """The recipe of the stage ``again``."""
        return replace(self, questions=self.again, mix=self.again_mix, easy=0.0)


@dataclass(frozen=True)
class PriorRecipe(QuestionRecipe):
    """How ``scene-prior`` is made from ``scene``: without the side losses, on scenes that teach to lean."""

    scenes: int = 16_000
    questions: Stage = Stage("lean", steps=800, pictures=8, rate=5e-4, warm=100, flat=0.4)
    mix: tuple[float, ...] = (0.10, 0.13, 0.09, 0.03, 0.10, 0.09, 0.26, 0.04, 0.06, 0.10)
    caption_weight: float = 0.3
    patch_weight: float = 0.0
    align_weight: float = 0.0
    easy: float = 0.0


@dataclass(frozen=True)
class ClipRecipe:
    """How ``scene-clip`` is made.

    Attributes:
        stage: its numbers; half of the pictures are scenes, half regions.
    """

    stage: Stage = Stage("clip", steps=4_000, pictures=32, rate=8e-4, warm=200, flat=0.4)
