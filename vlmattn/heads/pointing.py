"""Which heads look at the thing that was asked about, chosen by ground-truth boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError

Head = tuple[int, int]


class Looked(NamedTuple):
    """One question: attention (L, H, K) of its first answer token, patches that its boxes touch (K,), and its kind."""

    attn_lhk: NDArray[Any]
    touched_k: NDArray[np.bool_]
    kind: str = ""


def pointing_hits(attn_lhk: NDArray[Any], touched_k: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(L, H) whether the patch with the highest attention touches a box; the first of equal ones counts.

    A head that gives the picture nothing points nowhere.

    Raises:
        SpecError: shapes that do not belong together.
    """
    values = np.nan_to_num(np.asarray(attn_lhk, dtype=np.float64))
    if values.ndim != 3 or touched_k.shape != values.shape[2:]:
        raise SpecError(f"attention must be (L, H, K) and patches (K,), got {values.shape} and {touched_k.shape}")
    return np.asarray(touched_k[values.argmax(axis=-1)] & (values.max(axis=-1) > 0))


def pointing(found: Sequence[Looked], heads: Sequence[Head] | None = None) -> dict[str, float]:
    """Share of questions of each kind whose highest patch touches a box: 0 to 1, higher is better.

    Args:
        heads: (line, head) whose attention is summed; None for all heads of all layers.

    Raises:
        SpecError: no question, or no head.

    Example:
        >>> import numpy as np
        >>> one = Looked(np.array([[[0.1, 0.4], [0.3, 0.0]]]), np.array([False, True]))
        >>> pointing([one], [(0, 0)]), pointing([one], [(0, 1)])
        ({'': 1.0}, {'': 0.0})
    """
    if not found or (heads is not None and not len(heads)):
        raise SpecError("pointing needs at least one question with a box, and at least one head")
    hits: dict[str, list[bool]] = {}
    for look in found:
        values = np.nan_to_num(np.asarray(look.attn_lhk, dtype=np.float64))
        summed = values.sum(axis=(0, 1)) if heads is None else np.sum([values[pair] for pair in heads], axis=0)
        hits.setdefault(look.kind, []).append(bool(look.touched_k[int(np.argmax(summed))] and summed.max() > 0))
    return {kind: float(np.mean(values)) for kind, values in hits.items()}


def choose_by_pointing(found: Sequence[Looked], most: int = 3) -> tuple[Head, ...]:
    """The set of at most ``most`` heads that points best: each next head is the one that raises mean pointing over
    kinds most, until none does. Heads are (line, head); among equals the first is taken.

    Raises:
        SpecError: no question, or ``most`` below 1.
    """
    if not found or most < 1:
        raise SpecError(f"choosing heads needs at least one question with a box and most >= 1, got most={most}")
    layers, heads = np.shape(found[0].attn_lhk)[:2]
    left = [(layer, head) for layer in range(layers) for head in range(heads)]
    chosen: list[Head] = []
    best = -1.0
    while left and len(chosen) < most:
        scored = [float(np.mean(list(pointing(found, [*chosen, one]).values()))) for one in left]
        top = int(np.argmax(scored))
        if scored[top] <= best:
            break
        best = scored[top]
        chosen.append(left.pop(top))
    return tuple(chosen)
