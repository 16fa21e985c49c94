"""Massive activations, by token, layer and coordinate, and the phi of the visual attention sink paper.

phi(x) = max over sink coordinates k of |x_k| / RMS(x), with RMS(x) = sqrt(mean x² + 1e-6) over all coordinates, of the
residual stream at the input of a layer, no learned gain (Kang et al., "See What You Are Told: Visual Attention Sink in
Large Multimodal Models", ICLR 2025). Since RMS takes x_k in as well, phi is at most the root of the width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.sinks.coordinates import SinkCoordinates
from vlmattn.trace.trace import Hidden

EPSILON = 1e-6


class MassiveActivation(NamedTuple):
    """One coordinate of one token at the input of one layer; ``times_median`` of the |x| of that token."""

    layer: int
    position: int
    coordinate: int
    value: float
    times_median: float


def massive_activations(
    hidden: Hidden, *, absolute: float = 100.0, times_median: float = 1000.0
) -> tuple[MassiveActivation, ...]:
    """Activations above ``absolute`` and ``times_median``: Sun et al., "Massive Activations in LLMs", COLM 2024.

    Both thresholds belong to models of billions of parameters; small ones need lower ones. The median is that of the
    token's own state.

    Args:
        hidden: of a capture with ``hidden_top``, which bounds how many coordinates of a token can be found.

    Raises:
        MapError: the largest coordinates were not kept.
    """
    if hidden.top_coord_lnk is None or hidden.top_value_lnk is None or hidden.median_ln is None:
        raise MapError("the largest coordinates were not kept: capture with CaptureSpec(hidden=True, hidden_top=4)")
    size = np.abs(hidden.top_value_lnk)
    ratio = size / np.maximum(hidden.median_ln[..., None], np.finfo(np.float32).tiny)
    found = np.argwhere((size > absolute) & (ratio >= times_median))
    return tuple(
        MassiveActivation(
            hidden.layers[line], int(token), int(hidden.top_coord_lnk[line, token, place]),
            float(hidden.top_value_lnk[line, token, place]), float(ratio[line, token, place]),
        )
        for line, token, place in found
    )  # fmt: skip


def phi_of(hidden: Hidden, coordinates: Sequence[int]) -> NDArray[np.float32]:
    """(L, N) phi of every prompt token at the input of every kept layer; NaN for keys beside the tokens.

    Raises:
        MapError: a coordinate was not kept.
    """
    missing = [c for c in coordinates if c not in hidden.coords]
    if missing or not len(coordinates):
        raise MapError(
            f"the residual stream was not kept at coordinates {missing or '(none given)'}: capture with "
            f"CaptureSpec(hidden=True, hidden_coords={tuple(coordinates)})"
        )
    slots = [hidden.coords.index(c) for c in coordinates]
    largest = np.abs(hidden.coord_lnc[..., slots]).max(axis=-1)
    return np.asarray(largest / np.sqrt(hidden.rms_ln.astype(np.float64) ** 2 + EPSILON), dtype=np.float32)


def threshold(where: SinkCoordinates, tau: float | None = None, tau_relative: float | None = None) -> float:
    """The threshold on phi: ``tau`` itself, or ``tau_relative`` times the root of the width, or that of ``where``.

    Raises:
        SpecError: both, one that is not above 0, or one that phi can never reach.

    Example:
        >>> threshold(SinkCoordinates((3,), width=64), tau_relative=0.5)
        4.0
    """
    if tau is not None and tau_relative is not None:
        raise SpecError("give tau (absolute) or tau_relative (of the root of the width), not both")
    most = math.sqrt(where.width)
    for name, value in (("tau", tau), ("tau_relative", tau_relative)):
        if value is not None and not isinstance(value, Real):
            raise SpecError(f"{name} must be a number, got {value!r}")
    cut = where.tau if tau is None and tau_relative is None else tau if tau is not None else (tau_relative or 0) * most
    if not 0 < cut < most:
        raise SpecError(
            f"phi is at most the root of the width, {most:.3g} here, so a threshold of {cut!r} can never be the limit: "
            "give tau between 0 and that, or tau_relative between 0 and 1"
        )
    return float(cut)
