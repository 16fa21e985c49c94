"""Heads that raise the probability of things that are not there: the attribution that AD-HH acts on.

Yang et al., "Understanding and Mitigating Hallucination in Large Vision-Language Models via Modular Attribution and
Intervention", ICLR 2025. For an object's token y, with head h's output zero before W_O:

    influence(h) = p(y) - p(y | h out);    score(h) = mean over hallucinated - mean over true objects
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError

if TYPE_CHECKING:
    from vlmattn.api.run import Run
    from vlmattn.api.vlm import Vlm


@dataclass(frozen=True)
class Named:
    """An object that an answer names.

    Attributes:
        run: the answer. token: number of the object's first token in it, from 0. hallucinated: whether it is not there.
    """

    run: Run
    token: int
    hallucinated: bool


@dataclass(frozen=True)
class HallucinationHeads:
    """Scores of all heads.

    Attributes:
        layers: (L,) numbers. score_lh: (L, H) probability that a head adds to hallucinated objects, less what it adds
            to true ones; NaN for heads that are not there. objects: how many of each, hallucinated and true.
    """

    layers: tuple[int, ...]
    score_lh: NDArray[np.float64]
    objects: tuple[int, int]

    def top(self, count: int = 20) -> tuple[tuple[int, int], ...]:
        """The (layer, head) pairs of highest score, best first; those at or below 0 are left out.

        Raises:
            SpecError: a count below 1, or no head above 0.
        """
        if count < 1:
            raise SpecError(f"count must be at least 1, got {count}")
        flat = np.where(np.isfinite(self.score_lh), self.score_lh, -np.inf).ravel()
        best = [int(n) for n in np.argsort(-flat, kind="stable")[:count] if flat[n] > 0]
        if not best:
            raise SpecError("no head raises hallucinated objects more than true ones")
        width = self.score_lh.shape[1]
        return tuple((self.layers[n // width], n % width) for n in best)


def hallucination_heads(vlm: Vlm, objects: Sequence[Named], *, batch: int = 8) -> HallucinationHeads:
    """Scores of all heads, from answers whose objects are known to be there or not.

    Every head is taken out once per object, ``batch`` of them in a pass.

    Args:
        objects: hallucinated and true ones.

    Raises:
        SpecError: objects of one sort only, or a token that the answer does not have.
    """
    from vlmattn.capture import model_sites

    sorts = [sum(one.hallucinated for one in objects), sum(not one.hallucinated for one in objects)]
    if not all(sorts):
        raise SpecError(f"heads are scored between hallucinated and true objects; got {sorts[0]} and {sorts[1]}")
    found: dict[bool, list[NDArray[np.float64]]] = {True: [], False: []}
    for one in objects:
        layout = one.run.trace.layout
        ids = layout.input_ids[layout.answer_start :]
        if not 0 <= one.token < len(ids):
            raise SpecError(f"token {one.token} does not exist; the answer has {len(ids)}")
        found[one.hallucinated].append(_influence(vlm, one.run, [int(n) for n in ids[: one.token + 1]], batch))
    score = np.mean(found[True], axis=0) - np.mean(found[False], axis=0)
    layers = tuple(site.layer_idx for site in model_sites(vlm.model).attention)
    return HallucinationHeads(layers, score, (sorts[0], sorts[1]))


def _influence(vlm: Vlm, run: Run, ids: list[int], batch: int) -> NDArray[np.float64]:
    # (L, H) probability of the last of ``ids``, less that without each head.
    from vlmattn.adapters.videos import may_run_together
    from vlmattn.capture import model_sites

    sites = model_sites(vlm.model).attention
    out = np.full((len(sites), max(site.heads for site in sites)), np.nan)
    every = [(line, head) for line, site in enumerate(sites) for head in range(site.heads)]
    size = batch if may_run_together(vlm.adapter.spec, [run.pictures, run.pictures]) else 1
    whole = _chances(vlm, run, ids, ())[0]
    for first in range(0, len(every), size):
        part = every[first : first + size]
        found = _chances(vlm, run, ids, tuple((sites[line].layer_idx, head) for line, head in part))
        out[tuple(np.array(part).T)] = whole - found
    return out


def _chances(vlm: Vlm, run: Run, ids: list[int], heads: tuple[tuple[int, int], ...]) -> NDArray[np.float64]:
    # (B,) probability of the last of ``ids``, in each line with one of ``heads`` taken out; of the model as it is if
    # there are none.
    import torch

    from vlmattn.api.head_passes import answered
    from vlmattn.capture import Session
    from vlmattn.steering import ReplaceHeads

    encoded = answered(vlm, run.pictures, run.request.items[0][1], ids, max(len(heads), 1))
    steering = [ReplaceHeads(heads)] if heads else []
    session = Session(vlm.model, encoded.layouts, None, steering, pad_left=encoded.pad_left)
    with vlm.alone(), session, torch.no_grad():
        logits = vlm.model(**encoded.inputs, use_cache=False).logits[:, -2].double()
    return np.asarray(torch.softmax(logits, dim=-1)[:, ids[-1]].cpu().numpy())
