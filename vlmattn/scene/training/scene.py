"""Trains ``scene`` from nothing, and ``scene-prior`` from ``scene``.

``scene``, three stages: the vision tower learns to say, for every patch, colour, shape, size and place of the object on
it (linear heads, dropped afterwards); then everything learns to answer packed questions, and once more, asked mostly
about what is learned last. ``scene-prior``: the finished model learns on, from scenes that teach it to lean on what
usually goes together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlmattn.scene.answering import answers_of
from vlmattn.scene.build import make_model, make_processor, make_tokenizer
from vlmattn.scene.evaluation import evaluate
from vlmattn.scene.questions import KINDS
from vlmattn.scene.training.batches import QuestionBatches, vision_batches
from vlmattn.scene.training.loop import Loop
from vlmattn.scene.training.objectives import PatchHeads, QuestionObjective, VisionObjective
from vlmattn.scene.training.packing import Packer
from vlmattn.scene.training.recipes import PriorRecipe, QuestionRecipe, SceneRecipe
from vlmattn.scene.training.samples import load_samples


def train_scene(folder: Path, recipe: SceneRecipe, seed: int, *, cpu: bool = False) -> None:
    """Its stages on this process; each goes on from its checkpoint in ``folder``.

    Args:
        folder: samples, checkpoints and log. recipe: all numbers. seed: of weights and batches. cpu: keep to it.
    """
    torch.manual_seed(seed)
    packer = _packer(recipe)
    model = make_model(packer.tokenizer)
    _start_weights(model)
    heads = PatchHeads(model.config.vision_config.hidden_size)
    samples = load_samples(folder / "samples")
    loop = Loop(folder, seed, cpu=cpu)
    loop.run(recipe.vision, 0, VisionObjective(model, heads), vision_batches(samples, recipe.vision))
    objective = QuestionObjective(model, heads, packer, recipe)
    for number, part in ((1, recipe), (3, recipe.once_more())):
        batches = QuestionBatches(samples, packer, part)
        loop.run(part.questions, number, objective, batches, score=lambda: _score(model, packer.tokenizer))


def train_prior(folder: Path, recipe: PriorRecipe, seed: int, base: Path, *, cpu: bool = False) -> None:
    """The leaning stage on this process, from the model in the folder ``base``."""
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(seed)
    packer = _packer(recipe)
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    _freeze_unused(model)
    objective = QuestionObjective(model, None, packer, recipe)
    batches = QuestionBatches(load_samples(folder / "samples"), packer, recipe)
    Loop(folder, seed, cpu=cpu).run(
        recipe.questions, 2, objective, batches, score=lambda: _score_prior(model, packer.tokenizer), score_every=400
    )


def _packer(recipe: QuestionRecipe) -> Packer:
    return Packer(make_tokenizer(), caption_weight=recipe.caption_weight, end_weight=recipe.end_weight)


def _start_weights(model: Any) -> None:
    for name, weight in model.named_parameters():
        if weight.ndim > 1 and "vision" in name:
            nn.init.trunc_normal_(weight, std=0.02 if "embed" in name else 0.05)
    _freeze_unused(model)


def _freeze_unused(model: Any) -> None:
    # Only the pooled output uses the last norm, and nothing here uses that.
    for name, weight in model.named_parameters():
        if "post_layernorm" in name:
            weight.requires_grad_(False)


def _score(model: Any, tokenizer: Any, scenes: int = 100) -> dict[str, float]:
    answer = answers_of(model.eval(), make_processor(tokenizer))
    kinds = tuple(k for k in KINDS if k != "caption")
    scores = evaluate(answer, split="validation", scenes=scenes, kinds=kinds, batch=32)
    return {s.kind: round(s.accuracy, 3) for s in scores}


def _score_prior(model: Any, tokenizer: Any) -> dict[str, float]:
    answer = answers_of(model.eval(), make_processor(tokenizer))
    found = {}
    for split in ("adversarial", "random"):
        (score,) = evaluate(answer, split=split, seed=1, scenes=60, batch=32)
        found[f"yes to absent, {split}"] = round(1 - score.by_answer.get("no", 1.0), 3)
    return found | _score(model, tokenizer, 40)
