"""From a score to the risk that a word is made up, by a rule that says where it was fitted.

Platt, "Probabilistic Outputs for Support Vector Machines", 1999: risk = 1 / (1 + exp(-(slope · score + bias))).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.files import as_path, write_json
from vlmattn.core.logistic import logistic

_RIDGE = 1e-3


@dataclass(frozen=True)
class Calibration:
    """A score and what it means.

    Attributes:
        score: name of the score. slope, bias: of the rule. source: what it was fitted on; told with every risk.

    Raises:
        SpecError: numbers that are not finite.
    """

    score: str
    slope: float
    bias: float
    source: str

    def __post_init__(self) -> None:
        if not (np.isfinite(self.slope) and np.isfinite(self.bias)):
            raise SpecError(f"slope and bias of a calibration must be finite, got {self.slope} and {self.bias}")

    def risk(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Chances that words with these scores are made up, 0 to 1; NaN for NaN.

        Example:
            >>> Calibration("nll", 1.0, 0.0, "by hand").risk([0.0]).tolist()
            [0.5]
        """
        found = self.bias + self.slope * np.asarray(scores, dtype=np.float64)
        return np.asarray(1 / (1 + np.exp(-np.clip(found, -50, 50))))

    @property
    def told(self) -> str:
        """The calibration in words."""
        return f"Platt scaling of {self.score}, {self.source}"

    def save(self, path: str | Path) -> Path:
        """Write it as JSON."""
        return write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """A calibration that :meth:`save` wrote.

        Raises:
            FileError: not such a file.
        """
        try:
            held = json.loads(as_path(path).read_text(encoding="utf-8"))
            return cls(str(held["score"]), float(held["slope"]), float(held["bias"]), str(held["source"]))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise FileError(f"{path} holds no calibration ({error}): write one with fit_calibration(…).save") from error


def fit_calibration(score: str, values: ArrayLike, hallucinated: Sequence[bool], *, source: str) -> Calibration:
    """The rule that best turns a score into the chance that a word is made up.

    Args:
        score: its name. values: (n,) higher for more likely made up. source: told with every risk.

    Raises:
        SpecError: lengths that differ, values that are not finite, or only one outcome.
    """
    x, y = np.asarray(values, dtype=np.float64), np.asarray(hallucinated, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1 or not len(x):
        raise SpecError(f"give one score for every outcome, got the shapes {x.shape} and {y.shape}")
    if not np.isfinite(x).all():
        raise SpecError(f"{int((~np.isfinite(x)).sum())} values of {score} are not defined: leave those words out")
    check_both(y)
    bias, weights = logistic(x[:, None], y, ridge=_RIDGE)
    return Calibration(score, float(weights[0]), bias, source)


def check_both(outcomes: NDArray[np.float64]) -> None:
    """Raises SpecError where all words are there, or all made up."""
    if outcomes.min() == outcomes.max():
        raise SpecError("all words have one outcome, so nothing can be told apart: give made up ones and others")
