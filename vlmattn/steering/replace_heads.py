"""Single heads taken out of a running model: their output set to zero, or to a given mean, before W_O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlmattn.capture.steering import Steering, Where
from vlmattn.core.errors import SpecError

if TYPE_CHECKING:
    import torch


@dataclass(eq=False)
class ReplaceHeads(Steering):
    """Sets the output of one head in each line of a batch to zero, or to a given vector, in every row.

    Attributes:
        heads: (layer, head) for each line of the batch. means: (H, D_v) by layer, what outputs are set to; None for
            zero.
    """

    heads: tuple[tuple[int, int], ...]
    means: Mapping[int, NDArray[np.float32]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.heads:
            raise SpecError("no head is to be replaced: give one (layer, head) per line of the batch")
        self.rows = "all"
        self.layers = tuple(sorted({layer for layer, _ in self.heads}))

    def edit_heads(self, outputs_brhd: torch.Tensor, where: Where) -> torch.Tensor | None:
        """See the class."""
        import torch

        lines = [(line, head) for line, (layer, head) in enumerate(self.heads) if layer == where.layer_idx]
        if not lines:
            return None
        new = outputs_brhd.clone()
        for line, head in lines:
            if self.means is None:
                new[line, :, head] = 0
            else:
                held = torch.as_tensor(self.means[where.layer_idx][head])
                new[line, :, head] = held.to(outputs_brhd.device, outputs_brhd.dtype)
        return new

    def describe(self) -> str:
        """One phrase for provenance."""
        what = "zero" if self.means is None else "their mean"
        return f"output of {len(self.heads)} heads, one in each line, set to {what}"
