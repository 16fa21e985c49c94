"""DeCo: lets the middle layer that is surest of one of the likely tokens have its say.

Wang et al., "MLLM can see? Dynamic Correction Decoding for Hallucination Mitigation", ICLR 2025, arXiv 2410.11779.
With C the candidates (the nucleus of the last distribution, cut to the k likeliest), l_i the logits of an early exit:

    A  = argmax_i  max_{c in C} softmax(l_i)[c]
    l' = l + alpha (max_{c in C} softmax(l_A)[c]) l_A,   over C alone
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from vlmattn.capture.choices import is_whole
from vlmattn.core.errors import SpecError
from vlmattn.steering.contrast import kept
from vlmattn.steering.early import EarlyExits, counted_layers


@dataclass(frozen=True, eq=False, kw_only=True)
class DeCo(EarlyExits):
    """Dynamic correction decoding.

    Attributes:
        alpha: strength; 0 corrects nothing. top_p: nucleus of the candidates; 1 for all tokens. top_k: most
            candidates; None for no limit. first, last: exits to choose from, as numbers of layers passed, both ends
            included; None for 5/8 and 7/8 of the depth: the paper's 20 and 28 of 32.

    ``alpha=0, top_p=1, top_k=None`` changes nothing, bit for bit. No second run: final norm and unembedding once more
    per exit.

    Raises:
        SpecError: values out of range; on asking, layers that do not exist. UnsupportedModel: earlier layers cannot be
            read.

    Example:
        >>> DeCo().exits(32)
        (20, 21, 22, 23, 24, 25, 26, 27, 28)
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "readme": {"alpha": 0.6, "first": 20, "last": 28, "depth": 32},
    }

    alpha: float = 0.6
    top_p: float = 0.9
    top_k: int | None = 20
    first: int | None = None
    last: int | None = None

    def __post_init__(self) -> None:
        self._check_number("alpha", 0)
        self._check_number("top_p", 0, 1)
        for name in ("top_k", "first", "last"):
            value = getattr(self, name)
            if value is not None and not (is_whole(value) and value >= 1):
                raise SpecError(f"{name} of DeCo must be a whole number, at least 1, or None; got {value!r}")

    @property
    def neutral(self) -> bool:
        """See :class:`Method`."""
        return self.alpha == 0 and self.top_p == 1 and self.top_k is None

    def exits(self, depth: int) -> tuple[int, ...]:
        """See :class:`EarlyExits`."""
        first = self.first if self.first is not None else max(1, depth * 5 // 8)
        last = self.last if self.last is not None else max(first, depth * 7 // 8)
        return counted_layers("DeCo", range(first, last + 1), depth)

    def rule(self, scores: torch.Tensor, early: torch.Tensor) -> torch.Tensor:
        """See the module."""
        log_p = torch.log_softmax(scores.float(), dim=-1)
        chosen = self.candidates(log_p)
        sure = torch.softmax(early, dim=-1).masked_fill(~chosen, 0).amax(dim=-1)  # (E, B)
        surest, anchor = sure.max(dim=0)
        there = early[anchor, torch.arange(log_p.shape[0], device=log_p.device)]
        new = log_p + self.alpha * surest[:, None] * torch.log_softmax(there, dim=-1)
        return kept(new, chosen)

    def candidates(self, log_p: torch.Tensor) -> torch.Tensor:
        """(B, V) bool: the fewest tokens that hold ``top_p``, at most ``top_k``; always the best one."""
        ranked, order = log_p.sort(dim=-1, descending=True, stable=True)
        shares = ranked.exp()
        inside = shares.cumsum(dim=-1) - shares < self.top_p
        inside[:, 0] = True
        if self.top_k is not None:
            inside[:, self.top_k :] = False
        return torch.zeros_like(inside).scatter(-1, order, inside) & ~log_p.isneginf()

    def describe(self) -> str:
        """One phrase for provenance."""
        return self._told("alpha", "top_p", "top_k", "first", "last")
