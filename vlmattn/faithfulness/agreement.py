"""Do maps say the same, and do they say what removal says?

Agreement is no evidence of being right: maps that share a fault agree, and two good maps may answer different
questions. :data:`CAUTION` stands under every table of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from vlmattn.core.errors import MapError, SpecError
from vlmattn.faithfulness.cells import Cells
from vlmattn.faithfulness.curves import Predict, scored
from vlmattn.faithfulness.removal import Baseline, Changed

CAUTION = "Agreement between methods does not show that any of them is right."


def rank_correlation(a: ArrayLike, b: ArrayLike, kind: Literal["spearman", "kendall"] = "spearman") -> float:
    """Rank correlation of two maps' values, -1 to 1; NaN where one of them is flat.

    Example:
        >>> rank_correlation([1, 2, 3], [10, 20, 30]), rank_correlation([1, 2, 3], [3, 2, 1], "kendall")
        (1.0, -1.0)
    """
    from scipy import stats

    first, second = _pair(a, b)
    if kind not in ("spearman", "kendall"):
        raise SpecError(f"kind must be 'spearman' or 'kendall', got {kind!r}")
    if _flat(first) or _flat(second):
        return float("nan")
    found = stats.spearmanr(first, second) if kind == "spearman" else stats.kendalltau(first, second)
    return float(round(found.statistic, 12))


def top_overlap(a: ArrayLike, b: ArrayLike, share: float = 0.1) -> float:
    """Share of the highest regions of one map that are among the highest of the other, 0 to 1; the first of equals;
    NaN where one map is flat.

    Example:
        >>> top_overlap([4, 3, 2, 1], [4, 1, 3, 2], 0.5)
        0.5
    """
    first, second = _pair(a, b)
    if not 0 < share <= 1:
        raise SpecError(f"share must be above 0 and at most 1, got {share}")
    if _flat(first) or _flat(second):
        return float("nan")
    count = max(1, round(share * len(first)))
    highest = [set(np.argsort(-one, kind="stable")[:count].tolist()) for one in (first, second)]
    return len(highest[0] & highest[1]) / count


def occlusion(
    image: Image.Image, cells: Cells, predict: Predict, *, baseline: Baseline = "mean"
) -> NDArray[np.float64]:
    """(n,) score that is lost when each region alone is taken out (Zeiler & Fergus, ECCV 2014); may be negative."""
    masks = [np.array([k]) for k in range(len(cells.values))]
    scores = scored(predict, Changed(image, cells, [np.array([], dtype=int), *masks], baseline))
    return scores[0] - scores[1:]


def faithfulness_correlation(
    image: Image.Image,
    cells: Cells,
    predict: Predict,
    *,
    runs: int = 50,
    share: float = 0.2,
    baseline: Baseline = "mean",
    rng: np.random.Generator | None = None,
) -> float:
    """Pearson correlation of what the map gives to random sets of regions and the score lost without them, -1 to 1;
    higher is better. NaN where either never differs.

    Bhatt et al., "Evaluating and Aggregating Feature-based Model Explanations", IJCAI 2020.

    Args:
        runs: random sets. share: of regions in each.
    """
    if runs < 2 or not 0 < share < 1:
        raise SpecError(f"runs must be at least 2 and share between 0 and 1, got {runs} and {share}")
    source = rng if rng is not None else np.random.default_rng(0)
    size = max(1, round(share * len(cells.values)))
    sets = [source.choice(len(cells.values), size, replace=False) for _ in range(runs)]
    scores = scored(predict, Changed(image, cells, [np.array([], dtype=int), *sets], baseline))
    given, lost = np.array([cells.values[s].sum() for s in sets]), scores[0] - scores[1:]
    if np.ptp(given) <= 1e-12 or np.ptp(lost) <= 1e-12:
        return float("nan")
    return float(np.corrcoef(given, lost)[0, 1])


def max_sensitivity(original: ArrayLike, changed: Sequence[ArrayLike]) -> float:
    """Largest relative change of a map under small changes of the picture; 0 or more, lower is steadier.

    Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019: ‖map' − map‖ / ‖map‖.

    Example:
        >>> max_sensitivity([3.0, 4.0], [[3.0, 4.0], [3.0, 9.0]])
        1.0
    """
    whole = np.asarray(original, dtype=np.float64).ravel()
    size = float(np.linalg.norm(whole))
    if not len(changed) or size == 0:
        raise MapError("sensitivity needs at least one changed map, and an original that is not all 0")
    return max(float(np.linalg.norm(np.asarray(one, dtype=np.float64).ravel() - whole)) / size for one in changed)


def _flat(values: NDArray[np.float64]) -> bool:
    return bool(np.ptp(values) <= 1e-6 * np.abs(values).max())


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = (np.asarray(one, dtype=np.float64).ravel() for one in (a, b))
    if first.shape != second.shape or len(first) < 2:
        raise MapError(f"two maps need as many values each, at least 2; got {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise MapError("a map holds values that are no numbers")
    return first, second
