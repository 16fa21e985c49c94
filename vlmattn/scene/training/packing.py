"""Many questions about one picture in one sequence: they share the picture's tokens and do not see each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmattn.scene.build import GRID_SIDE
from vlmattn.scene.questions import Question

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Packed:
    """A batch of B packed sequences of T tokens.

    Attributes:
        ids: (B, T). weights: (B, T) float, weight of predicting each token, 0 for prompts. positions: (B, T), starting
            anew after the shared prefix. mask: (B, 1, T, T) bool, True where a token may look.
    """

    ids: torch.Tensor
    weights: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor

    def to(self, device: torch.device) -> Packed:
        """The same on a device."""
        return Packed(*(t.to(device) for t in (self.ids, self.weights, self.positions, self.mask)))


class Packer:
    """Turns questions into packed batches with the token ids that the processor would give.

    Args:
        tokenizer: of the scene model. caption_weight, end_weight: of one caption word and of the end of an answer.
    """

    def __init__(self, tokenizer: Any, *, caption_weight: float = 0.2, end_weight: float = 0.1) -> None:
        self.tokenizer = tokenizer
        self.caption_weight, self.end_weight = caption_weight, end_weight
        self.image_token = int(tokenizer.convert_tokens_to_ids("<image>"))
        self.prefix = [*self._ids("<s>USER: "), *[self.image_token] * GRID_SIDE**2, *self._ids("\n")]
        self.first_patch = self.prefix.index(self.image_token)
        self._known: dict[str, list[int]] = {}

    def prompt(self, text: str) -> list[int]:
        """Ids of a question after the prefix, up to the model's turn."""
        return self.ids(f"{text} ASSISTANT:")

    def answer(self, text: str) -> list[int]:
        """Ids of an answer with its end."""
        return [*self.ids(f" {text}"), int(self.tokenizer.eos_token_id)]

    def ids(self, text: str) -> list[int]:
        """Ids of a piece of text, remembered."""
        if text not in self._known:
            self._known[text] = self._ids(text)
        return self._known[text]

    def pack(self, per_scene: list[list[Question]]) -> Packed:
        """One sequence per scene."""
        import torch

        lines = [self._line(questions) for questions in per_scene]
        longest = max(len(ids) for ids, _, _, _ in lines)

        def padded(part: int, fill: float) -> torch.Tensor:
            return torch.tensor([[*line[part], *[fill] * (longest - len(line[part]))] for line in lines])

        turns = padded(3, -1)
        shared = turns[:, None, :] == 0
        causal = torch.ones(longest, longest, dtype=torch.bool).tril()[None]
        mask = causal & (shared | (turns[:, None, :] == turns[:, :, None]))
        mask |= torch.eye(longest, dtype=torch.bool)[None]
        pad = int(self.tokenizer.pad_token_id)
        return Packed(padded(0, pad), padded(1, 0.0), padded(2, 0), mask[:, None])

    def _line(self, questions: list[Question]) -> tuple[list[int], list[float], list[int], list[int]]:
        ids, turns = list(self.prefix), [0] * len(self.prefix)
        weights, positions = [0.0] * len(ids), list(range(len(ids)))
        for turn, question in enumerate(questions, 1):
            asked, said = self.prompt(question.text), self.answer(question.answer)
            each = self.caption_weight if question.kind == "caption" else 1.0
            ids += asked + said
            weights += [0.0] * len(asked) + [each] * (len(said) - 1) + [self.end_weight]
            positions += range(len(self.prefix), len(self.prefix) + len(asked) + len(said))
            turns += [turn] * (len(asked) + len(said))
        return ids, weights, positions, turns

    def _ids(self, text: str) -> list[int]:
        return list(np.asarray(self.tokenizer(text, add_special_tokens=False)["input_ids"]).tolist())
