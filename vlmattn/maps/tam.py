"""Token Activation Map: where the last states speak for a token, less what they say for the tokens before it.

Li et al., "Token Activation Map to Visually Explain Multimodal LLMs", ICCV 2025 (arXiv 2506.23270). With z_i[c] the
logit of class c at position i, from the states behind the final norm: the activation is a_i = max(0, z_i[c]). What
earlier text tokens k activate is taken away by *estimated causal inference*: I = Σ_k w_k · map_k with w_k the
activation of c at k over the sum of all of these, a_V ← max(0, a_V − s·I), s the least-squares scale. Then image and
text are scaled together, and a *rank Gaussian filter* smooths each grid. No attention is read.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmattn.core.errors import MapError, SpecError

_TINY = 1e-8


def activations(logits: ArrayLike) -> NDArray[np.float64]:
    """max(0, logit), any shape.

    >>> activations([-1.0, 2.0]).tolist()
    [0.0, 2.0]
    """
    return np.maximum(np.asarray(logits, dtype=np.float64), 0.0)


def interference(text: ArrayLike, maps_kn: ArrayLike) -> NDArray[np.float64]:
    """(N,) what earlier tokens activate in the picture, weighted with how far they activate the explained class.

    Args:
        text: (K,) activations of the explained class at the earlier tokens. maps_kn: (K, N) activations of each earlier
            token's own class in the picture, nothing taken away from them.

    >>> interference([1.0, 3.0], [[4.0, 0.0], [0.0, 4.0]]).round(6).tolist()
    [1.0, 3.0]
    """
    weights, maps = np.asarray(text, dtype=np.float64), np.asarray(maps_kn, dtype=np.float64)
    if weights.ndim != 1 or maps.ndim != 2 or len(weights) != len(maps):
        raise MapError(f"text must be (K,) and maps_kn (K, N), got {weights.shape} and {maps.shape}")
    return np.asarray(weights / (weights.sum() + _TINY) @ maps)


def least_squares_scale(image: ArrayLike, against: ArrayLike) -> float:
    """The s that makes ‖image − s·against‖² smallest; 0 where ``against`` is 0 everywhere.

    >>> least_squares_scale([2.0, 4.0], [1.0, 2.0])
    2.0
    """
    a, b = np.asarray(image, dtype=np.float64).ravel(), np.asarray(against, dtype=np.float64).ravel()
    power = float(b @ b)
    return float(a @ b) / power if power > 0 else 0.0


def without_interference(image: ArrayLike, against: ArrayLike) -> NDArray[np.float64]:
    """(N,) max(0, image − s·against) with the least-squares s.

    >>> without_interference([2.0, 4.0, 3.0], [1.0, 2.0, 0.0]).tolist()
    [0.0, 0.0, 3.0]
    """
    a, b = np.asarray(image, dtype=np.float64), np.asarray(against, dtype=np.float64)
    return np.maximum(a - least_squares_scale(a, b) * b, 0.0)


def joint_minmax(image: ArrayLike, text: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Image and text activations, scaled together: 0 is the lowest of both, 1 the highest; all 0 where they are equal.

    >>> [part.tolist() for part in joint_minmax([1.0, 3.0], [5.0])]
    [[0.0, 0.5], [1.0]]
    """
    a, b = np.asarray(image, dtype=np.float64), np.asarray(text, dtype=np.float64)
    both = np.concatenate([a.ravel(), b.ravel()])
    low, spread = float(both.min()), float(np.ptp(both))
    if spread <= 0:
        return np.zeros_like(a), np.zeros_like(b)
    return (a - low) / spread, (b - low) / spread


def rank_gaussian(grid: ArrayLike, size: int = 3) -> NDArray[np.float64]:
    """A grid smoothed by rank: in every window the middle values count most, the more so the less they differ.

    The size² values of a window (reflected at the edges) are sorted; the i-th has weight exp(−(i − m)² / 2σ²) around
    the middle rank m, with σ their standard deviation over their mean. A window of mean 0 gives 0, one of equal values
    that value (σ = 0: the median alone).

    Args:
        grid: (rows, cols), 0 or more. size: odd.

    Raises:
        SpecError: ``size`` is even or below 1. MapError: a negative value, or no grid.

    >>> rank_gaussian([[1.0, 1.0], [1.0, 1.0]]).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    values = np.asarray(grid, dtype=np.float64)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1 or not size % 2:
        raise SpecError(f"the window of the rank Gaussian filter must be an odd whole number, got {size!r}")
    if values.ndim != 2 or not values.size or not (values >= 0).all():
        raise MapError(f"a grid (rows, cols) of values 0 or more is needed, got shape {values.shape}")
    half, count = size // 2, size * size
    padded = np.pad(values, half, mode="symmetric" if min(values.shape) <= half else "reflect")
    ranked = np.sort(np.lib.stride_tricks.sliding_window_view(padded, (size, size)).reshape(*values.shape, count), -1)
    mean = ranked.mean(axis=-1)
    sigma = np.divide(ranked.std(axis=-1), mean, out=np.zeros_like(mean), where=mean > 0)[..., None]
    squared = (np.arange(count) - count // 2) ** 2.0
    # The middle's exponent is 0 whatever σ, so the weights never vanish; a σ of 0 leaves the median alone.
    alone = np.where(squared > 0, np.inf, 0.0) + 0 * sigma
    exponent = np.divide(squared, 2 * sigma**2, out=alone, where=sigma > 1e-150)
    weights = np.exp(-exponent)
    made = (ranked * weights).sum(axis=-1) / weights.sum(axis=-1)
    return np.where(mean > 0, made, 0.0)
