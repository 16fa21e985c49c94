"""What the vision tower's class token looks at, for each image token of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters import Encoded
from vlmattn.capture import TowerPass
from vlmattn.core.errors import SpecError
from vlmattn.core.layout import TokenLayout

Scores = list[NDArray[np.float64]]
"""(V,) of each prompt: one value per image token, in their order."""


def class_attention(name: str, vlm: Any, encoded: Encoded, layers: Sequence[int]) -> list[Scores]:
    """Attention of the class token to each image token of each prompt, mean over heads, for each layer of the tower.

    The tower runs once more. An image token of several patches gets their weighted mean.

    Args:
        name: of the method, for errors. layers: of the tower; negative ones count from the last that the language
            model reads.

    Raises:
        SpecError: no tower whose attention can be seen, no class token, no such layer, or videos.
    """
    if any(picture.times for layout in encoded.layouts for picture in layout.images):
        raise SpecError(f"{name} reads the vision tower's attention to pictures, and a video was given")
    cells = [[vlm.adapter.tower_cells(picture) for picture in layout.images] for layout in encoded.layouts]
    views = [view for line in cells for one in line for view in one.views]
    if not views or not all(view.classes for view in views):
        raise SpecError(f"{name} needs the class token of a vision tower, and {vlm.name!r} has none")
    kept = TowerPass(vlm.model, views).run(encoded.inputs)
    read = vlm.adapter.tower_layers(kept.depth)
    wanted = [read + layer if layer < 0 else layer for layer in layers]
    missing = [layer for layer, at in zip(layers, wanted, strict=True) if at not in kept.layers]
    if missing:
        raise SpecError(f"{name} asks for layer {missing[0]} of the vision tower, which has {list(kept.layers)}")
    rows = kept.special_lhst[:, :, 0].float().mean(dim=1).double().cpu().numpy()  # (L, T)
    return [_by_token(rows[kept.layers.index(at)], cells, encoded.layouts) for at in wanted]


def _by_token(row: NDArray[np.float64], cells: Sequence[Sequence[Any]], layouts: Sequence[TokenLayout]) -> Scores:
    out, start = [], 0
    for layout, line in zip(layouts, cells, strict=True):
        positions = layout.image_positions
        values = np.zeros(len(positions))
        for number, one in enumerate(line):
            mine = np.flatnonzero(layout.image[positions] == number)
            at = positions[mine]
            order = np.lexsort((layout.col[at], layout.row[at], layout.tile[at]))
            values[mine[order]] = one.to_cells(row[start : start + one.tokens])
            start += one.tokens
        out.append(values)
    return out
