"""The slots at which a run can be changed, all of them part of the engine.

=====  ===================================  =============================
slot   where                                method
=====  ===================================  =============================
A1 A2  scaled scores, before mask           :meth:`Steering.edit_scores`
B1-B3  probabilities, after softmax         :meth:`Steering.edit_rows`
C      head outputs, before W_O             :meth:`Steering.scale_heads`
D      logits                               :meth:`Steering.logits_processor`
E      the input                            :meth:`Steering.edit_input`
=====  ===================================  =============================

Additive (A1) and multiplicative (A2) edits share a slot because masked columns stay masked whatever is done to their
score; redistribution, zeroing and replacement (B1, B2, B3) differ in what they return, not in where they stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from vlmattn.core.layout import TokenLayout

EditRows = Literal["after_image", "last", "all"]


@dataclass(frozen=True)
class Where:
    """What a steering object is looking at.

    Attributes:
        layer_idx: the layer.
        layouts: one per sequence of the (expanded) batch.
        rows: (B, R) padded position of each row; -1 where a row of a ragged batch is only filler.
        column_kinds: (B, K) int8, :class:`~vlmattn.core.layout.TokenKind` of each key column, -1 for padding and
            columns beyond the sequence.
        first_column: padded position of key column 0 (not 0 once a sliding window has moved on).
        pad_left: left padding of each sequence.
        is_prefill: whether this forward pass starts at position 0.
    """

    layer_idx: int
    layouts: tuple[TokenLayout, ...]
    rows: torch.Tensor
    column_kinds: torch.Tensor
    first_column: int
    pad_left: tuple[int, ...]
    is_prefill: bool

    def columns(self, *kinds: int) -> torch.Tensor:
        """(B, 1, 1, K) bool: the columns of these token kinds."""
        hit = torch.zeros_like(self.column_kinds, dtype=torch.bool)
        for kind in kinds:
            hit |= self.column_kinds == kind
        return hit[:, None, None, :]


class Steering:
    """A change made while the model runs. Override the slots you use; the others leave the model alone.

    Attributes:
        rows: which rows are offered: ``after_image`` (text rows after the last image token, and every generated row),
            ``last`` (the last row of each forward pass) or ``all``.
        layers: layer indices to act in; None for all.

    Returning None (or exactly what was given) means *no change*: nothing is recomputed and the output of the model's
    own kernel stays as it is, bit for bit. Otherwise only the offered rows are recomputed.
    """

    rows: EditRows = "after_image"
    layers: tuple[int, ...] | None = None

    def edit_scores(self, scores_bhrk: torch.Tensor, where: Where) -> torch.Tensor | None:
        """New scaled scores (B, H, R, K) float32, before mask and softmax; or None."""
        return None

    def edit_rows(self, probs_bhrk: torch.Tensor, where: Where) -> torch.Tensor | None:
        """New attention rows (B, H, R, K) float32, after softmax; or None. They need not sum to one."""
        return None

    def scale_heads(self, where: Where) -> torch.Tensor | None:
        """Factors for head outputs, broadcastable to (B, R, H); or None."""
        return None

    def logits_processor(self) -> Any | None:
        """A transformers ``LogitsProcessor`` for ``generate``; or None."""
        return None

    def edit_input(self, encoded: Any) -> Any:
        """The input to run on instead of ``encoded``."""
        return encoded

    def describe(self) -> str:
        """One phrase for provenance."""
        return type(self).__name__

    def edits_attention(self) -> bool:
        """Whether any attention slot is overridden."""
        return self.edits_probabilities() or self._overrides("scale_heads")

    def edits_probabilities(self) -> bool:
        """Whether scores or probabilities are edited, so that rows have to be recomputed."""
        return self._overrides("edit_scores") or self._overrides("edit_rows")

    def _overrides(self, name: str) -> bool:
        return getattr(type(self), name) is not getattr(Steering, name)

    def acts_in(self, layer_idx: int) -> bool:
        """Whether this steering acts in ``layer_idx``."""
        return self.layers is None or layer_idx in self.layers
