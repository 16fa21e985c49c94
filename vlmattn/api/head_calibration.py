"""Heads that methods need and nobody has published for a model: those that ACT acts in, and those that DAGCD reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError

if TYPE_CHECKING:
    from vlmattn.api.run import Run
    from vlmattn.api.vlm import Vlm
    from vlmattn.capture import Steering
    from vlmattn.steering import ACT, DAGCD


@dataclass(frozen=True, eq=False)
class CalibratedHeads:
    """What ACT does to right answers, head by head.

    Attributes:
        layers: (L,) numbers. gain_lh: (L, H) mean change of a right answer's log-probability, in nats, with the sinks
            of this head alone calibrated; 0 where the head has none, NaN for heads that are not there. error_lh:
            standard errors. examples: how many. alpha, beta: of ACT.
    """

    layers: tuple[int, ...]
    gain_lh: NDArray[np.float64]
    error_lh: NDArray[np.float64]
    examples: int
    alpha: float
    beta: float

    def steering(self, count: int | None = None, *, errors: float = 1.0) -> ACT:
        """ACT in the heads whose gain is more than ``errors`` standard errors above 0, the best ``count`` of them.

        Raises:
            SpecError: no such head: this model's sinks are better left alone.
        """
        from vlmattn.steering import ACT

        sure = np.isfinite(self.gain_lh) & (self.gain_lh > errors * self.error_lh) & (self.gain_lh > 0)
        if not sure.any():
            raise SpecError(f"no head gains over {errors} standard errors from ACT: leave this model's sinks alone")
        ranked = np.argsort(-np.where(sure, self.gain_lh, -np.inf).ravel(), kind="stable")[: int(sure.sum())]
        width = self.gain_lh.shape[1]
        heads = tuple((self.layers[int(n) // width], int(n) % width) for n in ranked[:count])
        return ACT(alpha=self.alpha, beta=self.beta, heads=heads)


def calibrate_act(
    vlm: Vlm,
    examples: Sequence[tuple[Any, Any, str]],
    *,
    alpha: float = 5.0,
    beta: float = 0.4,
    layers: Sequence[int] | None = None,
    batch: int = 8,
) -> CalibratedHeads:
    """Which heads' sinks are worth changing, found on held-out examples as Yu et al. (ICML 2024) do: head by head.

    Every example runs once for each head, ``batch`` of them at a time. The measure is the right answer's
    log-probability, which tells more of few examples than how many answers are right.

    Args:
        examples: (picture, question, right answer). layers: None for those that ACT acts in.

    Raises:
        SpecError: fewer than two examples, or layers without attention.
    """
    from vlmattn.capture import model_sites
    from vlmattn.steering import ACT

    if len(examples) < 2:
        raise SpecError(f"heads are calibrated on two examples or more, got {len(examples)}")
    sites = {site.layer_idx: site.heads for site in model_sites(vlm.model).attention}
    whole = ACT(alpha=alpha, beta=beta, layers=None if layers is None else tuple(layers))
    chosen = sorted(whole.layers_among(tuple(sites)))
    plain = _log_probabilities(vlm, examples, (), batch)
    shape = (len(chosen), max(sites[layer] for layer in chosen))
    gain, error = np.full(shape, np.nan), np.full(shape, np.nan)
    for line, layer in enumerate(chosen):
        for head in range(sites[layer]):
            one = ACT(alpha=alpha, beta=beta, heads=((layer, head),))
            change = _log_probabilities(vlm, examples, (one,), batch) - plain
            gain[line, head] = change.mean()
            error[line, head] = change.std(ddof=1) / np.sqrt(len(change))
    return CalibratedHeads(tuple(chosen), gain, error, len(examples), alpha, beta)


def _log_probabilities(
    vlm: Vlm, examples: Sequence[tuple[Any, Any, str]], steering: tuple[Steering, ...], batch: int
) -> NDArray[np.float64]:
    # (n,) of the answers, in nats.
    from vlmattn.capture import CaptureSpec, model_sites

    last = model_sites(vlm.model).attention[-1].layer_idx
    spec = CaptureSpec(rows="answer", layers=[last], reduce="mean", top_k=1)
    found: list[float] = []
    for first in range(0, len(examples), batch):
        part = examples[first : first + batch]
        runs = vlm.ask_many(
            [(image, question) for image, question, _ in part],
            answers=[answer for _, _, answer in part],
            capture=spec,
            steering=steering,
        )
        for run in runs:
            if run.trace.scores is None:
                raise SpecError("the model's logits were not seen, so the answer's probability is not known")
            found.append(float(np.sum(run.trace.scores.chosen_logp_t, dtype=np.float64)))
    return np.array(found)


def calibrate_dagcd(runs: Sequence[Run], *, heads: int = 10, alpha: float = 2.0) -> DAGCD:
    """DAGCD's heads and weights for a model, from answers that use words of their questions.

    Every written token is one case for each different token of the question: which share of its heads' attention to
    the question it has, and whether it is what was written. Each run is read once more.

    Args:
        runs: answers of one model. heads, alpha: of :func:`vlmattn.steering.fit_dagcd`.

    Raises:
        SpecError: runs of several models or none, layers that differ in heads, questions without tokens of their own,
            or answers that use no word of their questions.
    """
    from vlmattn.capture import model_sites
    from vlmattn.steering import fit_dagcd

    if not runs or len({id(run.vlm) for run in runs}) > 1:
        raise SpecError(f"DAGCD is fitted on runs of one model, got {len(runs)} of {len({id(r.vlm) for r in runs})}")
    parts = [_used_words(run) for run in runs]
    ratios = np.concatenate([ratio for ratio, _ in parts])
    used = np.concatenate([told for _, told in parts])
    if not np.isfinite(ratios).all():
        raise SpecError("layers of this model differ in heads: DAGCD is fitted where all have as many")
    layers = model_sites(runs[0].vlm.model).layers
    return fit_dagcd(ratios, used, layers, heads=heads, alpha=alpha)


def _used_words(run: Run) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(n, L, H) shares of attention, and (n,) whether the word was written."""
    from vlmattn.capture import CaptureSpec
    from vlmattn.core.layout import TokenKind
    from vlmattn.steering.dagcd import ratios_of

    layout = run.trace.layout
    ids = layout.input_ids[layout.answer_start :].tolist()
    asked = np.flatnonzero(layout.kinds == TokenKind.QUESTION)
    if not len(asked) or not ids or layout.memory:
        raise SpecError("DAGCD reads attention to the question's own tokens, and a run has no question or no answer")
    spec = CaptureSpec(rows="answer", columns="all", dtype="float32", top_k=0)
    trace = run.vlm.run(replace(run.request, answers=(ids,), capture=spec, steering=()))[0].trace
    at = np.searchsorted(trace.columns, asked)
    ratios, used = [], []
    for token in trace.answer_tokens:
        (row,) = trace.rows_of([token], "predicting")
        given = trace.attn_lhqk[:, :, row][..., at].astype(np.float64)  # (L, H, J)
        words, shares = ratios_of(given.reshape(-1, len(at)), layout.input_ids[asked])
        ratios.append(shares.T.reshape(len(words), *given.shape[:2]))
        used.append(words == int(trace.layout.input_ids[token]))
    return np.concatenate(ratios), np.concatenate(used)
