"""Runs the knock-out experiment of :mod:`vlmattn.heads.knockout` on a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmattn.api.request import Request
from vlmattn.capture import CaptureSpec
from vlmattn.capture.watching import chosen_sites
from vlmattn.core.errors import SpecError
from vlmattn.heads.knockout import DEFAULT_BLOCKS, Block, KnockoutCost, KnockoutSweep, block_named, layer_windows

if TYPE_CHECKING:
    from vlmattn.api.run import Run
    from vlmattn.api.vlm import Vlm

Samples = Any
"""A run, or a list of runs and of (picture, question) or (picture, question, answer)."""
_LEAST = CaptureSpec(rows="answer", reduce="mean", top_k=1)


def knockout_cost(
    vlm: Vlm, samples: Samples, blocks: Sequence[str | Block] = DEFAULT_BLOCKS, *, window: int | None = 1, step: int = 1
) -> KnockoutCost:
    """What :func:`knockout_sweep` would run; nothing runs.

    Raises:
        SpecError: as there.
    """
    _, cut, windows = _planned(vlm, samples, blocks, window, step)
    return KnockoutCost(len(_listed(samples)), len(cut), len(windows))


def knockout_sweep(
    vlm: Vlm,
    samples: Samples,
    blocks: Sequence[str | Block] = DEFAULT_BLOCKS,
    *,
    window: int | None = 1,
    step: int = 1,
    max_new_tokens: int = 32,
    tell: Callable[[KnockoutCost], None] | None = None,
) -> KnockoutSweep:
    """What the answer loses when rows of one segment cannot see another, window of layers by window.

    The answer stays what it was (written greedily without knock-out, or given) and is read again under each cut, so
    that its log-probability can be compared; it counts as changed where greedy decoding would leave it.

    Args:
        vlm: the model. samples: a run, or a list of runs and of (picture, question) or (picture, question, answer).
        blocks: see :class:`vlmattn.heads.Block`. window: layers cut at once; None for all. step: between windows.
        max_new_tokens: of answers that are not given. tell: is told the cost before anything runs.

    Raises:
        SpecError: no samples, a block that the prompt does not have, or a window longer than there are layers.

    Example:
        >>> import vlmattn as va
        >>> from vlmattn.api import knockout_sweep
        >>> scene, questions = va.scene.split_item("test", seed=0, index=0)
        >>> vlm = va.load("scene")
        >>> sweep = knockout_sweep(vlm, [(scene.image, questions[0].text)], ["image->answer"], window=None)
        >>> sweep.log_change_bw.shape
        (1, 1)
    """
    requests, cut, windows = _planned(vlm, samples, blocks, window, step)
    if tell is not None:
        tell(KnockoutCost(len(requests), len(cut), len(windows)))
    shape = (len(requests), len(cut), len(windows))
    logp, changed, first = np.empty(shape), np.empty(shape, dtype=np.bool_), np.empty(shape, dtype=object)
    whole: list[float] = []
    told: list[tuple[str, str]] = []
    for n, one in enumerate(requests):
        request, base = _read(vlm, one, max_new_tokens)
        whole.append(_logp(base))
        told.append((base.question, base.answer))
        for b, block in enumerate(cut):
            for w, layers in enumerate(windows):
                run = _cut_run(vlm, request, block, layers)
                logp[n, b, w] = _logp(run)
                changed[n, b, w], first[n, b, w] = _left(vlm, run)
    names, asked = tuple(str(b) for b in cut), tuple(q for q, _ in told)
    return KnockoutSweep(names, windows, asked, tuple(a for _, a in told), np.array(whole), logp, changed, first)


def _planned(
    vlm: Vlm, samples: Samples, blocks: Any, window: int | None, step: int
) -> tuple[list[Request], list[Block], tuple[tuple[int, ...], ...]]:
    given = [blocks] if isinstance(blocks, (str, Block)) else list(blocks)
    if not given:
        raise SpecError(f"a sweep needs a block to cut, such as {DEFAULT_BLOCKS[0]!r}")
    cut = [block_named(one) for one in given]
    layers = [site.layer_idx for site in chosen_sites(vlm.model, None)]
    return [_request(one) for one in _listed(samples)], cut, layer_windows(layers, window, step)


def _listed(samples: Samples) -> list[Any]:
    if hasattr(samples, "trace") and hasattr(samples, "request"):
        return [samples]
    if not isinstance(samples, (list, tuple)) or not samples:
        raise SpecError(
            "a sweep needs a run, or a list of runs and of (picture, question) or (picture, question, answer)"
        )
    return list(samples)


def _request(sample: Any) -> Request:
    if hasattr(sample, "trace") and hasattr(sample, "request"):
        return answered(sample)
    if not isinstance(sample, (tuple, list)) or len(sample) not in (2, 3):
        raise SpecError(f"a sample is a run, (picture, question) or (picture, question, answer); got {sample!r}")
    answers = None if len(sample) == 2 or sample[2] is None else (sample[2],)
    return Request(((sample[0], sample[1]),), answers=answers)


def answered(run: Run) -> Request:
    """The request that reads a run's finished answer again.

    Raises:
        SpecError: the run has no answer token.
    """
    ids = run.trace.layout.input_ids[run.trace.layout.answer_start :]
    if not len(ids):
        raise SpecError("the run has no answer to read again: nothing was written")
    return replace(run.request, answers=(ids.tolist(),))


def _read(vlm: Vlm, request: Request, max_new_tokens: int) -> tuple[Request, Run]:
    if request.answers is None:
        run = vlm.run(replace(request, capture=_LEAST, max_new_tokens=max_new_tokens))[0]
        request = answered(run)
    request = replace(request, capture=_LEAST)
    return request, vlm.run(request)[0]


def _cut_run(vlm: Vlm, request: Request, block: Block, layers: tuple[int, ...]) -> Run:
    from vlmattn.steering import KnockOut

    cut = KnockOut((block,), layers=layers)
    return vlm.run(replace(request, steering=(*request.steering, cut)))[0]


def _logp(run: Run) -> float:
    scores = run.trace.scores
    if scores is None or not np.isfinite(scores.chosen_logp_t).all():
        raise SpecError("the model hands out no logits of a given answer, so its probability is not known")
    return float(scores.chosen_logp_t.astype(np.float64).sum())


def _left(vlm: Vlm, run: Run) -> tuple[bool, str]:
    # Where greedy decoding would leave the answer, and the first token that it would write.
    scores = run.trace.scores
    best = scores.top_ids_tk[:, 0] if scores is not None else np.zeros(0, dtype=np.int64)
    ids = run.trace.layout.input_ids[run.trace.layout.answer_start :]
    return bool((best != ids).any()), vlm.adapter.tokenizer.decode(int(best[0])).strip()
