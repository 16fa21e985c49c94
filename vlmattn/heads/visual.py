"""Visual heads: much attention on the picture, on few patches (after Bi et al., CVPR 2025, arXiv 2412.18108).

The paper combines the mass of a head on image tokens with its concentration on few of them; how it joins the two is not
stated in a form that can be checked. What is here is a *proxy*: mass times one minus the normalised entropy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError


def image_mass(attn: NDArray[Any]) -> NDArray[np.float64]:
    """(…) attention on a picture, of (…, K) attention on its K patches: 0 to 1, higher is more.

    Raises:
        SpecError: no patch, or attention below 0.
    """
    return _checked(attn).sum(axis=-1)


def normalised_entropy(attn: NDArray[Any]) -> NDArray[np.float64]:
    """(…) entropy of (…, K) attention scaled to sum to one, over ln K: 0 for one patch, 1 for an even look.

    NaN where nothing falls on the picture; 0 where there is one patch.

    Example:
        >>> import numpy as np
        >>> normalised_entropy(np.array([[0.25, 0.25], [0.5, 0.0]])).tolist()
        [1.0, 0.0]
    """
    values = _checked(attn)
    total = values.sum(axis=-1, keepdims=True)
    share = np.divide(values, total, out=np.full_like(values, np.nan), where=total > 0)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    entropy = 0.0 - (share * logs).sum(axis=-1)
    return entropy / np.log(values.shape[-1]) if values.shape[-1] > 1 else entropy


def visual_head_score(attn: NDArray[Any]) -> NDArray[np.float64]:
    """(…) mass on the picture times (1 - normalised entropy), of (…, K) attention: 0 to 1, higher is more visual.

    A proxy of the score of arXiv 2412.18108, see the module. 0 where nothing falls on the picture.

    Example:
        >>> import numpy as np
        >>> visual_head_score(np.array([0.5, 0.0, 0.0, 0.0])).item()
        0.5
    """
    return image_mass(attn) * (1 - np.nan_to_num(normalised_entropy(attn), nan=1.0))


def _checked(attn: NDArray[Any]) -> NDArray[np.float64]:
    values = np.asarray(attn, dtype=np.float64)
    if values.ndim < 1 or values.shape[-1] < 1 or (values < 0).any():
        raise SpecError(f"attention must be (…, K >= 1) and not below 0, got shape {values.shape}")
    return values
