"""Edits of scores, rows and head outputs against whole matrices."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.steering.plain_edit import DECODERS, IMAGE, Matrices, Plain, check_neutral, check_same
from vlmattn.steering import ACT, ADHH, EAH, HGAI, PAI, SPIN, VAF


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


class PlainHGAI(Plain):
    def scores(self, scores: torch.Tensor, at: Matrices) -> torch.Tensor:
        out = scores.clone()
        for row in range(at.prompt - 1, scores.shape[1]):
            for column in IMAGE:
                out[:, row, column] += 0.6 * sum(abs(float(s)) for s in scores[:, row, column]) / len(scores)
        return out


class PlainSPIN(Plain):
    def __init__(self, by: str) -> None:
        self.by = by

    def heads(self, outputs: torch.Tensor, at: Matrices) -> torch.Tensor:
        out = outputs.clone()
        for row in range(at.prompt - 1, outputs.shape[1]):
            seen = [j for j in IMAGE if at.seen[row, j]]
            source = at.scores if self.by == "scores" else at.rows
            given = [float(sum(source[h, row, j] for j in seen)) for h in range(len(outputs))]
            ranked = sorted(range(len(given)), key=lambda h: -given[h])
            for head in ranked[int(0.7 * len(given)) :] if seen else ():
                out[head, row] *= 0.1
        return out


class PlainADHH(Plain):
    def rows(self, rows: torch.Tensor, at: Matrices) -> torch.Tensor:
        out = rows.clone()
        for layer, head in ((1, 0), (1, 3), (3, 2)):
            for row in range(at.prompt - 1, rows.shape[1]):
                if at.layer == layer and float(rows[head, row, IMAGE.stop :].sum()) >= 0.3:
                    out[head, row, IMAGE.stop :] = 0
        return out


def received(rows: torch.Tensor, at: Matrices, head: int, column: int) -> float:
    """Mean over the prompt's rows that see a column."""
    seen = [q for q in range(at.prompt) if at.seen[q, column]]
    return sum(float(rows[head, q, column]) for q in seen) / max(len(seen), 1)


class PlainEAH(Plain):
    def rows(self, rows: torch.Tensor, at: Matrices) -> torch.Tensor:
        counts = [sum(received(rows, at, h, j) > 0.05 for j in IMAGE) for h in range(len(rows))]
        out = rows.clone()
        if max(counts):
            out[:, : at.prompt] = rows[counts.index(max(counts)), : at.prompt]
        return out


class PlainACT(Plain):
    def rows(self, rows: torch.Tensor, at: Matrices) -> torch.Tensor:
        out = rows.clone()
        for head in range(len(rows)):
            sinks = [j for j in range(1, at.prompt) if received(rows, at, head, j) > 1.5 / at.prompt]
            rest = [j for j in range(1, rows.shape[2]) if j not in sinks]
            for row in range(rows.shape[1]):
                left = float(rows[head, row, rest].sum())
                freed = 0.6 * float(rows[head, row, sinks].sum())
                if left > 0 and sinks:
                    out[head, row, sinks] *= 0.4
                    out[head, row, rest] *= 1 + freed / left
        return out


METHODS: dict[str, tuple[Any, Plain, list[int]]] = {
    "PAI": (PAI(alpha=0.4), PlainPAI(), [2, 3]),
    "PAI in chosen layers": (PAI(alpha=0.4, first_layer=0, layers=(0, -1)), PlainPAI(), [0, 3]),
    "VAF": (VAF(enhance=1.3, suppress=0.7, layers=(0, 1, 2)), PlainVAF(), [0, 1, 2]),
    "HGAI": (HGAI(alpha=0.6, layers=(1, 2)), PlainHGAI(), [1, 2]),
    "SPIN by scores": (SPIN(keep=0.7, factor=0.1), PlainSPIN("scores"), [0, 1, 2, 3]),
    "SPIN by mass": (SPIN(keep=0.7, factor=0.1, by="mass", layers=(0, 1)), PlainSPIN("mass"), [0, 1]),
    "AD-HH": (ADHH(heads=((1, 0), (1, 3), (3, 2)), threshold=0.3), PlainADHH(), [1, 3]),
    "EAH": (EAH(tau=0.05), PlainEAH(), [1]),
    "ACT": (ACT(alpha=1.5), PlainACT(), [2]),
}
NEUTRAL: dict[str, Any] = {
    "PAI": PAI(alpha=0),
    "VAF": VAF(enhance=1, suppress=1),
    "HGAI": HGAI(alpha=0),
    "SPIN": SPIN(factor=1),
    "SPIN keeps all": SPIN(keep=1, factor=0.5),
    "AD-HH": ADHH(heads=((1, 0),), threshold=1.1),
    "EAH": EAH(tau=1),
    "EAH without sinks": EAH(tau=0.99),
    "ACT": ACT(beta=1),
    "ACT without sinks": ACT(alpha=30),
}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("method", METHODS)
def test_every_written_token_equals_the_plain_computation(method: str, decoder: str, monkeypatch: Any) -> None:
    steering, plain, layers = METHODS[method]
    check_same(decoder, steering, plain, layers, monkeypatch)


@pytest.mark.parametrize("decoder", DECODERS[:2])
@pytest.mark.parametrize("method", NEUTRAL)
def test_neutral_settings_change_nothing_bit_for_bit(method: str, decoder: str) -> None:
    check_neutral(decoder, NEUTRAL[method])
