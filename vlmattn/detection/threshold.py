"""The risk from which on a word is called made up, chosen so that words of things that are there are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vlmattn.core.errors import SpecError
from vlmattn.detection.calibration import check_both

RECALL: dict[str, float] = {"recall": 0.0, "recall-0.005": 0.005}
"""Named thresholds: the share of words of things that are there that each may cost, on the words it was chosen on."""

_NEVER = float(np.nextafter(1.0, 2.0))


@dataclass(frozen=True)
class Threshold:
    """A risk, and what calling everything from it on made up did on the words it was chosen on.

    Attributes:
        value: the risk, above 0; just above 1 where nothing may be called made up. lost: share of words of things that
            are there that reach it. caught: of words that are made up. words: how many there were.

    Raises:
        SpecError: a value that is none of these.
    """

    value: float
    lost: float
    caught: float
    words: int

    def __post_init__(self) -> None:
        if not 0 < self.value <= _NEVER:
            raise SpecError(f"a threshold must be above 0, and just above 1 at most, got {self.value}")

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Threshold:
        """From what ``dataclasses.asdict`` made."""
        return cls(float(told["value"]), float(told["lost"]), float(told["caught"]), int(told["words"]))


def threshold_for_recall(risk: ArrayLike, hallucinated: Sequence[bool], *, lost: float = 0.0) -> Threshold:
    """The lowest threshold that at most a share ``lost`` of the words of things that are there reaches.

    It lies halfway between the last word that must be kept and the next risk above it. Words without a risk (NaN) are
    kept whatever they are.

    Args:
        risk: (n,) of words that nothing was fitted on. hallucinated: (n,) the truth. lost: from 0 to below 1.

    Raises:
        SpecError: lengths that differ, one outcome only, risks outside 0 to 1, or a share that cannot be.

    Example:
        >>> found = threshold_for_recall([0.1, 0.3, 0.7, 0.9], [False, False, True, True])
        >>> found.value, found.lost, found.caught
        (0.5, 0.0, 1.0)
    """
    r, y = np.asarray(risk, dtype=np.float64), np.asarray(hallucinated, dtype=np.bool_)
    if r.shape != y.shape or r.ndim != 1 or not len(r):
        raise SpecError(f"give one risk for every outcome, got the shapes {r.shape} and {y.shape}")
    if not 0 <= lost < 1:
        raise SpecError(f"lost must be a share from 0 to below 1, got {lost}")
    known = np.isfinite(r)
    if ((r[known] < 0) | (r[known] > 1)).any():
        raise SpecError("risks are chances from 0 to 1: give calibrated ones")
    check_both(y.astype(np.float64))
    true = np.sort(r[known & ~y])[::-1]
    may = int(np.floor(lost * (~y).sum() + 1e-9))
    last = float(true[may]) if may < len(true) else 0.0
    above = r[known & (r > last)]
    value = (last + (float(above.min()) if len(above) else 1.0)) / 2
    value = float(np.clip(value, np.nextafter(last, 2.0), _NEVER))
    flagged = known & (r >= value)
    return Threshold(value, float((flagged & ~y).sum() / (~y).sum()), float((flagged & y).sum() / y.sum()), len(r))
