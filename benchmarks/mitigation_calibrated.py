"""Mitigations whose heads or directions are found on the model first, and searches beside plain beam search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import vlmattn as va
from benchmarks.focus import fitted
from benchmarks.mitigation_base import BATCH, Answers, Asked, Route, right, steered
from vlmattn.api.answers import answers_of
from vlmattn.api.request import Request
from vlmattn.core.errors import SpecError
from vlmattn.scene import split_item
from vlmattn.steering import OPERA, Focus

ALPHAS = (0.5, 1.0, 2.0)


def by_calibration(vlm: va.Vlm, seed: int, validation: Asked) -> list[Route]:
    """ACT in heads that gain, DAGCD, focus directions; what a model gives no ground for is told and left out."""
    ways: tuple[Callable[[], list[Route]], ...] = (
        lambda: _act(vlm, validation),
        lambda: _dagcd(vlm, seed, 40),
        lambda: _focus(vlm, seed, validation),
    )
    found = []
    for way in ways:
        try:
            found += way()
        except SpecError as error:
            print(f"not calibrated: {error}", flush=True)
    return found


def by_search(vlm: va.Vlm) -> list[Route]:
    """OPERA, and plain beam search with as many beams."""
    beams = OPERA().beams

    def say(images: Sequence[Any], texts: Sequence[str], new: int) -> Answers:
        told: Answers = []
        for first in range(0, len(texts), BATCH):
            pairs = tuple(zip(images[first : first + BATCH], texts[first : first + BATCH], strict=True))
            request = Request(pairs, max_new_tokens=new, generate={"num_beams": beams})
            told += [one.text for one in answers_of(vlm, request)]
        return told

    return [
        Route("OPERA", steered(vlm, OPERA()), f"{beams} beams"),
        Route("OPERA: beam search alone", say, f"{beams} beams", True),
    ]


def _act(vlm: va.Vlm, validation: Asked) -> list[Route]:
    examples = [(scene.image, question.text, question.answer) for scene, question in validation]
    method = va.api.calibrate_act(vlm, examples).steering()
    return [Route("ACT, heads calibrated", steered(vlm, method), f"{len(method.heads or ())} heads")]


def _dagcd(vlm: va.Vlm, seed: int, count: int) -> list[Route]:
    # Of the questions here, those that compare two things are answered in their own words.
    runs, index = [], 0
    while len(runs) < count:
        scene, asked = split_item("validation", seed, index)
        runs += [vlm.ask(scene.image, one.text, max_new_tokens=4) for one in asked if one.kind == "compare"]
        index += 1
    method = va.api.calibrate_dagcd(runs)
    return [Route("DAGCD", steered(vlm, method), f"{len(method.heads)} heads")]


def _focus(vlm: va.Vlm, seed: int, validation: Asked) -> list[Route]:
    found, placed = fitted(vlm, seed, 40, 6)

    def scaled(alpha: float) -> Focus:
        return Focus(heads=found.heads, queries=found.queries, keys=found.keys, alpha=alpha)

    rates = {alpha: np.mean(right(steered(vlm, scaled(alpha)), validation)) for alpha in ALPHAS}
    best = scaled(max(ALPHAS, key=lambda one: rates[one]))
    told = f"alpha={best.alpha}, {len(best.heads)} heads, {placed} answers"
    control = best.at_random(np.random.default_rng(seed))
    return [
        Route("focus directions", steered(vlm, best), told),
        Route("focus directions: random directions", steered(vlm, control), told, True),
    ]
