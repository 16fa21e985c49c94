"""How long modelled fixations last, and scanpaths made of places in order."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmattn.core.errors import SpecError
from vlmattn.gaze.fixations import Scanpath
from vlmattn.gaze.units import GazeWarning

Array = NDArray[np.float64]
Kind = Literal["constant", "weight", "drawn"]


@dataclass(frozen=True)
class Durations:
    """A model of fixation durations.

    A map says where, not how long, so durations of modelled scanpaths are an assumption, and this is it:

    * ``constant``: every fixation lasts ``seconds``;
    * ``weight``: ``seconds`` times the weight of the fixation over the mean weight, from ``shortest`` upwards. Weights
      are the map's values at the fixations, or how many words or tokens in a row looked at one place;
    * ``drawn``: log-normal with mean ``seconds`` and ``spread``, the deviation of the logarithm. On OSIE people's
      fixations have a mean of 0.214 s, and the logarithm's deviation is 0.56.

    Attributes:
        kind: as above. seconds, spread: as above. shortest: seconds. saccade: seconds from one fixation to the next.

    Raises:
        SpecError: another kind, or times that cannot be.

    Example:
        >>> Durations("weight", seconds=0.2).of(2, weights=[1.0, 3.0]).round(3).tolist()
        [0.1, 0.3]
    """

    kind: Kind = "constant"
    seconds: float = 0.214
    spread: float = 0.56
    shortest: float = 0.05
    saccade: float = 0.03

    def __post_init__(self) -> None:
        if self.kind not in ("constant", "weight", "drawn"):
            raise SpecError(f"durations must be 'constant', 'weight' or 'drawn', got {self.kind!r}")
        for name, least in (("seconds", 1e-6), ("shortest", 1e-6), ("spread", 0.0), ("saccade", 0.0)):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= least):
                raise SpecError(f"{name} of durations must be {'0' if least == 0 else 'above 0'} or more, got {value}")

    def of(self, count: int, *, weights: ArrayLike | None = None, rng: np.random.Generator | None = None) -> Array:
        """(count,) seconds.

        Args:
            weights: (count,), 0 or more, for ``weight``; all alike if None. rng: for ``drawn``; of seed 0 if None.

        Raises:
            SpecError: weights of another length, negative or not finite.
        """
        if self.kind == "drawn":
            generator = np.random.default_rng(0) if rng is None else rng
            middle = np.log(self.seconds) - self.spread**2 / 2
            return np.maximum(np.exp(generator.normal(middle, self.spread, count)), self.shortest)
        if self.kind == "constant" or weights is None:
            return np.full(count, self.seconds)
        held = np.asarray(weights, dtype=np.float64)
        if held.shape != (count,) or not np.isfinite(held).all() or (held < 0).any():
            raise SpecError(f"weights must be {count} finite numbers of 0 or more, got {weights!r}")
        mean = held.mean() if count else 0.0
        share = held / mean if mean > 0 else np.ones(count)
        return np.maximum(self.seconds * share, self.shortest)

    def starts(self, durations: Array) -> Array:
        """(n,) seconds at which fixations of these durations begin, the first at 0."""
        return np.concatenate([[0.0], np.cumsum(durations + self.saccade)[:-1]]) if len(durations) else np.zeros(0)


CONSTANT = Durations()
"""The same for every fixation: the mean of people's on OSIE."""


def timed(
    places_xy: ArrayLike,
    image_wh: tuple[int, int],
    durations: Durations,
    *,
    weights: ArrayLike | None = None,
    rng: np.random.Generator | None = None,
    **named: Any,
) -> Scanpath:
    """A scanpath of places in order, with times.

    Args:
        places_xy: (n, 2) pixels. weights, rng: as in :meth:`Durations.of`. named: other attributes of the scanpath.
    """
    points = np.asarray(places_xy, dtype=np.float64).reshape(-1, 2)
    seconds = durations.of(len(points), weights=weights, rng=rng)
    with warnings.catch_warnings():
        # Places near the corner are pixels here, whatever they look like.
        warnings.simplefilter("ignore", GazeWarning)
        return Scanpath(points[:, 0], points[:, 1], image_wh, durations.starts(seconds), seconds, **named)


def count_of(count: int) -> int:
    """A number of fixations. Raises SpecError below 1."""
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise SpecError(f"count must be a whole number of fixations of 1 or more, got {count!r}")
    return int(count)
