"""Relative attention: a question's map over the map of a generic prompt on the same picture.

Zhang et al., "MLLMs Know Where to Look", ICLR 2025 (arXiv 2502.17422): A_rel = A(question) / A(generic). What every
prompt looks at divides out. The paper divides as it stands; here the generic map has a floor, so that a patch that the
generic prompt ignores does not explode.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from vlmattn.core.errors import MapError, SpecError
from vlmattn.grid import PatchMap

GENERIC_PROMPT = "Write a general description of the image."
"""The generic prompt of the paper."""

AUTO_FLOOR = 0.1
"""``floor="auto"``: this share of the generic map's mean."""


def relative(task: PatchMap, generic: PatchMap, *, floor: float | Literal["auto"] = "auto") -> PatchMap:
    """``task / max(generic, floor)``, patch by patch; 1 means as much as under the generic prompt.

    Args:
        task, generic: maps of one picture, made with the same layers, heads and reduction.
        floor: lowest value that is divided by; ``auto`` is a tenth of the generic map's mean. 0 is allowed only where
            the generic map has no zero.

    Raises:
        MapError: maps of different pictures, or a generic map without any attention. SpecError: a negative floor.
    """
    if task.layout != generic.layout:
        raise MapError("the two maps belong to different pictures or grids")
    cells = np.concatenate([v.ravel() for v in generic.values]).astype(np.float64)
    if not cells.max() > 0:
        raise MapError("the generic map is zero everywhere: nothing can be divided by it")
    least = AUTO_FLOOR * float(cells.mean()) if floor == "auto" else float(floor)
    if least < 0:
        raise SpecError(f"floor must be >= 0, got {floor}")
    if least == 0 and cells.min() <= 0:
        raise MapError("the generic map has patches of value 0: give a floor above 0")
    values = tuple(
        np.asarray(t, dtype=np.float64) / np.maximum(np.asarray(g, dtype=np.float64), least)
        for t, g in zip(task.values, generic.values, strict=True)
    )
    step = f"divided by the map of {GENERIC_PROMPT!r}, floor {least:.3g}"
    return PatchMap(values, task.layout, task.provenance.then(step), task.label, task.visible)
