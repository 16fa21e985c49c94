"""The same answer on changed pictures: how likely the model finds its tokens there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmattn.api.checks import still
from vlmattn.core.errors import MapError
from vlmattn.core.images import Picture

if TYPE_CHECKING:
    from vlmattn.api.run import Run
    from vlmattn.trace import Span


class AnswerScore:
    """Scores pictures in place of one of a run's, for some tokens of its answer.

    Args:
        run: of one question. span: of the answer. image: which picture is replaced. batch: pictures per forward pass.
            probabilities: of the tokens together, 0 to 1; else their log-probability, natural log, summed. progress:
            called with how many pictures are done.

    Raises:
        SpecError: no such picture, or a video. MapError: a span of the question, or one without tokens.
    """

    def __init__(
        self,
        run: Run,
        span: Span,
        image: int = 0,
        *,
        batch: int = 8,
        probabilities: bool = True,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        from vlmattn.capture import CaptureSpec, model_sites

        self.run, self.image, self.batch, self.probabilities = run, image, max(1, batch), probabilities
        self.original = still(run.pictures, image)
        self.progress, self.passes = progress, 0
        if span.part != "answer" or not span.tokens:
            raise MapError(f"{span.text!r} is no part of the answer, so its removal cannot make the answer less likely")
        layout = run.trace.layout
        self._ids = layout.input_ids[layout.answer_start :].tolist()
        self._at = [token - layout.answer_start for token in span.tokens]
        site = model_sites(run.vlm.model).attention[-1]
        self._spec = CaptureSpec(rows="answer", layers=[site.layer_idx], reduce="mean", top_k=1)

    def __call__(self, pictures: Sequence[Image.Image]) -> NDArray[np.float64]:
        """(n,) scores; every picture is prepared anew, as the model's own processor does it."""
        found: list[float] = []
        for first in range(0, len(pictures), self.batch):
            found += self._scored(pictures[first : first + self.batch])
            if self.progress is not None:
                self.progress(self.passes)
        scores = np.array(found)
        return np.exp(scores) if self.probabilities else scores

    def _scored(self, pictures: Sequence[Image.Image]) -> list[float]:
        run = self.run
        before, after = list(run.pictures[: self.image]), list(run.pictures[self.image + 1 :])
        items = tuple(
            ([*before, Picture(one, self.original.name), *after], run.request.items[0][1]) for one in pictures
        )
        asked = replace(run.request, items=items, answers=(self._ids,) * len(items), capture=self._spec)
        self.passes += len(items)
        return [self._log_probability(one) for one in run.vlm.run(asked)]

    def _log_probability(self, run: Run) -> float:
        if run.trace.scores is None:
            raise MapError("the model's logits were not seen, so the answer's probability is not known")
        return float(np.sum(run.trace.scores.chosen_logp_t[self._at], dtype=np.float64))
