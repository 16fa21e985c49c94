"""Answers with the risk of what they claim, and what is left of them at a threshold."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import vlmattn as va
from benchmarks.mitigation_base import BATCH, Asked, Route, presence, right, steered
from vlmattn.api.detection import risks_of
from vlmattn.api.object_words import named_in
from vlmattn.detection import RECALL
from vlmattn.scene import Scene
from vlmattn.scene.captions import mentioned

Told = tuple[str, list[tuple[str, float]]]
"""An answer, and each thing that it names (or its *yes*) with its risk."""


LOSSES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Recall that a point of a frontier may give up."""


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

    def limits(self) -> list[float]:
        """Every threshold that makes a difference to what was asked, and one that nothing reaches."""
        return sorted({risk for _, some in self._held.values() for _, risk in some} | {1.1})

    def _read(self, run: Any) -> Told:
        yes = [("yes", word) for word in run.words()[:1] if word.text.casefold() == "yes"]
        told = yes or [(one.name, one.span) for one in named_in(run)]
        risks = risks_of(run, [span for _, span in told], self.detector)
        return run.answer, [(name, risk or 0.0) for (name, _), risk in zip(told, risks, strict=True)]

    def yes_taken_back(self, limit: float, rng: np.random.Generator | None = None) -> Callable[..., list[str]]:
        """*No* instead of a *yes* whose risk reaches ``limit``, or of as many at random."""

        def say(images: Sequence[Any], texts: Sequence[str], new: int) -> list[str]:
            told = self(images, texts, new)
            risks = {n: risk for n, (_, some) in enumerate(told) for name, risk in some if name == "yes"}
            bad = [n for n, risk in risks.items() if risk >= limit]
            if rng is not None:
                bad = [int(n) for n in rng.permutation(list(risks))[: len(bad)]]
            return ["no" if n in bad else answer for n, (answer, _) in enumerate(told)]

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


def frontier(measure: Callable[[float], tuple[float, float]], limits: Sequence[float]) -> list[dict[str, float]]:
    """The least error for each of :data:`LOSSES`; ``measure`` gives (error, recall) at a threshold, the last is plain.

    Thresholds are read off the very items that are measured: no rule that must choose beforehand does better.
    """
    points = [(*measure(limit), limit) for limit in limits]
    plain, found = points[-1][1], []
    for loss in LOSSES:
        error, recall, limit = min((p for p in points if p[1] >= plain - loss - 1e-9), key=lambda p: (p[0], -p[1]))
        found.append({"loss": loss, "limit": limit, "error": error, "recall": recall})
    return found


class Shipped:
    """Answers and risks by the detectors that are shipped for a model, of *yes* and of things; None without them."""

    def __init__(self, vlm: va.Vlm) -> None:
        from vlmattn.detection import shipped_detector

        self.vlm = vlm
        self.of_claims, self.of_things = (shipped_detector(vlm.name, kind) for kind in ("claims", "things"))
        self.claims, self.things = (RisksSeen(vlm, one, BATCH) for one in (self.of_claims, self.of_things))

    @classmethod
    def of(cls, vlm: va.Vlm) -> Shipped | None:
        """That of a model, if it has some."""
        from vlmattn.detection import shipped_detectors

        return cls(vlm) if (vlm.name, "claims") in shipped_detectors() else None

    def routes(self, count: int) -> list[Route]:
        """Takes back *yes* and leaves things out at thresholds that were chosen before; one on ``count`` questions."""
        plain, found = steered(self.vlm), []
        for name in ("recall", "recall-0.005", "0.5"):
            limits, known = self._limits(name), name in RECALL
            told = [
                f"{one.name}, {limit:.3f}" for one, limit in zip((self.of_claims, self.of_things), limits, strict=True)
            ]
            way = f"detector, threshold chosen for {name}" if known else "detector, threshold 0.5"
            back = self.claims.yes_taken_back(limits[0])
            found.append(Route(f"{way}: yes taken back", back, told[0], only=("presence",), spent=self.claims.spent))
            back = self.claims.yes_taken_back(limits[0], np.random.default_rng(0))
            as_many = f"{way}: as many yes at random"
            found.append(Route(as_many, back, "", True, ("presence",), spent=self.claims.spent))
            names = self.things.kept_names(limits[1])
            found.append(Route(f"{way}: things left out", plain, told[1], only=("captions",), names=names))
            names = self.things.kept_names(limits[1], np.random.default_rng(0))
            found.append(Route(f"{way}: as many left out at random", plain, "", True, ("captions",), names))
        limit = self.halving(presence("adversarial", count, 1))
        way = "detector, strictest threshold that halves false yes on seed 1"
        told = f"{self.of_claims.name}, {limit:.3f}"
        for rng in (None, np.random.default_rng(0)):
            back = self.claims.yes_taken_back(limit, rng)
            name = f"{way}: {'as many yes at random' if rng else 'yes taken back'}"
            found.append(
                Route(name, back, "" if rng else told, rng is not None, ("presence",), spent=self.claims.spent)
            )
        return found

    def halving(self, asked: Asked) -> float:
        """The highest threshold at which half as many absent things are affirmed as without."""
        seen = RisksSeen(self.vlm, self.of_claims, BATCH)
        absent = [(scene, question) for scene, question in asked if question.answer == "no"]
        told = [some for _, some in seen([s.image for s, _ in absent], [q.text for _, q in absent], 4)]
        risks = sorted(risk for some in told for name, risk in some if name == "yes")
        return risks[len(risks) // 2]

    def _limits(self, name: str) -> list[float]:
        return [d.threshold(name).value if name in RECALL else 0.5 for d in (self.of_claims, self.of_things)]

    def frontiers(self, asked: Asked, scenes: Sequence[Scene]) -> dict[str, list[dict[str, float]]]:
        """False *yes* against recall over ``asked``, and CHAIR_i against recall of captions, at every threshold."""
        absent = np.array([q.answer == "no" for _, q in asked])
        images, texts = [s.image for s in scenes], ["Describe the picture."] * len(scenes)

        def yes(limit: float) -> tuple[float, float]:
            held = np.array(right(self.claims.yes_taken_back(limit), asked))
            return float(1 - held[absent].mean()), float(held[~absent].mean())

        def things(limit: float) -> tuple[float, float]:
            pairs = list(zip(self.things.kept_names(limit)(images, texts, 60), scenes, strict=True))
            wrong = sum(one not in scene.names for some, scene in pairs for one in some)
            there = sum(len(set(scene.names)) for scene in scenes)
            said = sum(len(some) for some, _ in pairs)
            return wrong / max(1, said), sum(len(set(some) & set(scene.names)) for some, scene in pairs) / there

        return {"yes": frontier(yes, self.claims.limits()), "things": frontier(things, self.things.limits())}
