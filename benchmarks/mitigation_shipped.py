"""Answers with the risk of what they claim, and what is left of them at a threshold."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import vlmattn as va
from vlmattn.api.detection import risks_of
from vlmattn.api.object_words import named_in
from vlmattn.scene.captions import mentioned

Told = tuple[str, list[tuple[str, float]]]
"""An answer, and each thing that it names (or its *yes*) with its risk."""


class RisksSeen:
    """Answers and risks; what was asked once is not asked again."""

    def __init__(self, vlm: va.Vlm, detector: Any, batch: int) -> None:
        self.vlm, self.detector, self.batch = vlm, detector, batch
        self._held: dict[tuple[int, str], Told] = {}
        self._spent: dict[int, float] = {}

    def spent(self, new: int) -> float:
        """Seconds of CPU time that answers of up to ``new`` tokens took."""
        return self._spent.get(new, 0.0)

    def __call__(self, images: Sequence[Any], texts: Sequence[str], new: int) -> list[Told]:
        """One for each picture and text."""
        start = time.process_time()
        keys = [(hash(image.tobytes()), text) for image, text in zip(images, texts, strict=True)]
        missing = [n for n, key in enumerate(keys) if key not in self._held]
        for first in range(0, len(missing), self.batch):
            part = missing[first : first + self.batch]
            runs = self.vlm.ask_many([(images[n], texts[n]) for n in part], max_new_tokens=new)
            self._held.update({keys[n]: self._read(run) for n, run in zip(part, runs, strict=True)})
        self._spent[new] = self.spent(new) + time.process_time() - start
        return [self._held[key] for key in keys]

    def _read(self, run: Any) -> Told:
        yes = [("yes", word) for word in run.words()[:1] if word.text.casefold() == "yes"]
        told = yes or [(one.name, one.span) for one in named_in(run)]
        risks = risks_of(run, [span for _, span in told], self.detector)
        return run.answer, [(name, risk or 0.0) for (name, _), risk in zip(told, risks, strict=True)]

    def yes_taken_back(self, limit: float) -> Callable[..., list[str]]:
        """*No* instead of a *yes* whose risk reaches ``limit``."""

        def say(images: Sequence[Any], texts: Sequence[str], new: int) -> list[str]:
            told = self(images, texts, new)
            return ["no" if any(n == "yes" and risk >= limit for n, risk in some) else one for one, some in told]

        return say

    def kept_names(self, limit: float, rng: np.random.Generator | None = None) -> Callable[..., list[list[str]]]:
        """Names of what captions name, without those whose risk reaches ``limit``, or without as many at random."""

        def names(images: Sequence[Any], texts: Sequence[str], new: int) -> list[list[str]]:
            kept = []
            for answer, told in self(images, texts, new):
                said = mentioned(answer)
                bad = [name for name, risk in told if risk >= limit]
                if rng is not None and said:
                    bad = [str(one) for one in rng.permutation(said)[: len(bad)]]
                kept.append([one for one in said if one not in bad])
            return kept

        return names
