"""Which tokens of the vision tower each cell of a picture is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import LayoutError

NO_CELL = -1


@dataclass(frozen=True)
class TowerView:
    """One view of a picture as the vision tower holds it, in the order of the tower's attention layers.

    Attributes:
        cell: (n,) for each of its n tokens the number of the cell that it belongs to, counted tile by tile, row by row,
            over the whole picture; -1 for class and register tokens and for patches that no cell is made of.
        classes, registers: places of class and register tokens among the n.
        grid_hw: rows and columns of patches where the tower pads them to the most of any view, at the right and at the
            bottom, so that padding lies between rows. None where padding, if there is some, comes after all tokens.
    """

    cell: NDArray[np.int64]
    classes: tuple[int, ...] = ()
    registers: tuple[int, ...] = ()
    grid_hw: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        count = len(self.cell)
        if self.grid_hw is not None and self.grid_hw[0] * self.grid_hw[1] != count:
            raise LayoutError(f"a view of {self.grid_hw[0]} x {self.grid_hw[1]} patches cannot have {count} tokens")
        special = [*self.classes, *self.registers]
        if any(not 0 <= place < count for place in special) or len(set(special)) < len(special):
            raise LayoutError(f"class and register tokens must be different ones of {count}, got {special}")
        if any(self.cell[place] != NO_CELL for place in special):
            raise LayoutError("class and register tokens belong to no cell")

    def __len__(self) -> int:
        return len(self.cell)

    def within(self, most_hw: tuple[int, int]) -> NDArray[np.int64]:
        """(n,) places of its tokens in a view of ``most_hw`` rows and columns, of which it is the upper left part."""
        rows, cols = self.grid_hw or (1, len(self))
        return (np.arange(rows)[:, None] * most_hw[1] + np.arange(cols)).reshape(-1)


@dataclass(frozen=True)
class TowerCells:
    """The tokens of the vision tower behind the cells of one picture: T tokens in all views, C cells in all tiles.

    Attributes:
        views: in the order in which the tower gets them.
        cells: C. cell, token, weight: (M,) token ``token`` goes into cell ``cell`` with ``weight``; the weights of each
            cell sum to 1. Tokens are counted over all views.
    """

    views: tuple[TowerView, ...]
    cells: int
    cell: NDArray[np.int64]
    token: NDArray[np.int64]
    weight: NDArray[np.float64]

    def __post_init__(self) -> None:
        if not len(self.cell) == len(self.token) == len(self.weight):
            raise LayoutError("cell, token and weight must have one entry each per pair")
        sums = np.bincount(self.cell, self.weight, minlength=self.cells)
        if len(sums) != self.cells or not np.allclose(sums, 1.0):
            raise LayoutError(f"the weights of each of {self.cells} cells must sum to 1: some cell has no tower token")

    @classmethod
    def averaged(cls, views: Sequence[TowerView], cells: int) -> TowerCells:
        """Each cell is the mean of the tokens that name it in :attr:`TowerView.cell`.

        Raises:
            LayoutError: a cell that no token names.
        """
        owner = np.concatenate([v.cell for v in views]) if views else np.zeros(0, np.int64)
        token = np.flatnonzero(owner != NO_CELL)
        cell = owner[token]
        counts = np.bincount(cell, minlength=cells)
        return cls(tuple(views), cells, cell, token, 1.0 / counts[cell])

    @property
    def tokens(self) -> int:
        """T, over all views."""
        return sum(len(v) for v in self.views)

    @property
    def starts(self) -> tuple[int, ...]:
        """Number of the first token of each view."""
        return tuple(int(n) for n in np.cumsum([0, *(len(v) for v in self.views)])[:-1])

    def special(self, kind: str) -> NDArray[np.int64]:
        """Numbers of all ``classes`` or ``registers`` tokens, over all views."""
        lines = [start + np.array(getattr(v, kind), np.int64) for start, v in zip(self.starts, self.views, strict=True)]
        return np.concatenate(lines) if lines else np.zeros(0, np.int64)

    @property
    def patches(self) -> NDArray[np.bool_]:
        """(T,) True for tokens that stand for a patch, those of no cell too."""
        found = np.ones(self.tokens, dtype=np.bool_)
        for kind in ("classes", "registers"):
            found[self.special(kind)] = False
        return found

    def to_cells(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """(C,) the weighted mean of the values (T,) of each cell's tokens."""
        return _summed(self.cell, self.weight * values[self.token], self.cells)

    def to_tokens(self, mass: NDArray[np.floating]) -> NDArray[np.float64]:
        """(T,) the mass (C,) of each cell, divided among its tokens by their weights: the sum is kept."""
        return _summed(self.token, self.weight * mass[self.cell], self.tokens)

    def mass_of_cells(self, mass: NDArray[np.floating]) -> NDArray[np.float64]:
        """(C,) the mass (T,) of tokens, each divided among the cells that it goes into; what no cell holds is lost."""
        share = self.weight / _summed(self.token, self.weight, self.tokens)[self.token]
        return _summed(self.cell, share * mass[self.token], self.cells)


def _summed(where: NDArray[np.int64], values: NDArray[np.floating], count: int) -> NDArray[np.float64]:
    total = np.zeros(count)
    np.add.at(total, where, values)
    return total
