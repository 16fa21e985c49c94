"""Localization heads: few heads whose attention alone says where a thing is (CVPR 2025, arXiv 2503.06287).

Rows are those of the last prompt token. Heads with a high mean mass on the picture are kept (above the elbow of the
*sorted* masses); in every sample, the kept heads with the lowest spatial entropy get a vote; those with the most votes
are the localization heads. ``variant="paper"``: the elbow is where the curvature is highest, and the entropy counts
cells of the map binarised at its mean. ``variant="code"``, as the authors' release computes it: the elbow is the point
farthest from the chord, the entropy weighs cells with what they exceed the mean by, and a map with more than 0.05 of
the attention in its bottom row gets no vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError

Variant = Literal["paper", "code"]
TOP_K = 3
"""How many heads the paper takes."""
PER_SAMPLE = 10
"""How many heads get a vote in each sample, in the paper."""
BOTTOM_ROW = 0.05
"""Attention in the bottom row above which a map gets no vote (``code`` only)."""
SKIPPED, OF_LAYERS = 2, 32
"""The paper leaves out the first two of 32 layers; in models of another depth, as many in proportion (our rule)."""


def first_layer(depth: int) -> int:
    """The first layer that takes part in a model of ``depth`` layers.

    Example:
        >>> first_layer(32), first_layer(4)
        (2, 0)
    """
    return round(SKIPPED / OF_LAYERS * depth)


def elbow(values: NDArray[Any], *, variant: Variant = "paper") -> float:
    """The value at which the descending curve of ``values`` bends most; both axes are scaled to 0 … 1.

    ``paper``: highest curvature \\|y''\\| / (1 + y'^2)^1.5, inside the curve. ``code``: farthest from the chord between
    its ends. NaN are left out. Of fewer than three values, or equal ones, the lowest: none is told apart.

    Raises:
        SpecError: no value, or no such variant.

    Example:
        >>> import numpy as np
        >>> elbow(np.array([0.02, 0.9, 0.01, 0.8, 0.0, 0.03]), variant="code")
        0.03
    """
    check_variant(variant)
    known = np.asarray(values, dtype=np.float64).ravel()
    ordered = np.sort(known[np.isfinite(known)])[::-1]
    if not len(ordered):
        raise SpecError("an elbow needs at least one value")
    if len(ordered) < 3 or ordered[0] - ordered[-1] <= 1e-12:
        return float(ordered[-1])
    x = np.linspace(0, 1, len(ordered))
    y = (ordered - ordered[-1]) / (ordered[0] - ordered[-1])
    if variant == "code":
        return float(ordered[int(np.argmax(np.abs(x + y - 1)))])
    slope = np.gradient(y, x)
    bend = np.abs(np.gradient(slope, x)) / (1 + slope**2) ** 1.5
    return float(ordered[1 + int(np.argmax(bend[1:-1]))])


def spatial_entropy(grids: Sequence[NDArray[Any]], *, variant: Variant = "paper") -> float:
    """Entropy in nats of the connected parts (8 neighbours) of a map binarised at its mean: 0 for one part.

    Args:
        grids: (rows, cols) of each tile; parts do not reach from tile to tile. variant: ``paper`` weighs a part with
            its cells, ``code`` with what they exceed the mean by.

    Returns:
        NaN for a map that is flat: it has no part above the mean.

    Raises:
        SpecError: no grid, or one that is not two-dimensional.

    Example:
        >>> import numpy as np
        >>> round(spatial_entropy([np.array([[1.0, 0, 0], [0, 0, 1.0]])]), 4)
        0.6931
    """
    from scipy import ndimage

    check_variant(variant)
    maps = [np.asarray(grid, dtype=np.float64) for grid in grids]
    if not maps or any(one.ndim != 2 or not one.size for one in maps):
        raise SpecError("a map must be one grid (rows, cols) per tile, at least one")
    mean = float(np.concatenate([one.ravel() for one in maps]).mean())
    weights: list[float] = []
    for one in maps:
        labels, count = ndimage.label(one > mean, structure=np.ones((3, 3)))
        what = np.ones_like(one) if variant == "paper" else np.maximum(one - mean, 0)
        weights += [float(w) for w in ndimage.sum_labels(what, labels, np.arange(1, count + 1))]
    total = sum(weights)
    if total <= 0:
        return float("nan")
    share = np.array(weights) / total
    return float(-(share * np.log(share, out=np.zeros_like(share), where=share > 0)).sum()) + 0.0


def bottom_row(grids: Sequence[NDArray[Any]]) -> float:
    """Attention in the bottom rows of a picture's tiles, of 1 for all tokens."""
    return float(sum(np.asarray(grid, dtype=np.float64)[-1].sum() for grid in grids))


def votes(entropy_nlh: NDArray[Any], kept_lh: NDArray[np.bool_], *, per_sample: int = PER_SAMPLE) -> NDArray[np.bool_]:
    """(N, L, H) which of the kept heads get a vote in each sample: those of the lowest entropy, NaN never.

    Args:
        entropy_nlh: spatial entropy. kept_lh: heads with enough mass. per_sample: how many get a vote; at most half of
            those kept, so that votes tell heads apart in small models too (our rule).

    Raises:
        SpecError: shapes that do not belong together, or no vote.
    """
    values = np.asarray(entropy_nlh, dtype=np.float64)
    if values.ndim != 3 or values.shape[1:] != kept_lh.shape:
        raise SpecError(f"entropies must have shape (N, L, H) with (L, H) = {kept_lh.shape}, got {values.shape}")
    if per_sample < 1:
        raise SpecError(f"per_sample must be at least 1, got {per_sample}")
    count = min(per_sample, max(1, int(kept_lh.sum()) // 2))
    flat = np.where(kept_lh & np.isfinite(values), values, np.inf).reshape(len(values), -1)
    order = np.argsort(flat, axis=1, kind="stable")[:, :count]
    out = np.zeros(flat.shape, dtype=np.bool_)
    np.put_along_axis(out, order, True, axis=1)
    return (out & np.isfinite(flat)).reshape(values.shape)


def kept_heads(mass_lh: NDArray[Any], *, variant: Variant = "paper", start: int = 0) -> tuple[NDArray[np.bool_], float]:
    """(L, H) heads whose mean mass reaches the elbow of all masses from line ``start`` on, and the elbow.

    Raises:
        SpecError: no line is left, or nothing in it is known.
    """
    masses = np.asarray(mass_lh, dtype=np.float64).copy()
    masses[:start] = np.nan
    if not np.isfinite(masses).any():
        raise SpecError(f"no layer from line {start} on has a known mass")
    tau = elbow(masses, variant=variant)
    return np.nan_to_num(masses, nan=-1.0) >= tau, tau


def localization_heads(
    mass_nlh: NDArray[Any],
    entropy_nlh: NDArray[Any],
    *,
    k: int = TOP_K,
    variant: Variant = "paper",
    start: int = 0,
    per_sample: int = PER_SAMPLE,
) -> tuple[tuple[int, int], ...]:
    """The ``k`` heads (line, head) with the most votes, best first; among equals that of the lower mean entropy.

    Args:
        mass_nlh, entropy_nlh: of N samples, see :func:`~vlmattn.heads.visual.image_mass` and :func:`spatial_entropy`.
        start: first line of axis L that takes part, see :func:`first_layer`.

    Raises:
        SpecError: shapes that do not belong together, or no sample.
    """
    entropy = np.asarray(entropy_nlh, dtype=np.float64)
    if not len(entropy) or np.shape(mass_nlh) != entropy.shape:
        raise SpecError(f"masses and entropies must have one shape (N >= 1, L, H), got {np.shape(mass_nlh)}")
    kept, _ = kept_heads(np.mean(mass_nlh, axis=0), variant=variant, start=start)
    return ranked(votes(entropy, kept, per_sample=per_sample).mean(axis=0), known_mean(entropy))[:k]


def ranked(frequency_lh: NDArray[Any], entropy_lh: NDArray[Any]) -> tuple[tuple[int, int], ...]:
    """All heads that got a vote, most votes first, then lower entropy."""
    flat, tie = np.nan_to_num(frequency_lh.ravel()), np.nan_to_num(np.ravel(entropy_lh), nan=np.inf)
    order = np.lexsort((tie, -flat))
    heads = frequency_lh.shape[1]
    return tuple((int(i) // heads, int(i) % heads) for i in order if flat[i] > 0)


def known_mean(values: NDArray[Any]) -> NDArray[np.float64]:
    """Mean over the first axis of what is no NaN; NaN where all is."""
    held = np.asarray(values, dtype=np.float64)
    count = np.isfinite(held).sum(axis=0)
    total = np.where(np.isfinite(held), held, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def check_variant(variant: Any) -> None:
    """Raises SpecError unless it is ``paper`` or ``code``."""
    if variant not in get_args(Variant):
        raise SpecError(f"variant must be one of {', '.join(get_args(Variant))}; got {variant!r}")
