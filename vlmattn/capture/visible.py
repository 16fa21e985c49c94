"""Which kept columns a kept row can see: one line for every layer with a window, one for all layers without."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vlmattn.capture.kept import RowBuffers
from vlmattn.capture.sites import AttentionSite


class VisibleColumns:
    """The lines of the buffer ``visible``, (B, lines, Q, K) bool; what is not written is visible.

    Layers without a window share one mask, so the first of them speaks for all. A single new row sees everything before
    it, so nothing is written for it, unless a mask of the user's hides columns (``masked``).

    Args:
        sites: the attention sites whose rows are kept.
    """

    def __init__(self, sites: Sequence[AttentionSite]) -> None:
        windowed = [site.layer_idx for site in sites if site.windowed]
        full = [site.layer_idx for site in sites if not site.windowed]
        self.speaker = full[0] if full else None
        self.line = {layer: line for line, layer in enumerate(windowed)} | dict.fromkeys(full, len(windowed))
        self.count = len(windowed) + bool(full)
        self.masked = False

    def wants(self, site: AttentionSite, rows: int) -> bool:
        """Whether ``site`` has to say what ``rows`` new rows see."""
        return site.windowed or (site.layer_idx == self.speaker and (rows > 1 or self.masked))

    def write(
        self, rows: RowBuffers, site: AttentionSite, first: int, seen: torch.Tensor, device: torch.device
    ) -> None:
        """Note that rows from ``first`` on see the columns ``seen`` (B, R, K)."""
        self._buffer(rows, device)[:, self.line[site.layer_idx], first : first + seen.shape[1]] = seen

    def held(self, rows: RowBuffers) -> torch.Tensor | None:
        """(B, lines, Q, K) of all kept rows; None if no layer had to say anything."""
        held = rows.get("visible")
        return None if held is None else self._buffer(rows, held.device)

    def _buffer(self, rows: RowBuffers, device: torch.device) -> torch.Tensor:
        shape = (rows.batch, self.count, rows.capacity, rows.columns)
        return rows.part("visible", shape, torch.bool, device, q_axis=2, fill=True)

    def of(self, kept: torch.Tensor | None, layers: Sequence[int]) -> torch.Tensor | None:
        """(L, Q, K) for ``layers`` from the (lines, Q, K) of one sequence; None where all is visible."""
        if kept is None or bool(kept.all()):
            return None
        if self.count == 1:
            return kept.expand(len(layers), -1, -1)
        return kept[[self.line[layer] for layer in layers]]
