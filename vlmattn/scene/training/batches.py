"""Batches of a training step, drawn anew for every step from the seed, so that a run can go on anywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vlmattn.scene.generator import Scene, zone
from vlmattn.scene.questions import KINDS, Question, ask
from vlmattn.scene.training.leaning import ask_leaning
from vlmattn.scene.training.objectives import WORDS
from vlmattn.scene.training.packing import Packer
from vlmattn.scene.training.recipes import PriorRecipe, QuestionRecipe, Stage
from vlmattn.scene.training.samples import Samples

Draw = Callable[[np.random.Generator, int], tuple[object, ...]]
"""From a generator and the step, the arguments of an objective's ``forward``."""


def vision_batches(samples: Samples, stage: Stage) -> Draw:
    """Pixels and patch labels."""

    def draw(rng: np.random.Generator, _: int) -> tuple[object, ...]:
        return _seen(samples, rng.integers(0, len(samples.scenes), stage.pictures))

    return draw


@dataclass(frozen=True)
class QuestionBatches:
    """Packed questions about samples.

    Attributes:
        samples: the material. packer: makes sequences. recipe: sizes and mix.
    """

    samples: Samples
    packer: Packer
    recipe: QuestionRecipe

    def __call__(self, rng: np.random.Generator, step: int) -> tuple[object, ...]:
        """Pixels, patch labels and packed questions; scenes of at most three objects at first."""
        easy = step < self.recipe.easy * self.recipe.questions.steps
        pool = self.samples.easy if easy else np.arange(len(self.samples.scenes))
        index = pool[rng.integers(0, len(pool), self.recipe.questions.pictures)]
        return *_seen(self.samples, index), self.packer.pack([self._asked(rng, int(i)) for i in index])

    def _asked(self, rng: np.random.Generator, index: int) -> list[Question]:
        scene, claimed = self.samples.scenes[index], self.samples.claimed[index]
        asked: list[Question] = []
        while len(asked) < self.recipe.per_picture:
            kind = KINDS[rng.choice(len(KINDS), p=self.recipe.mix)]
            leans = isinstance(self.recipe, PriorRecipe)
            question = ask_leaning(rng, kind, scene, claimed) if leans else ask(rng, kind, scene, teaching=True)
            if question is not None:
                asked.append(question)
        return asked


def _seen(samples: Samples, index: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
    labels = np.stack([patch_labels(samples.scenes[int(i)], samples.on_patch[i]) for i in index])
    return torch.from_numpy(np.ascontiguousarray(samples.pixels[index])), torch.from_numpy(labels)


def patch_labels(scene: Scene, on_patch: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(P, 5) class of what lies on each patch for each kind of ``WORDS``; 0: nothing."""
    classes = np.zeros((1 + len(scene.objects), len(WORDS)), dtype=np.int64)
    for number, item in enumerate(scene.objects, 1):
        row, column = zone(item, scene.image_wh).split()
        said = (item.color, item.shape, item.size, row, column)
        classes[number] = [1 + words.index(word) for words, word in zip(WORDS.values(), said, strict=True)]
    return classes[on_patch]
