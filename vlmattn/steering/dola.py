"""DoLa: contrasts the last layer with the earlier one whose distribution is furthest from it.

Chuang et al., "DoLa: Decoding by Contrasting Layers Improves Factuality in Large Language Models", ICLR 2024, arXiv
2309.03883. With q_l the distribution of an early exit behind l layers, p the model's:

    M  = argmax_l  JSD(p || q_l)
    F  = log p - alpha log q_M,   for tokens with  p >= beta max p;   alpha = 1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from vlmattn.capture.choices import are_whole
from vlmattn.core.errors import SpecError
from vlmattn.steering.contrast import kept, plausible
from vlmattn.steering.early import EarlyExits, counted_layers


@dataclass(frozen=True, eq=False, kw_only=True)
class DoLa(EarlyExits):
    """Decoding by contrasting layers. (``generate`` has a DoLa of its own, for plain decoders.)

    Attributes:
        alpha: 1 in the paper; 0 contrasts with nothing. beta: least probability, of that of the best token; 0 keeps
            all. premature: numbers of layers behind which it may exit; None for every second one of the upper half.

    ``alpha=0, beta=0`` changes nothing, bit for bit. No second run: final norm and unembedding once more per exit. The
    paper adds a repetition penalty: ``repetition_penalty=1.2`` of ``generate``.

    Raises:
        SpecError: values out of range; on asking, layers that do not exist. UnsupportedModel: earlier layers cannot be
            read.

    Example:
        >>> DoLa().exits(32)
        (16, 18, 20, 22, 24, 26, 28, 30)
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"alpha": 1.0, "beta": 0.1}}

    alpha: float = 1.0
    beta: float = 0.1
    premature: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        self._check_number("alpha", 0)
        self._check_number("beta", 0, 1)
        if self.premature is not None and (not are_whole(self.premature) or not len(self.premature)):
            raise SpecError(f"premature of DoLa must be numbers of layers, or None; got {self.premature!r}")

    @property
    def neutral(self) -> bool:
        """See :class:`Method`."""
        return self.alpha == 0 and self.beta == 0

    def exits(self, depth: int) -> tuple[int, ...]:
        """See :class:`EarlyExits`."""
        half = depth // 2 + depth // 2 % 2
        chosen = self.premature if self.premature is not None else tuple(range(half, depth, 2)) or (depth - 1,)
        return counted_layers("DoLa", chosen, depth)

    def rule(self, scores: torch.Tensor, early: torch.Tensor) -> torch.Tensor:
        """See the module."""
        log_p = torch.log_softmax(scores.float(), dim=-1)
        log_q = torch.log_softmax(early, dim=-1)
        furthest = divergence(log_p, log_q).argmax(dim=0)
        chosen = log_q[furthest, torch.arange(log_p.shape[0], device=log_p.device)]
        new = torch.where(log_p.isneginf(), log_p, log_p - self.alpha * chosen)
        return kept(new, plausible(log_p, self.beta))

    def describe(self) -> str:
        """One phrase for provenance."""
        return self._told("alpha", "beta", "premature")


def divergence(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """(…) Jensen-Shannon divergence of distributions (…, V) given as natural logarithms, in nats."""
    log_p = log_p.expand_as(log_q)
    log_m = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0, device=log_p.device))

    def towards(log_x: torch.Tensor) -> torch.Tensor:
        return torch.where(log_x.isneginf(), 0.0, log_x.exp() * (log_x - log_m)).sum(dim=-1)

    return (towards(log_p) + towards(log_q)) / 2
