"""Where each token's output comes from, through the layers of a tower: Abnar & Zuidema, "Quantifying Attention Flow in
Transformers", ACL 2020 (attention rollout)."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class Flow:
    """The product of attention matrices over layers, per view.

    A layer's matrix may come in blocks (windows) that do not cover a view; the rows of tokens outside a block stay as
    they are until their own block comes. One n x n matrix per view is held.

    Args:
        starts: (V + 1,) the first token of each view, and the end.
    """

    def __init__(self, starts: Sequence[int]) -> None:
        self.starts = tuple(starts)
        self._held: dict[int, torch.Tensor] = {}

    def step(self, first: int, attention: torch.Tensor, *, residual: bool = True) -> None:
        """Go through one block of one layer.

        Args:
            first: number of the block's first token. attention: (n, n), rows are queries.
            residual: take (A + I) / 2, its rows divided by their sums, as the paper does; else A itself.
        """
        view = next(v for v in range(len(self.starts) - 1) if first < self.starts[v + 1])
        count, size = attention.shape[0], self.starts[view + 1] - self.starts[view]
        if residual:
            attention = (attention + torch.eye(count, device=attention.device)) / 2
            attention = attention / attention.sum(dim=-1, keepdim=True)
        held = self._held.get(view)
        if held is None:
            held = self._held[view] = torch.eye(size, device=attention.device)
        rows = slice(first - self.starts[view], first - self.starts[view] + count)
        held[rows] = attention @ held[rows].to(attention.device)

    def matrices(self) -> tuple[torch.Tensor, ...]:
        """(n, n) of each view, rows are outputs; the identity where no layer was gone through."""
        sizes = [b - a for a, b in zip(self.starts[:-1], self.starts[1:], strict=True)]
        return tuple(self._held.get(v, torch.eye(n)) for v, n in enumerate(sizes))
