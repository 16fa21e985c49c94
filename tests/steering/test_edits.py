"""Edits of scores, rows and head outputs against whole matrices."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.steering.plain_edit import DECODERS, IMAGE, Matrices, Plain, check_neutral, check_same
from vlmattn.steering import PAI, VAF


class PlainPAI(Plain):
    def scores(self, scores: torch.Tensor, at: Matrices) -> torch.Tensor:
        out = scores.clone()
        for row in range(at.prompt - 1, scores.shape[1]):
            for column in IMAGE:
                out[:, row, column] += 0.4 * scores[:, row, column].abs()
        return out


class PlainVAF(Plain):
    def scores(self, scores: torch.Tensor, at: Matrices) -> torch.Tensor:
        out = scores.clone()
        for row in range(IMAGE.stop, scores.shape[1]):
            out[:, row, : IMAGE.start] *= 0.7
            out[:, row, IMAGE.start : IMAGE.stop] *= 1.3
        return out


METHODS: dict[str, tuple[Any, Plain, list[int]]] = {
    "PAI": (PAI(alpha=0.4), PlainPAI(), [2, 3]),
    "PAI in chosen layers": (PAI(alpha=0.4, first_layer=0, layers=(0, -1)), PlainPAI(), [0, 3]),
    "VAF": (VAF(enhance=1.3, suppress=0.7, layers=(0, 1, 2)), PlainVAF(), [0, 1, 2]),
}
NEUTRAL: dict[str, Any] = {"PAI": PAI(alpha=0), "VAF": VAF(enhance=1, suppress=1)}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("method", METHODS)
def test_every_written_token_equals_the_plain_computation(method: str, decoder: str, monkeypatch: Any) -> None:
    steering, plain, layers = METHODS[method]
    check_same(decoder, steering, plain, layers, monkeypatch)


@pytest.mark.parametrize("decoder", DECODERS[:2])
@pytest.mark.parametrize("method", NEUTRAL)
def test_neutral_settings_change_nothing_bit_for_bit(method: str, decoder: str) -> None:
    check_neutral(decoder, NEUTRAL[method])
