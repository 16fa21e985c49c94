"""How much the answer depends on a head: by its gradient, and by taking the head out.

Gradient: Michel et al., "Are Sixteen Heads Really Better than One?", NeurIPS 2019, arXiv 1905.10650, eq. 5:
|o · dL/do|, o the head's output over all positions, the first-order effect of scaling it to nothing. Ablation: the drop
of the answer's log-probability when the output is set to zero, or to its mean over samples, before W_O
(:class:`vlmattn.steering.ReplaceHeads`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError


def gradient_importance(output_qhd: NDArray[Any], slope_qhd: NDArray[Any]) -> NDArray[np.float64]:
    """(H,) \\|sum over rows and units of output times gradient\\|: 0 or more, higher is more important.

    Args:
        output_qhd: (Q, H, D) head outputs before W_O. slope_qhd: gradient of the answer's log-probability by them.

    Raises:
        SpecError: other shapes.
    """
    output, slope = np.asarray(output_qhd, dtype=np.float64), np.asarray(slope_qhd, dtype=np.float64)
    if output.shape != slope.shape or output.ndim != 3:
        raise SpecError(f"outputs and gradients must have one shape (Q, H, D), got {output.shape} and {slope.shape}")
    return np.abs((output * slope).sum(axis=(0, 2)))
