"""Relative attention: a question's map over the map of a generic prompt on the same picture.

Zhang et al., "MLLMs Know Where to Look", ICLR 2025 (arXiv 2502.17422): A_rel = A(question) / A(generic). What every
prompt looks at divides out. The paper divides as it stands; here the generic map has a floor, so that a patch that the
generic prompt ignores does not explode.

The paper ends both prompts with "Answer the question using a single word or phrase."; here prompts are taken as they
are. To do as the paper does, end your question with it and divide by the map of a generic prompt that ends with it too.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.grid import PatchMap

GENERIC_PROMPT = "Write a general description of the image."
"""The generic prompt of the paper."""

AUTO_FLOOR = 0.1
"""``floor="auto"``: this share of the generic map's mean over the patches that both maps saw."""


def relative(task: PatchMap, generic: PatchMap, *, floor: float | Literal["auto"] = "auto") -> PatchMap:
    """``task / max(generic, floor)``, patch by patch; 1 means as much as under the generic prompt.

    Args:
        task, generic: maps of one picture, made with the same layers, heads and reduction. Patches that either could
            not see are not seen in the result, and 0.
        floor: lowest value that is divided by; ``auto`` is a tenth of the generic map's mean over the patches that
            both saw. 0 is allowed only where the generic map has no zero.

    Raises:
        MapError: maps of different pictures, no patch that both saw, or a generic map without any attention.
        SpecError: a floor below 0 or of another kind.
    """
    if task.layout != generic.layout:
        raise MapError("the two maps belong to different pictures or grids")
    both = tuple(a & b for a, b in zip(task.visible_cells(), generic.visible_cells(), strict=True))
    least = _floor(generic, both, floor)
    values = tuple(
        np.where(seen, np.asarray(t, dtype=np.float64) / np.where(seen, np.maximum(g, least), 1.0), 0.0)
        for t, g, seen in zip(task.values, generic.values, both, strict=True)
    )
    how = "".join(f" ({step})" for step in generic.provenance.steps[-1:])
    step = f"divided by the map of {generic.label or 'a generic prompt'!r}{how}, floor {least:.3g}"
    visible = None if all(seen.all() for seen in both) else both
    return PatchMap(values, task.layout, task.provenance.then(step), task.label, visible)


def _floor(generic: PatchMap, both: tuple[NDArray[np.bool_], ...], floor: float | Literal["auto"]) -> float:
    cells = np.concatenate([np.asarray(g[s], dtype=np.float64) for g, s in zip(generic.values, both, strict=True)])
    if not len(cells):
        raise MapError("no patch was seen in both maps: nothing can be divided")
    if not cells.max() > 0:
        raise MapError("the generic map is zero everywhere: nothing can be divided by it")
    if floor != "auto" and (isinstance(floor, (str, bool)) or not np.isfinite(floor) or floor < 0):
        raise SpecError(f"floor must be >= 0 or 'auto', got {floor!r}")
    least = AUTO_FLOOR * float(cells.mean()) if floor == "auto" else float(floor)
    if least == 0 and cells.min() <= 0:
        raise MapError("the generic map has patches of value 0: give a floor above 0")
    return least
