"""What training minimises. Nothing here touches the language model's attention."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vlmattn.scene.generator import COLUMNS, ROWS
from vlmattn.scene.objects import COLORS, SHAPES, SIZES
from vlmattn.scene.training.packing import Packed, Packer
from vlmattn.scene.training.recipes import QuestionRecipe

WORDS = {"color": tuple(COLORS), "shape": SHAPES, "size": tuple(SIZES), "row": ROWS, "column": COLUMNS}
"""What patches are told to name."""

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
_BACKGROUND_WEIGHT = 0.15


class PatchHeads(nn.ModuleDict):
    """What lies on a patch: one linear head for each of :data:`WORDS`, class 0 for background."""

    def __init__(self, width: int) -> None:
        super().__init__({kind: nn.Linear(width, 1 + len(words)) for kind, words in WORDS.items()})

    def loss(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of (B, P, D) features and (B, P, 5) labels, background weighted down; summed over heads."""
        total = features.new_zeros(())
        for index, (kind, head) in enumerate(self.items()):
            weight = features.new_tensor([_BACKGROUND_WEIGHT] + [1.0] * len(WORDS[kind]))
            total = total + F.cross_entropy(head(features).flatten(0, 1), labels[..., index].flatten(), weight=weight)
        return total


class VisionObjective(nn.Module):
    """First stage: the vision tower learns to say what lies on every patch.

    Args:
        model: the LLaVA. heads: dropped when training ends.
    """

    def __init__(self, model: Any, heads: PatchHeads) -> None:
        super().__init__()
        self.tower, self.heads = model.model.vision_tower, heads

    def forward(self, pixels: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """``pixels``: (B, H, W, 3) uint8. ``labels``: (B, P, 5), 0 for background."""
        return {"patch": self.heads.loss(tower_features(self.tower, pixels), labels)}


class QuestionObjective(nn.Module):
    """Second stage: everything learns to answer.

    With small weights, patches still say what lies on them, and projected image tokens, read through the tied language
    head, name it too.

    Args:
        model: the LLaVA. heads: dropped when training ends. packer: gives the words' ids. recipe: weights.
    """

    def __init__(self, model: Any, heads: PatchHeads | None, packer: Packer, recipe: QuestionRecipe) -> None:
        super().__init__()
        self.model, self.heads, self.recipe = model, heads, recipe
        self.first_patch = packer.first_patch
        # As functions: a compiled module would be a second one in the checkpoint.
        parts = model.model.vision_tower.forward, model.model.language_model.forward
        self._tower, self._decoder = map(torch.compile, parts) if recipe.compiled else parts
        self.words = [torch.tensor([packer.ids(f" {w}")[0] for w in words]) for words in WORDS.values()]

    def forward(self, pixels: torch.Tensor, labels: torch.Tensor, packed: Packed) -> dict[str, torch.Tensor]:
        """``pixels``: (B, H, W, 3) uint8. ``labels``: (B, P, 5), 0 for background. ``packed``: the questions."""
        features = tower_features(self._tower, pixels)
        projected = self.model.model.multi_modal_projector(features)
        losses = {"answer": self._answer(packed, projected)}
        if self.heads is not None and self.recipe.patch_weight:
            losses["patch"] = self.recipe.patch_weight * self.heads.loss(features, labels)
        if self.recipe.align_weight:
            losses["align"] = self.recipe.align_weight * self._align(projected, labels)
        return losses

    def _answer(self, packed: Packed, projected: torch.Tensor) -> torch.Tensor:
        first, patches = self.first_patch, projected.shape[1]
        embedded = self.model.get_input_embeddings()(packed.ids)
        embedded = torch.cat([embedded[:, :first], projected, embedded[:, first + patches :]], dim=1)
        hidden = self._decoder(
            inputs_embeds=embedded, attention_mask=packed.mask, position_ids=packed.positions, use_cache=False
        ).last_hidden_state
        counts = packed.weights[:, 1:] > 0
        logits, weights = self.model.lm_head(hidden[:, :-1][counts]), packed.weights[:, 1:][counts]
        losses = F.cross_entropy(logits, packed.ids[:, 1:][counts], reduction="none")
        return (losses * weights).sum() / weights.sum()

    def _align(self, projected: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        there = labels[..., 0] > 0
        logp = self.model.lm_head(projected[there]).log_softmax(-1)
        total = logp.new_zeros(())
        for index, words in enumerate(self.words):
            said = words.to(labels.device)[labels[there][:, index] - 1]
            total = total - logp.gather(1, said[:, None]).mean() / len(self.words)
        return total


def tower_features(tower: Any, pixels: torch.Tensor) -> torch.Tensor:
    """(B, P, D) last hidden states of the patches for (B, H, W, 3) uint8 pixels."""
    scaled = pixels.permute(0, 3, 1, 2).float() / 255
    mean, std = scaled.new_tensor(MEAN).view(1, 3, 1, 1), scaled.new_tensor(STD).view(1, 3, 1, 1)
    return torch.as_tensor(tower((scaled - mean) / std).last_hidden_state)[:, 1:]
