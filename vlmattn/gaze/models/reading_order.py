"""The model's own order of looking: one fixation for each map of a sequence, as of the tokens of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.gaze.fixations import Scanpath
from vlmattn.gaze.models.timing import Durations, timed
from vlmattn.grid import PatchMap, PixelMap, to_pixels

Place = Literal["peak", "centroid"]
STEPS = Durations("weight")


def place_of(map: PatchMap | PixelMap, at: Place = "peak") -> tuple[float, float] | None:
    """x, y of a map's highest point, or of the middle of what it has above its lowest seen value; None if it is flat.

    Raises:
        SpecError: another place.
    """
    if at not in ("peak", "centroid"):
        raise SpecError(f"a place is the map's 'peak' or 'centroid', got {at!r}")
    pixels = to_pixels(map, merge="mean", kind="density") if isinstance(map, PatchMap) else map
    if pixels.is_flat:
        return None
    if at == "peak":
        return pixels.peak_xy
    lowest = np.min(pixels.values, where=pixels.seen, initial=np.inf)
    weights = np.where(pixels.seen, pixels.values - lowest, 0.0).astype(np.float64)
    total = weights.sum()
    x = float(weights.sum(axis=0) @ (np.arange(weights.shape[1]) + 0.5) / total)
    return x, float(weights.sum(axis=1) @ (np.arange(weights.shape[0]) + 0.5) / total)


def reading_scanpath(
    maps: Sequence[PatchMap | PixelMap],
    *,
    at: Place = "peak",
    merge_px: float = 0.5,
    durations: Durations = STEPS,
    rng: np.random.Generator | None = None,
    **named: Any,
) -> Scanpath:
    """A scanpath of maps in order: of an answer's tokens or words, or of layers from the first to the last.

    Maps in a row whose places are no further than ``merge_px`` from the first of them make one fixation, which is
    longer the more of them there are. Flat maps have no place and are left out; the trial facts say how many.

    Args:
        maps: of one picture. at: see :func:`place_of`. durations: weights are the numbers of maps per fixation.

    Raises:
        MapError: no map, or maps of pictures of two sizes.

    Example:
        >>> rows = [[0.0, 9.0], [0.0, 8.0], [7.0, 0.0]]
        >>> maps = [PixelMap(np.array([row]), np.ones((1, 2), bool)) for row in rows]
        >>> path = reading_scanpath(maps, durations=Durations("weight", seconds=0.3))
        >>> path.x.tolist(), path.duration.round(3).tolist()
        ([1.5, 0.5], [0.4, 0.2])
    """
    if not maps:
        raise MapError("a scanpath needs at least one map")
    sizes = {one.layout.image_wh if isinstance(one, PatchMap) else one.image_wh for one in maps}
    if len(sizes) > 1:
        raise MapError(f"the maps are of pictures of several sizes: {sorted(sizes)}")
    found = [place_of(one, at) for one in maps]
    places = [place for place in found if place is not None]
    facts = dict(named.pop("trial", {})) | {"flat_maps": len(found) - len(places)}
    return places_scanpath(places, sizes.pop(), merge_px=merge_px, durations=durations, rng=rng, trial=facts, **named)


def places_scanpath(
    places_xy: ArrayLike,
    image_wh: tuple[int, int],
    *,
    merge_px: float = 0.5,
    durations: Durations = STEPS,
    rng: np.random.Generator | None = None,
    **named: Any,
) -> Scanpath:
    """As :func:`reading_scanpath`, of (n, 2) places that are known already."""
    if not (np.isfinite(merge_px) and merge_px >= 0):
        raise SpecError(f"merge_px must be 0 or more, got {merge_px!r}")
    points = np.asarray(places_xy, dtype=np.float64).reshape(-1, 2)
    first = _begins(points, merge_px)
    weights = np.diff(np.append(first, len(points)))
    return timed(points[first], image_wh, durations, weights=weights, rng=rng, **named)


def _begins(points: NDArray[np.float64], merge_px: float) -> NDArray[np.int64]:
    """Numbers of the points at which a new fixation begins."""
    begins: list[int] = []
    for number, point in enumerate(points):
        if not begins or np.hypot(*(point - points[begins[-1]])) > merge_px:
            begins.append(number)
    return np.array(begins, dtype=np.int64)
