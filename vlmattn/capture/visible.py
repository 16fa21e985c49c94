"""Which kept columns a kept row can see: one line per layer with a window, one for all others of a kind."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vlmattn.capture.kept import RowBuffers
from vlmattn.capture.sites import AttentionSite


class VisibleColumns:
    """The lines of the buffer ``visible``, (B, lines, Q, K) bool; what is not written is visible.

    Layers of one kind without a window share one mask, so the first of them speaks for all. A single new row sees
    everything before it, so nothing is written for it, unless a mask of the user's hides columns (``masked``) or some
    keys stand beside the tokens, of which some layers see none.

    Args:
        sites: the attention sites whose rows are kept. beside: whether there are keys beside the tokens.
    """

    def __init__(self, sites: Sequence[AttentionSite], *, beside: bool = False) -> None:
        names = [str(site.layer_idx) if site.windowed else site.kind for site in sites]
        order = sorted(dict.fromkeys(names), key=lambda name: not name.isdigit())
        self.line = {site.layer_idx: order.index(name) for site, name in zip(sites, names, strict=True)}
        self.speakers = {sites[names.index(name)].layer_idx for name in order}
        self.count = len(order)
        self.beside = beside
        self.masked = False

    def wants(self, site: AttentionSite, rows: int) -> bool:
        """Whether ``site`` has to say what ``rows`` new rows see."""
        if site.windowed:
            return True
        return site.layer_idx in self.speakers and (rows > 1 or self.masked or self.beside)

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
