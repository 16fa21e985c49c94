"""Named normalisations of a map.

Only visible patches count: one that lay outside the attention window, or behind the row, has no value. A map is *flat*
if its values differ by less than a millionth of the largest: nothing stands out; stretching it would draw noise.
``share`` and ``uniform`` are defined for flat maps; ``max``, ``minmax`` and ``rank`` refuse them.
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
    highest = _not_flat(values).max()
    if not highest > 0:
        raise MapError(f"the largest value of the map is {highest:.3g}, so nothing can be divided by it: use 'minmax'")
    return values / highest


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
            "the map is flat: every visible patch has the same value, so it cannot be stretched; "
            "use 'share' or 'uniform'"
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
    """The map normalised over all visible patches of its picture (all tiles together); the others become 0.

    Raises:
        SpecError: no such normalisation. MapError: no patch is visible, or a flat, empty or negative map where that
            has no meaning.
    """
    if how not in NORMALISATIONS:
        raise SpecError(f"normalisation {how!r} does not exist; there are {', '.join(NORMALISATIONS)}")
    if how == "none":
        return patch_map
    cells = patch_map.visible_values()
    if not len(cells):
        raise MapError("no patch of the map was visible, so there is nothing to normalise")
    values = _placed(NORMALISATIONS[how][1](cells), patch_map)
    provenance = patch_map.provenance.then(f"normalised: {how}", normalisation=how)
    return replace(patch_map, values=values, provenance=provenance)


def _placed(cells: _Values, patch_map: PatchMap) -> tuple[_Values, ...]:
    """Values of the visible cells back on their grids, 0 elsewhere."""
    grids, start = [], 0
    for seen in patch_map.visible_cells():
        grid, count = np.zeros(seen.shape), int(seen.sum())
        grid[seen] = cells[start : start + count]
        grids.append(grid)
        start += count
    return tuple(grids)
