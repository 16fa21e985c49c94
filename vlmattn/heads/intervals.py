"""How sure a mean over samples is: bootstrap intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError


def bootstrap_interval(
    values: NDArray[Any], rng: np.random.Generator, *, resamples: int = 1000, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper end (…) of the percentile bootstrap interval of the mean of (N, …) values over samples.

    NaN values take no part; where all are, both ends are NaN. A resample that draws none of the known is left out.

    Args:
        rng: where resamples come from: the same generator state gives the same interval.

    Raises:
        SpecError: no sample, fewer than one resample, or a level outside 0 to 1.

    Example:
        >>> import numpy as np
        >>> low, high = bootstrap_interval(np.ones((5, 2)), np.random.default_rng(0))
        >>> low.tolist(), high.tolist()
        ([1.0, 1.0], [1.0, 1.0])
    """
    held = np.asarray(values, dtype=np.float64)
    if held.ndim < 1 or not len(held) or resamples < 1 or not 0 < level < 1:
        raise SpecError(
            f"an interval needs (N >= 1, …) values, resamples >= 1 and a level between 0 and 1; got shape "
            f"{held.shape}, {resamples} and {level}"
        )
    flat = held.reshape(len(held), -1)
    known = np.isfinite(flat)
    drawn = rng.multinomial(len(flat), np.full(len(flat), 1 / len(flat)), size=resamples).astype(np.float64)
    count = drawn @ known
    means = np.divide(drawn @ np.where(known, flat, 0), count, out=np.full(count.shape, np.nan), where=count > 0)
    ends = np.full((2, flat.shape[1]), np.nan)
    some = np.isfinite(means).any(axis=0)
    if some.any():
        tail = (1 - level) / 2
        ends[:, some] = np.nanquantile(means[:, some], [tail, 1 - tail], axis=0)
    return ends[0].reshape(held.shape[1:]), ends[1].reshape(held.shape[1:])
