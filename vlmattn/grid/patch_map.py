"""Values on the patch grids of one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmattn.core.errors import MapError
from vlmattn.core.layout import Box, ImageLayout, Tile, TokenLayout
from vlmattn.core.provenance import Provenance


class Peak(NamedTuple):
    """The cell with the highest value: tile, row and column, its box in original pixels, and the value."""

    tile: int
    row: int
    col: int
    box_xyxy: Box
    value: float


@dataclass(frozen=True, eq=False)
class PatchMap:
    """One value per image token that has a place, on the grids of one picture.

    Attributes:
        values: one float array (rows, cols) per tile of ``layout``; read-only.
        layout: the picture's tiles.
        provenance: where the values come from. ``label``: the word or phrase that they belong to.
        visible: one bool array (rows, cols) per tile, False where the query could not attend to the token at all
            (outside a sliding window, behind the row, or lost on the way to the language model), which is not the
            same as a low value; None if it could attend to all.

    Raises:
        MapError: if a shape does not fit the layout or a value is NaN or infinite.

    Example:
        >>> from vlmattn.core.layout import ImageLayout, Tile
        >>> layout = ImageLayout((4, 2), (Tile("base", (1, 2), (0.0, 0.0, 4.0, 2.0)),))
        >>> PatchMap(([[2.0, 6.0]],), layout, label="cat").peak()
        Peak(tile=0, row=0, col=1, box_xyxy=(2.0, 0.0, 4.0, 2.0), value=6.0)
    """

    values: tuple[NDArray[np.floating], ...]
    layout: ImageLayout
    provenance: Provenance = field(default_factory=Provenance)
    label: str = ""
    visible: tuple[NDArray[np.bool_], ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(_frozen(v, None) for v in self.values))
        _check_shapes("values", self.values, self.layout)
        for index, grid in enumerate(self.values):
            if not np.isfinite(grid).all():
                bad = int((~np.isfinite(grid)).sum())
                raise MapError(f"values of tile {index} must be finite, got {bad} NaN or infinite of {grid.size}")
        if self.visible is None and any(t.lost for t in self.layout.tiles):
            object.__setattr__(self, "visible", tuple(t.held for t in self.layout.tiles))
        if self.visible is not None:
            object.__setattr__(self, "visible", tuple(_frozen(v, np.bool_) for v in self.visible))
            _check_shapes("visible", self.visible or (), self.layout)
            seen = tuple(_frozen(v & t.held, np.bool_) for v, t in zip(self.visible, self.layout.tiles, strict=True))
            object.__setattr__(self, "visible", seen)

    @classmethod
    def from_vector(
        cls,
        vector: ArrayLike,
        layout: TokenLayout,
        *,
        picture: int = 0,
        provenance: Provenance | None = None,
        label: str = "",
        visible: ArrayLike | None = None,
    ) -> PatchMap:
        """The map of one picture from a vector over all image tokens of a sequence.

        Args:
            vector: (K,) values at ``layout.image_positions``, in sequence order, all pictures.
            picture: index of the picture wanted.
            visible: (K,) bool, or None.

        Raises:
            MapError: if the length is not K or there is no such picture.
        """
        positions = layout.image_positions
        flat = np.asarray(vector)
        if not 0 <= picture < len(layout.images):
            raise MapError(f"picture must be 0 to {len(layout.images) - 1}, got {picture}")
        seen = None if visible is None else np.asarray(visible, dtype=np.bool_)
        for name, given in (("vector", flat), ("visible", seen)):
            if given is not None and given.shape != positions.shape:
                raise MapError(
                    f"{name} must have one entry per image token, shape {positions.shape}, got {given.shape}"
                )
        return cls(
            values=_scattered(flat, layout, picture),
            layout=layout.images[picture],
            provenance=provenance if provenance is not None else Provenance(),
            label=label,
            visible=None if seen is None else _scattered(seen, layout, picture),
        )

    def frame(self, number: int) -> PatchMap:
        """The map of one frame of a video: of the grid that stands for it, and for others where ``frames`` says so.

        Raises:
            MapError: no video, or no such frame.
        """
        count = len(self.layout.times)
        if not 0 <= number < count:
            told = f"frames are 0 to {count - 1}" if count else "the map is of a picture, which has no frames"
            raise MapError(f"there is no frame {number}: {told}")
        chosen = self.layout.of_frame(number)
        layout = replace(self.layout, tiles=tuple(self.layout.tiles[index] for index in chosen))
        visible = None if self.visible is None else tuple(self.visible[index] for index in chosen)
        return replace(self, values=tuple(self.values[index] for index in chosen), layout=layout, visible=visible)

    @property
    def frames(self) -> tuple[tuple[int, ...], ...]:
        """Of a video, the groups of frames that have a grid in common, in order; empty for a picture."""
        return self.layout.slices

    @property
    def times(self) -> tuple[tuple[float, ...], ...]:
        """Of a video, the seconds of the frames of each group of :attr:`frames`."""
        return tuple(tuple(self.layout.times[frame] for frame in group) for group in self.frames)

    @property
    def total(self) -> float:
        """Sum of all values."""
        return float(sum(v.sum(dtype=np.float64) for v in self.values))

    def visible_cells(self) -> tuple[NDArray[np.bool_], ...]:
        """One bool array (rows, cols) per tile: ``visible``, all True where that is None."""
        return self.visible if self.visible is not None else tuple(np.ones(v.shape, np.bool_) for v in self.values)

    def visible_values(self) -> NDArray[np.float64]:
        """(N,) values of the visible cells, tile by tile, row by row."""
        pairs = zip(self.values, self.visible_cells(), strict=True)
        return np.concatenate([np.asarray(v[seen], dtype=np.float64) for v, seen in pairs])

    @property
    def is_flat(self) -> bool:
        """Whether all visible cells have one value (to float precision), or none is visible: there is no peak then."""
        cells = self.visible_values()
        return not len(cells) or bool(np.ptp(cells) <= 1e-6 * np.abs(cells).max())

    def peak(self) -> Peak:
        """The visible cell with the highest value; the first of equals.

        Raises:
            MapError: the map is flat.
        """
        if self.is_flat:
            raise MapError("the map is flat: every visible patch has the same value, so there is no peak")
        grids = [np.where(seen, v, -np.inf) for v, seen in zip(self.values, self.visible_cells(), strict=True)]
        tile = int(np.argmax([g.max() for g in grids]))
        row, col = (int(i) for i in np.unravel_index(int(grids[tile].argmax()), grids[tile].shape))
        box = self.layout.tiles[tile].cell_box(row, col)
        return Peak(tile, row, col, box, float(self.values[tile][row, col]))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "label": self.label,
            "image_wh": list(self.layout.image_wh),
            "tiles": [
                {"kind": t.kind, "source_box_xyxy": list(t.source_box_xyxy), **_told(t, self), "values": v.tolist()}
                for t, v in zip(self.layout.tiles, self.values, strict=True)
            ],
            "visible": None if self.visible is None else [v.tolist() for v in self.visible],
            "provenance": self.provenance.to_dict(),
        }

    def __repr__(self) -> str:
        grids = " + ".join(f"{t.kind} {t.grid_hw[0]}x{t.grid_hw[1]}" for t in self.layout.tiles)
        if self.layout.times:
            grids = f"{len(self.frames)} grids of {len({f for group in self.frames for f in group})} frames"
        return f"PatchMap({self.label!r}, {grids}, total={self.total:.4g})"


def _told(tile: Tile, patch_map: PatchMap) -> dict[str, Any]:
    """Where rows and columns lie, for the sides of a tile that have gaps; which frames of a video it stands for."""
    sides = {"row_spans": tile.row_spans, "col_spans": tile.col_spans}
    told: dict[str, Any] = {name: [list(span) for span in spans] for name, spans in sides.items() if spans is not None}
    if tile.frames:
        told |= {"frames": list(tile.frames), "times": [patch_map.layout.times[frame] for frame in tile.frames]}
    return told


def _frozen(values: ArrayLike, dtype: Any) -> NDArray[Any]:
    array = np.array(values, dtype=dtype)
    if dtype is None and not np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float64)
    array.setflags(write=False)
    return array


def _check_shapes(name: str, grids: Sequence[NDArray[Any]], layout: ImageLayout) -> None:
    expected = [t.grid_hw for t in layout.tiles]
    got = [g.shape for g in grids]
    if got != expected:
        raise MapError(f"{name} must have one array (rows, cols) per tile: {expected}, got {got}")


def _scattered(flat: NDArray[Any], layout: TokenLayout, picture: int) -> tuple[NDArray[Any], ...]:
    """Grids of one picture from values of all image tokens."""
    at = layout.image_positions
    mine = layout.image[at] == picture
    where, values = at[mine], flat[mine]
    grids = []
    for index, tile in enumerate(layout.images[picture].tiles):
        grid = np.zeros(tile.grid_hw, dtype=flat.dtype)
        here = layout.tile[where] == index
        grid[layout.row[where][here], layout.col[where][here]] = values[here]
        grids.append(grid)
    return tuple(grids)
