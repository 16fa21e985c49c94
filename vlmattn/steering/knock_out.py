"""Attention knock-out: rows of some tokens cannot see others, in some layers.

Geva, Bastings, Filippova & Globerson, "Dissecting Recall of Factual Associations in Auto-Regressive Language Models",
EMNLP 2023, arXiv 2304.14767, sec. 5: scores before softmax are set to minus infinity, so that the rest of a row takes
the weight. For vision-language models: "What's in the Image? A Deep-Dive into the Vision of Vision Language Models",
CVPR 2025, arXiv 2411.17491.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch

from vlmattn.capture import Steering, Where, model_sites
from vlmattn.capture.steering import EditRows
from vlmattn.core.errors import SpecError
from vlmattn.core.layout import TokenLayout
from vlmattn.heads.knockout import Block, block_named


@dataclass(frozen=True, eq=False)
class KnockOut(Steering):
    """Cuts attention from rows of one segment to columns of another, before softmax.

    Attributes:
        blocks: what is cut, such as ``image->answer``; see :func:`vlmattn.heads.block_named`.
        layers: layer numbers to cut in; None for all with attention.

    Other columns of a row share the freed weight, as softmax gives it. A row that would see nothing at all attends to
    nothing: its weights are 0, and the heads write zeros for it. In models that look at pictures by cross attention,
    that is what ``image->…`` does in the layers that look.

    Raises:
        SpecError: a block that does not exist; on asking, one of a picture that the prompt does not have.

    Example:
        >>> KnockOut(("image->question", "image->answer"), layers=(3, 4)).describe()
        'KnockOut: image->question, image->answer in layers 3, 4'
    """

    slot: ClassVar[str] = "scores"
    factors: ClassVar[bool] = True
    rows: ClassVar[EditRows] = "all"  # type: ignore[misc]

    blocks: Sequence[str | Block] = ("image->answer",)
    layers: tuple[int, ...] | None = None
    _merged: frozenset[int] = field(default=frozenset(), init=False, repr=False)

    def __post_init__(self) -> None:
        given = [self.blocks] if isinstance(self.blocks, (str, Block)) else list(self.blocks)
        if not given:
            raise SpecError("KnockOut has no block to cut: name one, such as 'image->answer'")
        object.__setattr__(self, "blocks", tuple(block_named(one) for one in given))

    @property
    def _cut(self) -> tuple[Block, ...]:
        return tuple(block_named(one) for one in self.blocks)

    def check(self, width: int | None, layouts: Sequence[TokenLayout]) -> None:
        """See :meth:`Steering.check`."""
        for layout in layouts:
            for block in self._cut:
                block.check(layout)

    def edit_scores(self, scores_bhrk: torch.Tensor, where: Where) -> torch.Tensor | None:
        """See the class."""
        cut = self._cells(where, scores_bhrk.shape[-1])
        return scores_bhrk.masked_fill(cut, -torch.inf) if bool((cut & where.visible).any()) else None

    def edit_rows(self, probs_bhrk: torch.Tensor, where: Where) -> torch.Tensor | None:
        """Zeros for rows that see nothing any more."""
        cut = self._cells(where, probs_bhrk.shape[-1])
        if not bool((cut & where.visible).any()):
            return None
        blind = where.visible.any(-1, keepdim=True) & ~(where.visible & ~cut).any(-1, keepdim=True)
        return torch.where(blind, 0.0, probs_bhrk) if bool(blind.any()) else None

    def _cells(self, where: Where, keys: int) -> torch.Tensor:
        # (B, 1, R, K) bool: what is cut.
        rows, kinds = where.rows.cpu().numpy(), where.column_kinds.cpu().numpy()
        out = np.zeros((*rows.shape, keys), dtype=np.bool_)
        padded = self._padded(where, keys)
        for item, (layout, pad) in enumerate(zip(where.layouts, where.pad_left, strict=True)):
            # Keys beside the tokens come first and are not padded on the left.
            columns = np.where(
                padded >= pad + layout.memory, padded - pad, np.where(padded < layout.memory, padded, -1)
            )
            positions = np.where(rows[item] < 0, -1, rows[item] - pad)
            for block in self._cut:
                hit, hidden = block.rows(layout, positions), block.columns(layout, columns, kinds[item])
                out[item] |= hit[:, None] & hidden[None]
            out[item] &= positions[:, None] != columns[None]
        return torch.as_tensor(out, device=where.rows.device)[:, None]

    def _padded(self, where: Where, keys: int) -> np.ndarray:
        # (K,) padded position of each column. Merged keys are the tokens, then those beside them.
        if where.layer_idx not in self._merged:
            return np.arange(keys) + where.first_column
        beside = max(layout.memory for layout in where.layouts)
        return np.concatenate([np.arange(keys - beside) + where.first_column, np.arange(beside)])

    def for_model(self, vlm: Any) -> KnockOut:
        """One that knows in which layers of ``vlm`` (or of a model) keys are tokens and pictures in one."""
        sites = model_sites(getattr(vlm, "model", vlm)).attention
        known = replace(self)
        object.__setattr__(known, "_merged", frozenset(site.layer_idx for site in sites if site.kind == "merged"))
        return known

    def describe(self) -> str:
        """One phrase for provenance."""
        cut = ", ".join(str(block) for block in self._cut)
        where = "all layers" if self.layers is None else f"layers {', '.join(str(layer) for layer in self.layers)}"
        return f"KnockOut: {cut} in {where}"
