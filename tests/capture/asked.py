"""What tests of rows ask: noise as pictures, tiny models loaded once, and a steering whose effect is known."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image

import vlmattn as va
from tests.tiny import TINY
from vlmattn.core.layout import TokenKind

QUESTIONS = ["What is left of the red spoon?", "Is it red?"]


def picture(seed: int = 0, width: int = 120) -> Image.Image:
    """Noise of ``width`` x 90 pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (90, width, 3), dtype=np.uint8))


@cache
def loaded(kind: str) -> va.Vlm:
    """A tiny model of ``tests.tiny``, the same one for all tests of a process."""
    return va.load(*TINY[kind]())


class Halved(va.Steering):
    """Halves what the rows of one layer give to the picture."""

    def __init__(self, layer: int) -> None:
        self.layers = (layer,)

    def edit_rows(self, probs_bhrk: torch.Tensor, where: Any) -> torch.Tensor:
        """See the class."""
        return torch.where(where.columns(TokenKind.IMAGE), probs_bhrk * 0.5, probs_bhrk)
