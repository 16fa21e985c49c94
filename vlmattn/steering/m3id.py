"""M3ID: the later the token, the stronger the contrast with the text without the picture.

Favero et al., "Multi-Modal Hallucination Control by Visual Information Grounding", CVPR 2024, arXiv 2403.14003. With
log p of the model, log u of the same text without image tokens, t the number of the written token from 1:

    l' = log p + [max p < theta] (1 - e^(-lambda t)) / e^(-lambda t) (log p - log u)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from vlmattn.core.layout import TokenLayout
from vlmattn.steering.contrast import LogitsMethod, Processor, Second, kept, plausible
from vlmattn.steering.prompts import check_text_alone, text_alone


@dataclass(frozen=True, eq=False, kw_only=True)
class M3ID(LogitsMethod):
    """Multi-modal mutual-information decoding.

    Attributes:
        forgetting: lambda, how fast the picture is forgotten; 0 contrasts with nothing. theta: only where the best
            token's probability is below it; 1 (and more): everywhere but where the model is certain. beta: least
            probability, of that of the best token; 0 keeps all, as the formula says.

    The strength e^(lambda t) - 1 grows without bound: at lambda = 0.02 it is 0.49 at 20 tokens, 6.4 at 100; at 0.2 it
    is 53 at 20. ``forgetting=0, beta=0`` changes nothing, bit for bit. One more pass without picture per token; the
    second run has its own cache and is not steered.

    Raises:
        SpecError: values out of range; on asking, pictures that are no tokens of the prompt.

    Example:
        >>> M3ID.preset("paper").theta
        0.3
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"forgetting": 0.02, "theta": 0.3}}

    forgetting: float = 0.02
    theta: float = 0.3
    beta: float = 0.0

    def __post_init__(self) -> None:
        self._check_number("forgetting", 0)
        self._check_number("theta", 0)
        self._check_number("beta", 0, 1)

    @property
    def neutral(self) -> bool:
        """See :class:`Method`."""
        return (self.forgetting == 0 or self.theta == 0) and self.beta == 0

    def check(self, width: int | None, layouts: Sequence[TokenLayout]) -> None:
        """See :meth:`Steering.check`."""
        check_text_alone("M3ID", layouts)

    def processor(self, model: Any, encoded: Any) -> Processor:
        """See :class:`LogitsMethod`."""
        second = Second(model, text_alone(encoded), encoded)
        prompt = int(encoded.inputs["input_ids"].shape[1])

        def change(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            log_p = torch.log_softmax(scores.float(), dim=-1)
            log_u = torch.log_softmax(second.logits(ids).to(scores.device), dim=-1)
            # Beyond e^50 float32 would overflow and the order of tokens no longer changes.
            strength = math.expm1(min(self.forgetting * (ids.shape[1] - prompt + 1), 50.0))
            unsure = log_p.amax(dim=-1, keepdim=True).exp() < self.theta
            pulled = log_p + strength * torch.where(log_p.isneginf(), 0.0, log_p - log_u)
            return kept(torch.where(unsure, pulled, log_p), plausible(log_p, self.beta))

        return change

    def describe(self) -> str:
        """One phrase for provenance."""
        return self._told("forgetting", "theta", "beta")
