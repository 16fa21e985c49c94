"""Named normalisations of a map.

A map is *flat* if its values differ by less than a millionth of the largest: nothing stands out; stretching it would
draw noise. ``share`` and ``uniform`` are defined for flat maps; ``max``, ``minmax`` and ``rank`` refuse them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.grid import PatchMap

_Values = NDArray[np.float64]


def _none(values: _Values) -> _Values:
    return values


def _share(values: _Values) -> _Values:
    total = values.sum()
    if not total > 0:
        raise MapError("the map sums to zero, so it has no shares")
    return values / total


def _uniform(values: _Values) -> _Values:
    return _share(values) * values.size


def _max(values: _Values) -> _Values:
    return values / _not_flat(values).max()


def _minmax(values: _Values) -> _Values:
    _not_flat(values)
    return (values - values.min()) / (values.max() - values.min())


def _rank(values: _Values) -> _Values:
    # Mean rank of equal values, 0 for the lowest and 1 for the highest.
    from scipy.stats import rankdata

    ranks: _Values = rankdata(_not_flat(values), method="average")
    return (ranks - 1) / (values.size - 1)


def _not_flat(values: _Values) -> _Values:
    if values.max() - values.min() <= 1e-6 * np.abs(values).max():
        raise MapError(
            "the map is flat: every patch has the same value, so it cannot be stretched; use 'share' or 'uniform'"
        )
    return values


NORMALISATIONS: dict[str, tuple[str, Callable[[_Values], _Values]]] = {
    "none": ("as it is", _none),
    "share": ("sums to 1 over the picture", _share),
    "uniform": ("1 is what a look spread evenly would give", _uniform),
    "max": ("divided by the largest value", _max),
    "minmax": ("from 0 for the lowest to 1 for the highest value", _minmax),
    "rank": ("rank from 0 to 1, equal values share theirs", _rank),
}


def normalise(patch_map: PatchMap, how: str = "none") -> PatchMap:
    """The map normalised over all patches of its picture (all tiles together).

    Raises:
        SpecError: no such normalisation. MapError: a flat or empty map where that has no meaning.
    """
    if how not in NORMALISATIONS:
        raise SpecError(f"normalisation {how!r} does not exist; there are {', '.join(NORMALISATIONS)}")
    if how == "none":
        return patch_map
    cells = np.concatenate([v.ravel() for v in patch_map.values]).astype(np.float64)
    cells = NORMALISATIONS[how][1](cells)
    ends = np.cumsum([v.size for v in patch_map.values])[:-1]
    values = tuple(c.reshape(v.shape) for c, v in zip(np.split(cells, ends), patch_map.values, strict=True))
    provenance = patch_map.provenance.then(f"normalised: {how}", normalisation=how)
    return replace(patch_map, values=values, provenance=provenance)
