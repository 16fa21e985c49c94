"""Layers x heads as a heat map, one for each score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.provenance import Provenance
from vlmattn.overlay import Sheet, colour_table, contact_sheet

_WIDTH, _LEAST = 220, 6


@dataclass(frozen=True, eq=False)
class _Grid:
    """A score as a map in pixels: each head a square; those that are not there, or not known, are not seen."""

    values: NDArray[np.float32]
    seen: NDArray[np.bool_]
    label: str
    provenance: Provenance


def head_sheet(scores: Mapping[str, NDArray[Any]], provenance: Provenance, title: str) -> Sheet:
    """A sheet with a heat map of (L, H) values per score: layers from top to bottom, heads from left to right.

    Every score is scaled to its highest absolute value, since scores have different units; values below 0 are drawn as
    0, and heads whose score is not known are hatched.
    """
    made = replace(provenance, method="head_atlas")
    cells = []
    for name, values in scores.items():
        grid = _grid(name, np.asarray(values, dtype=np.float64), made)
        paper = np.broadcast_to(colour_table()[0], (*grid.values.shape, 3)).copy()
        cells.append((grid.label, paper, grid))
    rows = [cells[n : n + 4] for n in range(0, len(cells), 4)]
    return contact_sheet(
        rows, title=f"{title}: layers from top to bottom, heads from left to right", scale=(0.0, 1.0), cell_width=_WIDTH
    )


def _grid(name: str, values: NDArray[np.float64], provenance: Provenance) -> _Grid:
    known = np.isfinite(values)
    top = float(np.abs(values[known]).max(initial=0.0))
    scaled = np.clip(np.where(known, values, 0) / (top or 1.0), 0, 1).astype(np.float32)
    side = max(_LEAST, _WIDTH // values.shape[1])
    label = f"{name}: 1 is {top:.3g}"
    big = [np.kron(one, np.ones((side, side), dtype=one.dtype)) for one in (scaled, known.astype(np.uint8))]
    return _Grid(big[0], big[1].astype(np.bool_), label, provenance)
