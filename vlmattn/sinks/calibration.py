"""Sink coordinates of any model, found on a few prompts and checked on others.

Trained models also have coordinates that are large in *every* token; those announce nothing. A sink coordinate is
large in few tokens, far above all others, in most layers from some layer on, in the same coordinate for one prompt
after the other, and its tokens draw more attention than the rest. Candidates come from the first prompts; the verdict
and its confidence come from the remaining ones alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.sinks.coordinates import SinkCoordinates
from vlmattn.sinks.massive import phi_of
from vlmattn.trace.trace import Hidden

_CANDIDATES, _MOST = 16, 4


@dataclass(frozen=True)
class Rules:
    """When a coordinate counts as a sink coordinate.

    Attributes:
        large: |x| / RMS over the root of the width from which a coordinate is large.
        few: share of a prompt's tokens that may be large in it, at least one token.
        gap: the smallest large |x| / RMS over the largest of all other tokens.
        layers: share of the layers, from the first with a large token on, in which it must hold.
        draw: attention that large tokens receive, over what others receive, on average.
        prompts: share of the held-out prompts in which all of this must hold.
        median: |x| over the median of the same token that all large ones must have. At a width of 4096 the two are
            about the same for a token that is normal otherwise; in narrow models, where |x| / RMS cannot grow, the
            median tells massive from merely large.
    """

    large: float = 0.2
    few: float = 0.1
    gap: float = 2.0
    layers: float = 0.5
    draw: float = 2.0
    prompts: float = 0.8
    median: float = 20.0

    def __post_init__(self) -> None:
        for name in ("large", "few", "layers", "prompts"):
            if not isinstance(getattr(self, name), Real) or not 0 < getattr(self, name) <= 1:
                raise SpecError(f"{name} must be above 0 and at most 1, got {getattr(self, name)!r}")
        for name in ("gap", "draw", "median"):
            if not isinstance(getattr(self, name), Real) or not getattr(self, name) >= 1:
                raise SpecError(f"{name} must be at least 1, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Observation:
    """What one prompt shows.

    Attributes:
        hidden: its residual stream. first: its first token that has one.
        received_ln: (L, N) attention that each token receives from the rows that were kept, mean over heads, on the
            layers of ``hidden``; NaN for tokens that none of them sees, None where that is not known.
    """

    hidden: Hidden
    first: int = 0
    received_ln: NDArray[np.float32] | None = None


class _Verdict(NamedTuple):
    holds: bool
    first_layer: int
    draw: float
    flagged_ln: NDArray[np.bool_]


def candidates(observations: Sequence[Observation], rules: Rules | None = None) -> tuple[int, ...]:
    """Coordinates that are large in few tokens in at least half of the prompts, commonest first; at most sixteen.

    Args:
        observations: with their largest coordinates (``CaptureSpec.hidden_top``).
    """
    rules = rules or Rules()
    votes: Counter[int] = Counter()
    for one in observations:
        votes.update(_sparse(one, rules))
    return tuple(c for c, count in votes.most_common() if count * 2 >= len(observations))[:_CANDIDATES]


def _sparse(one: Observation, rules: Rules) -> set[int]:
    hidden = one.hidden
    if hidden.top_coord_lnk is None or hidden.top_value_lnk is None:
        raise SpecError("candidates need each token's largest coordinates: capture with hidden_top")
    tokens = slice(one.first, None)
    coords = hidden.top_coord_lnk[:, tokens]
    size = np.abs(hidden.top_value_lnk[:, tokens])
    large = size > rules.large * math.sqrt(hidden.width) * _rms(hidden, tokens)
    massive = np.ones_like(large)
    if hidden.median_ln is not None:
        massive = size >= rules.median * hidden.median_ln[:, tokens, None]
    most = max(1, int(rules.few * coords.shape[1]))
    lines: dict[int, list[int]] = {}
    for line in range(len(coords)):
        merely = {int(c) for c in coords[line][large[line] & ~massive[line]]}
        for coordinate, count in Counter(int(c) for c in coords[line][large[line]]).items():
            if count <= most and coordinate not in merely:
                lines.setdefault(coordinate, []).append(line)
    return {c for c, where in lines.items() if len(where) >= rules.layers * (len(coords) - where[0])}


def _rms(hidden: Hidden, tokens: slice) -> NDArray[np.float32]:
    return np.maximum(hidden.rms_ln[:, tokens, None], np.finfo(np.float32).tiny)


def calibrated(
    observations: Sequence[Observation], wanted: Sequence[int], *, model: str = "", rules: Rules | None = None
) -> SinkCoordinates:
    """The sink coordinates among ``wanted`` that hold on these prompts, or none, with a confidence either way.

    Args:
        observations: of prompts that candidates were not taken from, with ``hidden_coords`` set to ``wanted``, and with
            ``hidden_top``, without which the median is not known and is not asked for.

    Raises:
        SpecError: no prompt.
    """
    rules = rules or Rules()
    if not observations:
        raise SpecError("a calibration needs at least one held-out prompt")
    width, count = observations[0].hidden.width, len(observations)
    verdicts = {c: [_verdict(one, c, rules) for one in observations] for c in wanted}
    agreeing = {c: sum(v.holds for v in found) for c, found in verdicts.items()}
    ordered = sorted(wanted, key=lambda c: -agreeing[c])
    accepted = tuple(c for c in ordered if agreeing[c] >= rules.prompts * count)[:_MOST]
    source = f"calibrated on {count} held-out prompts"
    notes = tuple(_told(c, verdicts[c], count) for c in ordered[:_MOST])
    if not accepted:
        against = count - max(agreeing.values(), default=0)
        told = notes or ("no coordinate was large in few tokens",)
        return SinkCoordinates(
            (), width, source=source, model=model, confidence=wilson_low(against, count), notes=told
        )  # fmt: skip
    first = min(v.first_layer for c in accepted for v in verdicts[c] if v.holds)
    return SinkCoordinates(
        accepted,
        width,
        tau_relative=_split(observations, accepted, verdicts, width),
        first_layer=first,
        source=source,
        model=model,
        confidence=wilson_low(min(agreeing[c] for c in accepted), count),
        notes=notes,
    )


def _verdict(one: Observation, coordinate: int, rules: Rules) -> _Verdict:
    hidden = one.hidden
    size = phi_of(hidden, [coordinate])
    size[:, : one.first] = 0
    cut, most = rules.large * math.sqrt(hidden.width), max(1, int(rules.few * (size.shape[1] - one.first)))
    flagged = np.asarray(size > cut)
    counts = flagged.sum(axis=1)
    low = np.where(flagged, size, np.inf).min(axis=1)
    rest = np.where(flagged, 0, size).max(axis=1)
    good = np.asarray((counts > 0) & (counts <= most) & (low >= rules.gap * rest))
    if hidden.median_ln is not None:
        value = np.abs(hidden.coord_lnc[..., hidden.coords.index(coordinate)])
        good &= ~(flagged & (value < rules.median * hidden.median_ln)).any(axis=1)
    if not good.any():
        return _Verdict(False, -1, math.nan, flagged)
    start = int(good.argmax())
    draw = _draw(one, flagged & good[:, None])
    refuted = draw < rules.draw  # what is not known, NaN, refutes nothing
    holds = good[start:].mean() >= rules.layers and not refuted
    return _Verdict(bool(holds), hidden.layers[start], draw, flagged & good[:, None])


def _draw(one: Observation, flagged: NDArray[np.bool_]) -> float:
    # NaN where nothing is known of the attention that these tokens receive.
    if one.received_ln is None:
        return math.nan
    known = np.isfinite(one.received_ln) & (np.arange(flagged.shape[1]) >= one.first)
    lines = np.asarray(flagged.any(axis=1))
    ours, others = flagged & known, ~flagged & known & lines[:, None]
    if not ours.any() or not others.any():
        return math.nan
    return float(one.received_ln[ours].mean() / max(float(one.received_ln[others].mean()), 1e-12))


def _split(
    observations: Sequence[Observation], accepted: Sequence[int], verdicts: dict[int, list[_Verdict]], width: int
) -> float:
    # Half way, in the logarithm, between the weakest sink and the strongest other token; a constant vector has phi 1.
    low, high = math.inf, 1.0
    for index, one in enumerate(observations):
        flagged = np.any([verdicts[c][index].flagged_ln for c in accepted], axis=0)
        size = phi_of(one.hidden, accepted)[:, one.first :]
        marked = flagged[:, one.first :]
        low = min(low, float(size[marked].min(initial=math.inf)))
        high = max(high, float(size[~marked & marked.any(axis=1)[:, None]].max(initial=1.0)))
    return max(math.sqrt(low * min(high, low)), 1.0) / math.sqrt(width)


def _told(coordinate: int, found: Sequence[_Verdict], count: int) -> str:
    holding = sum(v.holds for v in found)
    draws = [v.draw for v in found if math.isfinite(v.draw)]
    if not draws:
        large = any(v.first_layer >= 0 for v in found)
        attention = ", attention not known" if large else ", not large in few tokens"
    else:
        attention = f", its tokens receive {np.median(draws):.3g} times what others do"
    return f"coordinate {coordinate}: holds in {holding} of {count} prompts{attention}"


def wilson_low(hits: int, count: int, z: float = 1.96) -> float:
    """The lower end of the Wilson score interval of a share; 0 for no hits (Wilson, JASA 1927).

    Example:
        >>> round(wilson_low(8, 8), 3)
        0.676
    """
    share = hits / count
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, (middle - spread) / (1 + z * z / count))
