"""How much of a map lies on each frame of a video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError
from vlmattn.grid.patch_map import PatchMap


@dataclass(frozen=True, eq=False)
class FrameMass:
    """What a map gives to each frame of a video, over time.

    Attributes:
        frames: groups of frames that share a grid, in order; the frames of a group cannot be told apart.
        times: (T,) the second of each frame.
        mass_s: (S,) the map's total on each group; for raw attention, the attention that it got.
    """

    frames: tuple[tuple[int, ...], ...]
    times: tuple[float, ...]
    mass_s: NDArray[np.float64]

    @property
    def mass_t(self) -> NDArray[np.float64]:
        """(T,) one value per frame: what a group got, in equal parts to its frames. Its sum is that of ``mass_s``."""
        out = np.zeros(len(self.times), dtype=np.float64)
        for group, mass in zip(self.frames, self.mass_s, strict=True):
            out[list(group)] = mass / len(group)
        return out

    @property
    def most(self) -> tuple[int, ...]:
        """The frames of the group that got most; the first of equals."""
        return self.frames[int(np.argmax(self.mass_s))]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "frames": [list(group) for group in self.frames],
            "times": list(self.times),
            "mass": [float(mass) for mass in self.mass_s],
        }

    def __repr__(self) -> str:
        parts = (
            f"{self.times[group[0]]:g} s: {mass:.3g}" for group, mass in zip(self.frames, self.mass_s, strict=True)
        )
        return f"<FrameMass {', '.join(parts)}>"


def frame_mass(patch_map: PatchMap) -> FrameMass:
    """The total of a video's map on each group of frames that share a grid.

    Raises:
        MapError: the map is of a picture.

    Example:
        >>> from vlmattn.core.layout import ImageLayout, Tile
        >>> box = (0.0, 0.0, 4.0, 2.0)
        >>> tiles = (Tile("base", (1, 2), box, frames=(0, 1)), Tile("base", (1, 2), box, frames=(2,)))
        >>> layout = ImageLayout((4, 2), tiles, times=(0.0, 0.5, 1.0))
        >>> mass = frame_mass(PatchMap(([[0.1, 0.3]], [[0.2, 0.0]]), layout))
        >>> mass.frames, mass.mass_t.tolist()
        (((0, 1), (2,)), [0.2, 0.2, 0.2])
    """
    groups = patch_map.frames
    if not groups:
        raise MapError("the map is of a picture, which has no frames")
    total = dict.fromkeys(groups, 0.0)
    for tile, values in zip(patch_map.layout.tiles, patch_map.values, strict=True):
        total[tile.frames] += float(values.sum(dtype=np.float64))
    return FrameMass(groups, patch_map.layout.times, np.array([total[group] for group in groups]))
