"""Scores of heads against whole passes with one head's input of W_O at zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.steering.plain_contrast import alone, picture, vlm_of
from vlmattn.api import Named, hallucination_heads
from vlmattn.capture import model_sites
from vlmattn.core.errors import SpecError
from vlmattn.steering import ADHH

QUESTIONS = ("What is on the stove here?", "Who?")


def chance(vlm: Any, number: int, ids: list[int], out: tuple[int, int] | None) -> float:
    """Probability of the last of ``ids``, with a head taken out."""
    given = alone(vlm, number)
    width = given["input_ids"].shape[1]
    for name, value in given.items():
        if tuple(value.shape) == (1, width):
            tail = torch.tensor([ids]) if name == "input_ids" else value.new_full((1, len(ids)), name != "mm_token")
            given[name] = torch.cat([value, tail.to(value.dtype)], 1)
    hooks = []
    for site in model_sites(vlm.model).attention:
        if out is not None and site.layer_idx == out[0]:

            def zero(_m: Any, args: Any, heads: int = site.heads, head: int = out[1]) -> Any:
                states = args[0].reshape(*args[0].shape[:2], heads, -1).clone()
                states[:, :, head] = 0
                return (states.reshape(args[0].shape),)

            hooks.append(site.output_projection.register_forward_pre_hook(zero))
    with torch.no_grad():
        logits = vlm.model(**given, use_cache=False).logits[0, -2].double()
    for hook in hooks:
        hook.remove()
    return float(torch.softmax(logits, -1)[ids[-1]])


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_scores_are_those_of_whole_passes_and_feed_ad_hh(family: str) -> None:
    vlm = vlm_of(family)
    runs = [vlm.ask(picture(n), q, answer="a red cup") for n, q in enumerate(QUESTIONS)]
    objects = [Named(runs[0], 1, True), Named(runs[0], 3, False), Named(runs[1], 4, True)]
    found = vlm.hallucination_heads(objects, batch=3)
    want = np.zeros((2, *found.score_lh.shape))
    for one, number in zip(objects, (0, 0, 1), strict=True):
        layout = one.run.trace.layout
        ids = layout.input_ids[layout.answer_start :][: one.token + 1].tolist()
        whole = chance(vlm, number, ids, None)
        for layer, head in np.ndindex(found.score_lh.shape):
            want[int(one.hallucinated), layer, head] += whole - chance(vlm, number, ids, (layer, head))
    assert np.abs(found.score_lh - (want[1] / 2 - want[0])).max() < 1e-6
    best = found.top(3)
    assert found.score_lh[best[0]] == np.nanmax(found.score_lh)
    assert found.objects == (2, 1)
    run = vlm.ask(picture(), "Who?", steering=[ADHH(heads=best, threshold=0.0)], max_new_tokens=2)
    assert "ADHH" in " ".join(run.trace.provenance.steps)


def test_one_sort_of_objects_or_a_missing_token_is_refused() -> None:
    vlm = vlm_of("llava")
    run = vlm.ask(picture(), "Who?", answer="a cup")
    with pytest.raises(SpecError, match="1 and 0"):
        hallucination_heads(vlm, [Named(run, 0, True)])
    with pytest.raises(SpecError, match="token 99"):
        hallucination_heads(vlm, [Named(run, 99, True), Named(run, 0, False)])
