"""Vision-aware head divergence: how much a head's output changes when the picture is taken away.

He et al., "Cracking the Code of Hallucination in LVLMs with Vision-aware Head Divergence", ACL 2025, arXiv 2412.13949:
VHD = ||o(picture, text, answer so far) - o(text, answer so far)||, o the head's output A·V at the current last
position, before W_O; the second pass has no image tokens at all, so the text tokens are the same and their positions
are counted anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError

T_VHD_HEADS = 4
"""Heads per layer that T-VHD sums by default. The paper does not state its number: this one is ours."""


def head_divergence(with_lhd: NDArray[Any], without_lhd: NDArray[Any]) -> NDArray[np.float64]:
    """(…) VHD: Euclidean distance of head outputs (…, D) with and without the picture; 0 or more, higher is more.

    Raises:
        SpecError: other shapes.

    Example:
        >>> import numpy as np
        >>> head_divergence(np.array([[3.0, 4.0]]), np.zeros((1, 2))).tolist()
        [5.0]
    """
    first, second = np.asarray(with_lhd, dtype=np.float64), np.asarray(without_lhd, dtype=np.float64)
    if first.shape != second.shape or first.ndim < 1:
        raise SpecError(f"head outputs must have one shape (…, D), got {first.shape} and {second.shape}")
    return np.linalg.norm(first - second, axis=-1)


def without_outliers(vhd_lh: NDArray[Any], energy_lh: NDArray[Any]) -> NDArray[np.float64]:
    """(L, H) VHD with the paper's outliers set to 0: above the layer's mean + standard deviation of VHD, and of the
    energy as well. Such heads change because activation goes down, not because they see.

    Args:
        energy_lh: ||o(text only)||^2 of each head.

    The standard deviation is that of all H heads (divisor H). NaN heads (that are not there) stay NaN.

    Raises:
        SpecError: other shapes.

    Example:
        >>> import numpy as np
        >>> without_outliers(np.array([[1.0, 1, 1, 9]]), np.array([[1.0, 1, 1, 9]])).tolist()
        [[1.0, 1.0, 1.0, 0.0]]
    """
    vhd, energy = np.asarray(vhd_lh, dtype=np.float64), np.asarray(energy_lh, dtype=np.float64)
    if vhd.ndim != 2 or energy.shape != vhd.shape:
        raise SpecError(f"VHD and energy must have one shape (L, H), got {vhd.shape} and {energy.shape}")
    return np.where(_high(vhd) & _high(energy), 0.0, vhd)


def _high(values_lh: NDArray[np.float64]) -> NDArray[np.bool_]:
    known = np.isfinite(values_lh)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    mean = np.where(known, values_lh, 0).sum(axis=1, keepdims=True) / count
    spread = np.sqrt(np.where(known, (values_lh - mean) ** 2, 0).sum(axis=1, keepdims=True) / count)
    return known & (np.where(known, values_lh, 0) > mean + spread)


def token_divergence(vhd_lh: NDArray[Any], *, k: int = T_VHD_HEADS) -> float:
    """T-VHD: the ``k`` highest VHD of each layer, summed over layers; lower for words that the picture did not drive.

    Raises:
        SpecError: k below 1, or another shape.
    """
    values = np.asarray(vhd_lh, dtype=np.float64)
    if values.ndim != 2 or k < 1:
        raise SpecError(f"T-VHD needs (L, H) values and k >= 1, got shape {values.shape} and k={k}")
    return float(np.sort(np.nan_to_num(values), axis=1)[:, -min(k, values.shape[1]) :].sum())


def vision_aware(vhd_lh: NDArray[Any]) -> NDArray[np.bool_]:
    """(L, H) the heads above the median of their layer, which the paper's reinforcement (VHR) scales."""
    values = np.asarray(vhd_lh, dtype=np.float64)
    if values.ndim != 2:
        raise SpecError(f"VHD must have shape (L, H), got {values.shape}")
    known = np.isfinite(values)
    middle = [np.median(line[here]) if here.any() else np.inf for line, here in zip(values, known, strict=True)]
    return known & (np.nan_to_num(values) > np.array(middle)[:, None])
