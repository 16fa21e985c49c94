"""What the model would write if it stopped after an earlier layer: the states of the last token, read as words.

Each layer's output goes through the final norm and the unembedding (the logit lens, or early exit). Nothing runs twice
but the unembedding, once per layer that is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from vlmattn.capture.exits import Exits
from vlmattn.core.errors import CaptureError, SpecError
from vlmattn.steering.contrast import LogitsMethod, Processor


class EarlyExits(LogitsMethod):
    """A method that reads words off earlier layers."""

    def exits(self, depth: int) -> tuple[int, ...]:
        """How many layers each exit lies behind, 1 to depth - 1, ascending."""
        raise NotImplementedError

    def rule(self, scores: torch.Tensor, early: torch.Tensor) -> torch.Tensor:
        """(B, V) new scores, from the model's and those of E exits, (E, B, V)."""
        raise NotImplementedError

    @contextmanager
    def writing(self, model: Any, encoded: Any, settings: Mapping[str, Any] | None = None) -> Iterator[Any | None]:
        """See :meth:`Steering.writing`.

        Raises:
            SpecError: layers that do not exist. UnsupportedModel: no final norm or unembedding is found.
        """
        self.check(None, encoded.layouts)
        self.check_decoding(model, settings or {})
        if self.neutral:
            yield None
            return
        seen = Exits(model)
        chosen = self.exits(seen.depth)
        with seen.watching(chosen):
            yield self._processor(seen)

    def _processor(self, seen: Exits) -> Processor:
        def change(_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            early = seen.logits()
            if early.shape[1] != scores.shape[0]:
                raise CaptureError(
                    f"{type(self).__name__} saw {early.shape[1]} rows, and {scores.shape[0]} are to be written"
                )
            return self.rule(scores, early.to(scores.device))

        return change


def counted_layers(name: str, layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """Exits as numbers of layers passed, ascending.

    Raises:
        SpecError: one that is not between 1 and the depth less 1.
    """
    wrong = [n for n in layers if not 1 <= n < depth]
    if wrong or not layers:
        raise SpecError(f"{name} exits behind 1 to {depth - 1} layers; got {wrong or 'none'}")
    return tuple(sorted(set(layers)))
