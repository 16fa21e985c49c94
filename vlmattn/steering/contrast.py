"""Steering of logits: what is written next, by a rule over the model's own logits and perhaps those of a second run.

Such a method gives a transformers ``LogitsProcessor`` for one run, :meth:`Steering.writing`. It works in
``vlm.steer(...)``, in runs over benchmarks, and with plain ``generate``::

    with method.writing(model, encoded) as processor:
        model.generate(**encoded.inputs, logits_processor=[processor])

Scores leave it as log-probabilities that sum to one over the tokens that are kept, so that sums over them mean the same
in beam search. Batches, left padding, beams and several samples work; a second run has its own cache, which is put into
the order of the beams.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from vlmattn.capture.branch import Branch
from vlmattn.core.errors import SpecError
from vlmattn.steering.method import Method, Slot

Processor = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Gets (B', N) ids and (B', V) scores; gives (B', V) scores."""

_SEVERAL = ("assistant_model", "prompt_lookup_num_tokens")
_IDLE: dict[str, Any] = {"guidance_scale": (None, 1, 1.0), "dola_layers": (None,)}


@dataclass(frozen=True, eq=False, kw_only=True)
class LogitsMethod(Method):
    """A method at the logits: one per run."""

    slot: ClassVar[Slot] = "logits"

    def processor(self, model: Any, encoded: Any) -> Processor:
        """What changes the scores of one run."""
        raise NotImplementedError

    @contextmanager
    def writing(self, model: Any, encoded: Any, settings: Mapping[str, Any] | None = None) -> Iterator[Any | None]:
        """See :meth:`Steering.writing`."""
        self.check(None, encoded.layouts)
        self.check_decoding(model, settings or {})
        yield None if self.neutral else self.processor(model, encoded)

    def check_decoding(self, model: Any, settings: Mapping[str, Any]) -> None:
        """Refuse models and ways of decoding that cannot be followed.

        Raises:
            SpecError: an encoder-decoder, several tokens per pass, or another contrast by ``generate`` itself.
        """
        name, config = type(self).__name__, getattr(model, "config", None)
        if getattr(config, "is_encoder_decoder", False):
            raise SpecError(f"{name} follows decoders that read their prompt; {type(model).__name__} has an encoder")
        several = [n for n in _SEVERAL if settings.get(n) is not None]
        if several:
            raise SpecError(f"{several[0]} checks several tokens in one pass, which {name} cannot follow: leave it out")
        other = [n for n, idle in _IDLE.items() if settings.get(n) not in idle]
        if other:
            raise SpecError(f"{other[0]} contrasts logits as well as {name}: leave one of the two out")
        depth = getattr(getattr(config, "get_text_config", lambda: config)(), "num_hidden_layers", None)
        if depth is not None:
            self.check_depth(depth)


class Second:
    """The second run of a contrast."""

    def __init__(self, model: Any, inputs: Mapping[str, Any], encoded: Any) -> None:
        self.branch = Branch(model, inputs, int(encoded.inputs["input_ids"].shape[1]))

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        """(B', V) of the token after each row."""
        return self.branch.logits(ids)


def against(second: Second | None, rule: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]) -> Processor:
    """A processor that gives ``rule`` the scores and the logits of the second run, if there is one."""

    def change(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return rule(scores, second.logits(ids) if second is not None else None)

    return change


def contrasted(scores: torch.Tensor, other: torch.Tensor | None, alpha: float, beta: float) -> torch.Tensor:
    """(B, V) log-probabilities: (1 + alpha) log p - alpha log q, over the tokens with p >= beta max p.

    Args:
        scores: (B, V) logits of p, or log-probabilities. other: of q; None for no contrast. alpha: its strength.
        beta: 0 keeps every token.

    Example:
        >>> import torch
        >>> new = contrasted(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), alpha=1.0, beta=0.1)
        >>> [round(float(value), 2) for value in new.exp()[0]]
        [0.27, 0.73]
    """
    log_p = torch.log_softmax(scores.float(), dim=-1)
    new = log_p
    if other is not None:
        log_q = torch.log_softmax(other.to(scores.device).float(), dim=-1)
        new = torch.where(log_p.isneginf(), log_p, (1 + alpha) * log_p - alpha * log_q)
    return kept(new, plausible(log_p, beta))


def plausible(log_p: torch.Tensor, beta: float) -> torch.Tensor:
    """(B, V) bool: tokens whose probability is at least ``beta`` times that of the best one."""
    if beta == 0:
        return torch.ones_like(log_p, dtype=torch.bool)
    return log_p >= log_p.amax(dim=-1, keepdim=True) + math.log(beta)


def kept(scores: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """(B, V) log-probabilities over ``tokens`` alone; minus infinity elsewhere."""
    return torch.log_softmax(scores.masked_fill(~tokens, -torch.inf), dim=-1)
