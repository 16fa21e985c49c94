"""What the model's own next-token distribution says of a token: the scores that every other one must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError
from vlmattn.trace import TokenScores, Trace


def negative_log_likelihood(trace: Trace, tokens: Sequence[int]) -> NDArray[np.float64]:
    """(T,) -ln P(token), 0 or more; higher for words made up.

    Raises:
        MapError: next-token candidates were not kept, or a token's probability is not known.
    """
    found = -_scores(trace).chosen_logp_t[_steps(trace, tokens)].astype(np.float64)
    return _finite(found, "the probability of a token is not known")


def token_entropy(trace: Trace, tokens: Sequence[int]) -> NDArray[np.float64]:
    """(T,) entropy of the next-token distribution where each token was written, in nats.

    Raises:
        MapError: next-token candidates were not kept.
    """
    return _finite(_scores(trace).entropy_t[_steps(trace, tokens)].astype(np.float64), "the entropy is not known")


def logit_margin(trace: Trace, tokens: Sequence[int]) -> NDArray[np.float64]:
    """(T,) logit of the likeliest token less that of the second, 0 or more; lower for words made up.

    Raises:
        MapError: fewer than two candidates were kept.
    """
    top = _scores(trace).top_logp_tk
    if top.shape[1] < 2:
        raise MapError("a margin needs two next-token candidates: capture with top_k=2 or more")
    steps = _steps(trace, tokens)
    return _finite((top[steps, 0] - top[steps, 1]).astype(np.float64), "the candidates are not known")


def unused_and_unsure(trace: Trace, tokens: Sequence[int], vocabulary: int) -> NDArray[np.float64]:
    """(T,) Ĥ (1 - U): normalised entropy Ĥ = H / ln |vocabulary| times what is not utilised of the picture, U the
    attention on pictures over that on pictures and answer so far, mean over layers and heads; 0 to 1.

    After DAGCD (ACL 2025 Findings), which multiplies utilisation of context tokens with uncertainty to guide decoding.
    There utilisation is of single heads that a probe chose; here it is of all, which is ours.

    Raises:
        MapError: as :func:`token_entropy`.
    """
    return token_entropy(trace, tokens) / np.log(max(vocabulary, 2)) * (1 - utilisation(trace, tokens))


def utilisation(trace: Trace, tokens: Sequence[int]) -> NDArray[np.float64]:
    """(T,) attention on pictures over that on pictures and answer so far, mean over layers and heads; 1 for the first
    token."""
    from vlmattn.detection.attention import visual_attention_ratio

    seen = visual_attention_ratio(trace, tokens)
    rows = trace.rows_of(tokens, "predicting")
    text = trace.mass("answer")[trace.layer_slots(trace.seeing)][:, :, rows].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(seen + text > 0, seen / (seen + text), np.nan)
    return np.asarray(np.nanmean(shares, axis=(0, 1)))


def _scores(trace: Trace) -> TokenScores:
    if trace.scores is None:
        raise MapError("next-token candidates were not kept: capture with top_k=2 or more")
    return trace.scores


def _steps(trace: Trace, tokens: Sequence[int]) -> list[int]:
    start, known = trace.layout.answer_start, len(_scores(trace).entropy_t)
    steps = [t - start for t in tokens]
    wrong = [t for t, step in zip(tokens, steps, strict=True) if not 0 <= step < known]
    if wrong:
        raise MapError(f"tokens {wrong[:8]} are none of the answer's, or their step was not kept: ask for answer words")
    return steps


def _finite(values: NDArray[np.float64], what: str) -> NDArray[np.float64]:
    if not np.isfinite(values).all():
        raise MapError(f"{what}: keep candidates (top_k=2 or more)")
    return values
