"""Logistic regression of few numbers on few cases."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_RIDGE, _ROUNDS = 1.0, 60


def logistic(
    x: NDArray[np.float64], y: NDArray[np.float64], *, ridge: float = _RIDGE
) -> tuple[float, NDArray[np.float64]]:
    """Bias and (F,) weights of ``y`` (n,), 0 or 1, on (n, F) numbers as they are, by Newton's method.

    The numbers are standardised for a ``ridge`` on their weights; the bias is not shrunk, but held off infinity where
    only one outcome occurs.
    """
    spread = np.where(x.std(axis=0) > 1e-12, x.std(axis=0), 1.0)
    centre = x.mean(axis=0)
    design = np.column_stack([np.ones(len(x)), (x - centre) / spread])
    shrunk = np.diag([1e-3, *([ridge] * x.shape[1])])
    found = np.zeros(design.shape[1])
    for _ in range(_ROUNDS):
        chance = 1 / (1 + np.exp(-np.clip(design @ found, -30, 30)))
        slope = design.T @ (y - chance) - shrunk @ found
        curve = (design * (chance * (1 - chance))[:, None]).T @ design + shrunk
        step = np.linalg.solve(curve, slope)
        found += step
        if np.abs(step).max() < 1e-10:
            break
    weights = found[1:] / spread
    return float(found[0] - weights @ centre), weights
