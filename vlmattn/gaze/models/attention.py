"""From one map to a scanpath: winner takes all, or places drawn by height; what was looked at is inhibited.

Itti, Koch and Niebur, IEEE TPAMI 1998, for winner-take-all with inhibition of return.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmattn.core.errors import SpecError
from vlmattn.gaze.baselines import centre_map
from vlmattn.gaze.fixations import Scanpath
from vlmattn.gaze.held_map import HeldMap, held_map
from vlmattn.gaze.models.timing import CONSTANT, Durations, count_of, timed
from vlmattn.grid import PatchMap, PixelMap, to_pixels

Array = NDArray[np.float64]
AnyMap = PatchMap | PixelMap | HeldMap | ArrayLike
Start = Literal["winner", "centre"]


@dataclass(frozen=True)
class Inhibition:
    """Inhibition of return: how a place that was looked at is left alone for a while.

    Attributes:
        radius_px: of the disc, or the deviation of the Gaussian; None for a tenth of the picture's shorter side.
        edge: ``disc`` or ``gaussian``. recovery: share of the inhibition that is lost at each further fixation; 0: the
            place is never looked at again, 1: only the last fixation is inhibited.

    Raises:
        SpecError: a number out of range, or another edge.
    """

    radius_px: float | None = None
    edge: Literal["disc", "gaussian"] = "disc"
    recovery: float = 0.0

    def __post_init__(self) -> None:
        if self.radius_px is not None and not (np.isfinite(self.radius_px) and self.radius_px > 0):
            raise SpecError(f"radius_px of the inhibition must be above 0 or None, got {self.radius_px!r}")
        if self.edge not in ("disc", "gaussian"):
            raise SpecError(f"the inhibition's edge must be 'disc' or 'gaussian', got {self.edge!r}")
        if not 0 <= self.recovery <= 1:
            raise SpecError(f"recovery must be from 0 to 1, got {self.recovery!r}")

    def after(self, level: Array, x: float, y: float) -> Array:
        """(H, W) inhibition from 0 to 1 after a fixation at x, y, given what it was before; changed in place."""
        height, width = level.shape
        radius = min(height, width) / 10 if self.radius_px is None else self.radius_px
        if self.recovery:
            level *= 1 - self.recovery
        reach = radius if self.edge == "disc" else 4 * radius
        rows, columns = (
            slice(max(0, int(np.floor(at - reach))), min(n, int(np.ceil(at + reach)) + 1))
            for at, n in ((y, height), (x, width))
        )
        down = (np.arange(rows.start, rows.stop) + 0.5 - y)[:, None] ** 2
        squares = down + (np.arange(columns.start, columns.stop) + 0.5 - x)[None, :] ** 2
        new = (squares <= radius**2) * 1.0 if self.edge == "disc" else np.exp(-0.5 * squares / radius**2)
        np.maximum(level[rows, columns], new, out=level[rows, columns])
        return level


def winner_take_all(
    map: AnyMap,
    *,
    count: int = 8,
    inhibition: Inhibition = Inhibition(),
    start: Start = "winner",
    centre: float | None = None,
    durations: Durations = CONSTANT,
    rng: np.random.Generator | None = None,
    **named: Any,
) -> Scanpath:
    """The scanpath that goes to the highest place of a map, inhibits it, goes to the next, and so on.

    Args:
        map: a :class:`~vlmattn.grid.PatchMap` (blended between patches first), a map in pixels, or an array (H, W).
        count: fixations wanted; there are fewer where all of the picture is inhibited.
        start: ``winner``, or ``centre``: the first fixation is in the middle of the picture, as people are made to do.
        centre: the map is multiplied by a Gaussian round the middle of that width (share of the picture), or not.
        durations, rng: see :class:`~vlmattn.gaze.models.Durations`; weights are the map's values at the fixations.
        named: attributes of the scanpath.

    Returns:
        Of equal values the first, row by row; of a run of equal values to its right and below it, the middle.

    Raises:
        SpecError: an option out of range. MapError: a map that cannot be read.

    Example:
        >>> path = winner_take_all([[0.0, 3.0, 0.0, 2.0]], count=2, inhibition=Inhibition(radius_px=0.5))
        >>> path.x.tolist(), path.y.tolist()
        ([1.5, 3.5], [0.5, 0.5])
    """
    field = _Field.of(map, centre, inhibition, start)
    places = []
    for _ in range(count_of(count)):
        place = field.next_winner()
        if place is None:
            break
        places.append(place)
    return _timed(field, places, durations, rng, named)


def sampled_scanpath(
    map: AnyMap,
    *,
    count: int = 8,
    temperature: float = 1.0,
    reach_px: float | None = None,
    inhibition: Inhibition = Inhibition(),
    start: Start = "winner",
    centre: float | None = None,
    durations: Durations = CONSTANT,
    rng: np.random.Generator | None = None,
    **named: Any,
) -> Scanpath:
    """A scanpath drawn from a map as seen from each fixation: high and near places are likelier.

    The next pixel is drawn with weight (value - lowest)^(1 / temperature) · (1 - inhibition) · exp(-d² / (2 reach²)),
    d its distance from the present fixation: far from the fovea, little is seen.

    Args:
        temperature: below 1 nearer to winner-take-all, above 1 nearer to chance. reach_px: of the eye, or None for
            no end. rng: a generator of seed 0 if None. Others as in :func:`winner_take_all`.

    Example:
        >>> sampled_scanpath([[0.0, 1.0]], count=1, rng=np.random.default_rng(1)).x.tolist()
        [1.5]
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise SpecError(f"temperature must be above 0, got {temperature!r}")
    if reach_px is not None and not (np.isfinite(reach_px) and reach_px > 0):
        raise SpecError(f"reach_px must be above 0 or None, got {reach_px!r}")
    generator = np.random.default_rng(0) if rng is None else rng
    field = _Field.of(map, centre, inhibition, start)
    field.values = (field.values / max(field.values.max(), 1e-300)) ** (1 / temperature)
    places: list[tuple[float, float]] = []
    for _ in range(count_of(count)):
        place = field.next_drawn(generator, places[-1] if places else None, reach_px)
        if place is None:
            break
        places.append(place)
    return _timed(field, places, durations, generator, named)


def drawn_places(density: AnyMap, count: int, rng: np.random.Generator) -> Array:
    """(count, 2) x, y drawn independently by a map's values less its lowest, anywhere within the drawn pixel."""
    held = values_of_map(density)
    chosen = _drawn(held.reshape(-1), count, rng)
    rows, columns = np.divmod(chosen, held.shape[1])
    return np.column_stack([columns, rows]) + rng.random((count, 2))


def values_of_map(map: AnyMap) -> Array:
    """(H, W) of 0 or more: the map in pixels less its lowest value, if that is negative; patches are blended.

    Raises:
        MapError: a map that cannot be read.
    """
    if isinstance(map, PatchMap):
        return values_of_map(to_pixels(map, merge="mean", kind="density", smooth="bilinear"))
    held = held_map(map)
    return np.array(held.values - min(float(held.values.min()), 0.0))


@dataclass
class _Field:
    """A map with what is inhibited on it."""

    values: Array
    level: Array
    inhibition: Inhibition
    middle: bool

    @classmethod
    def of(cls, map: AnyMap, centre: float | None, inhibition: Inhibition, start: Start) -> _Field:
        if start not in ("winner", "centre"):
            raise SpecError(f"start must be 'winner' or 'centre', got {start!r}")
        if not isinstance(inhibition, Inhibition):
            raise SpecError(f"inhibition must be an Inhibition, got {inhibition!r}")
        values = values_of_map(map)
        if centre is not None:
            values = values * centre_map((values.shape[1], values.shape[0]), width=centre) * values.size
        return cls(values, np.zeros(values.shape), inhibition, start == "centre")

    @property
    def image_wh(self) -> tuple[int, int]:
        return self.values.shape[1], self.values.shape[0]

    def _begin(self) -> tuple[float, float] | None:
        if not self.middle:
            return None
        self.middle = False
        return self._looked((self.values.shape[1] / 2, self.values.shape[0] / 2))

    def _looked(self, place: tuple[float, float]) -> tuple[float, float]:
        self.inhibition.after(self.level, *place)
        return place

    def next_winner(self) -> tuple[float, float] | None:
        first = self._begin()
        if first is not None:
            return first
        left = np.where(self.level < 1, self.values * (1 - self.level), -np.inf)
        row, column = (int(i) for i in np.unravel_index(int(left.argmax()), left.shape))
        best = left[row, column]
        if not np.isfinite(best):
            return None
        return self._looked((column + _run(left[row, column:] == best) / 2, row + _run(left[row:, column] == best) / 2))

    def next_drawn(
        self, rng: np.random.Generator, before: tuple[float, float] | None, reach_px: float | None
    ) -> tuple[float, float] | None:
        first = self._begin()
        if first is not None:
            return first
        weights = self.values * (1 - self.level)
        if before is not None and reach_px is not None:
            height, width = weights.shape
            down, across = (
                np.exp(-0.5 * ((np.arange(n) + 0.5 - at) / reach_px) ** 2)
                for n, at in ((height, before[1]), (width, before[0]))
            )
            weights = weights * down[:, None] * across[None, :]
        if not weights.sum() > 0:
            return None
        row, column = divmod(int(_drawn(weights.reshape(-1), 1, rng)[0]), weights.shape[1])
        return self._looked((column + 0.5, row + 0.5))


def _drawn(weights: Array, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(count,) numbers drawn by weight; all alike where all weights are 0."""
    summed = np.cumsum(weights if weights.sum() > 0 else np.ones(len(weights)))
    return np.minimum(np.searchsorted(summed, rng.random(count) * summed[-1], side="right"), len(weights) - 1)


def _run(alike: NDArray[np.bool_]) -> int:
    return len(alike) if alike.all() else int(alike.argmin())


def _timed(
    field: _Field,
    places: list[tuple[float, float]],
    durations: Durations,
    rng: np.random.Generator | None,
    named: dict[str, Any],
) -> Scanpath:
    points = np.array(places, dtype=np.float64).reshape(-1, 2)
    width, height = field.image_wh
    at = np.minimum(np.floor(points), [width - 1, height - 1]).astype(np.int64)
    return timed(points, field.image_wh, durations, weights=field.values[at[:, 1], at[:, 0]], rng=rng, **named)
