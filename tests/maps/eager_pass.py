"""The plain way: whole eager attention of every layer, its gradient by autograd, and maps by matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class EagerPass:
    """``attention_lhqk`` and its gradient, per layer (H, N, N) float64; None where no score was asked for."""

    attention_lhqk: list[np.ndarray]
    slope_lhqk: list[np.ndarray] | None

    def weighted(self, layer: int, heads: Sequence[int] | None = None) -> np.ndarray:
        assert self.slope_lhqk is not None
        found = np.maximum(self.attention_lhqk[layer] * self.slope_lhqk[layer], 0)
        return np.asarray((found if heads is None else found[list(heads)]).mean(0))

    def relevancy(self, heads: Sequence[int] | None = None) -> np.ndarray:
        """(N, N) by the update of the whole matrix, from the lowest layer up; the identity is taken off at the end."""
        whole = np.eye(self.attention_lhqk[0].shape[-1])
        for layer in range(len(self.attention_lhqk)):
            whole = whole + self.weighted(layer, heads) @ whole
        return np.asarray(whole - np.eye(len(whole)))

    def mixed(self, layer: int, heads: Sequence[int] | None = None) -> np.ndarray:
        """(N, N) mean over heads, every row over its sum."""
        found = self.attention_lhqk[layer]
        mean = (found if heads is None else found[list(heads)]).mean(0)
        return np.asarray(mean / mean.sum(-1, keepdims=True))

    def rollout(
        self, heads: Sequence[int] | None = None, start: int = 0, residual: float = 0.5, *, without_first: bool = False
    ) -> np.ndarray:
        """(N, N) product of all layers, the highest on the left."""
        whole = np.eye(self.attention_lhqk[0].shape[-1])
        for layer in range(start, len(self.attention_lhqk)):
            mixed = self.mixed(layer, heads).copy()
            if without_first:
                mixed[1:, 0] = 0
                mixed /= mixed.sum(-1, keepdims=True)
            whole = (residual * np.eye(len(whole)) + (1 - residual) * mixed) @ whole
        return whole


def eager_pass(
    model: Any, inputs: dict[str, Any], rows: Sequence[int] = (), ids: Sequence[int] | None = None, of: str = "logit"
) -> EagerPass:
    """Run under eager attention (the model's kernel is put back) with every matrix in the graph.

    The score is the sum over ``rows`` of the logit (or log-probability) of ``ids``; no rows: no score.
    """
    before = model.config.get_text_config(decoder=True)._attn_implementation
    if before != "eager":
        model.set_attn_implementation("eager")
    try:
        with torch.enable_grad():
            out = model(**inputs, use_cache=False, output_attentions=True)
            kept = [a for a in out.attentions if a is not None]
            slopes = None if not rows else torch.autograd.grad(_score(out.logits[0], rows, ids, of), kept)
    finally:
        if before != "eager":
            model.set_attn_implementation(before)
    return EagerPass([_plain(a) for a in kept], None if slopes is None else [_plain(s) for s in slopes])


def _score(logits: torch.Tensor, rows: Sequence[int], ids: Sequence[int] | None, of: str) -> torch.Tensor:
    lines = logits[list(rows)].double()
    told = lines if of == "logit" else lines - torch.logsumexp(lines, -1, keepdim=True)
    chosen = lines.argmax(-1).tolist() if ids is None else list(ids)
    return torch.stack([line[token] for line, token in zip(told, chosen, strict=True)]).sum()


def _plain(tensor: torch.Tensor) -> np.ndarray:
    return np.asarray(tensor.detach()[0].double().numpy())


def close(found: np.ndarray, wanted: np.ndarray, share: float = 1e-5) -> None:
    """Equal to ``share`` of the largest value, which is above 0."""
    assert found.shape == wanted.shape
    assert np.abs(wanted).max() > 0
    np.testing.assert_allclose(found, wanted, rtol=0, atol=share * np.abs(wanted).max())
