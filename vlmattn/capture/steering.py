"""The slots at which a run can be changed, all of them part of the engine.

=====  ===================================  =====================================================
slot   where                                method
=====  ===================================  =====================================================
-      queries and keys, before the scores  :meth:`Steering.edit_queries_keys`
A1 A2  scaled scores, before mask           :meth:`Steering.edit_scores`
B1-B3  probabilities, after softmax         :meth:`Steering.edit_rows`
C      head outputs, before W_O             :meth:`Steering.scale_heads`, :meth:`Steering.edit_heads`
D      logits                               :meth:`Steering.logits_processor`, :meth:`Steering.writing`
E      the input                            :meth:`Steering.edit_input`
-      reads the residual stream            :meth:`Steering.see_hidden`
=====  ===================================  =====================================================

Additive (A1) and multiplicative (A2) edits share a slot because masked columns stay masked whatever is done to their
score; redistribution, zeroing and replacement (B1, B2, B3) differ in what they return, not in where they stand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from vlmattn.capture.choices import are_whole
from vlmattn.core.errors import SpecError
from vlmattn.core.layout import TokenLayout

EditRows = Literal["after_image", "last", "all"]
_ROWS = get_args(EditRows)


@dataclass(frozen=True)
class Where:
    """What a steering object is looking at.

    Attributes:
        layer_idx: the layer.
        layouts: one per sequence of the (expanded) batch.
        rows: (B, R) padded position of each row; -1 where a row of a ragged batch is only filler.
        column_kinds: (B, K) int8, :class:`~vlmattn.core.layout.TokenKind` of each key column, -1 for padding and
            columns beyond the last row of this pass (unwritten places of a static cache).
        visible: (B, 1|H, R, K) bool, which columns each row can see: not those of later tokens, padding, or out of the
            layer's window. Weight that is put on others would let a row see them.
        first_column: padded position of key column 0 (not 0 once a sliding window has moved on, nor where keys beside
            the tokens come first and this layer does not look at them).
        pad_left: left padding of each sequence: position in the layout plus this is the padded position.
        is_prefill: whether this forward pass starts at position 0.
    """

    layer_idx: int
    layouts: tuple[TokenLayout, ...]
    rows: torch.Tensor
    column_kinds: torch.Tensor
    first_column: int
    pad_left: tuple[int, ...]
    is_prefill: bool
    visible: torch.Tensor

    def columns(self, *kinds: int) -> torch.Tensor:
        """(B, 1, 1, K) bool: the columns of these token kinds."""
        hit = torch.zeros_like(self.column_kinds, dtype=torch.bool)
        for kind in kinds:
            hit |= self.column_kinds == kind
        return hit[:, None, None, :]


@dataclass(frozen=True)
class Seen:
    """Whose residual stream a steering object is shown.

    Attributes:
        layer_idx: the layer whose input it is. layouts, pad_left: as in :class:`Where`.
        start: padded position of the first token of the pass; the rest follow without a gap.
        kinds: (B, q) int8, :class:`~vlmattn.core.layout.TokenKind` of each token, -1 for padding.
    """

    layer_idx: int
    layouts: tuple[TokenLayout, ...]
    pad_left: tuple[int, ...]
    start: int
    kinds: torch.Tensor


class Steering:
    """A change made while the model runs. Override the slots you use; the others leave the model alone.

    Attributes:
        rows: which rows are offered: ``after_image`` (text rows after the last image token, and every generated row),
            ``last`` (the last row of each forward pass) or ``all``.
        layers: layer indices to act in (negative ones count from the end); None for all.

    Returning None (or exactly what was given) means *no change*: nothing is recomputed and the output of the model's
    own kernel stays as it is, bit for bit. Otherwise only the offered rows are recomputed.
    """

    rows: EditRows = "after_image"
    layers: tuple[int, ...] | None = None

    def survey_rows(self, probs_bhrk: torch.Tensor, where: Where) -> None:
        """Look at attention rows (B, H, R, K) after softmax, before any row of this layer is edited; in
        prompt passes only, in parts of R rows. For edits of a row that depend on the rows of others."""

    def edit_queries_keys(
        self, query_bhrd: torch.Tensor, key_bgkd: torch.Tensor, where: Where
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """New queries (B, H, R, D) and keys for these rows, as the kernel gets them (rotated, normed); or None.

        Keys come as (B, G, K, D), one for each group of heads, and may go out as (B, H, K, D), one for each head.
        They are what these rows meet, in this pass: the cache and other rows keep the model's own.
        """
        return None

    def edit_scores(self, scores_bhrk: torch.Tensor, where: Where) -> torch.Tensor | None:
        """New scaled scores (B, H, R, K) float32, before mask and softmax; or None."""
        return None

    def edit_rows(self, probs_bhrk: torch.Tensor, where: Where) -> torch.Tensor | None:
        """New attention rows (B, H, R, K) float32, after softmax; or None. They need not sum to one."""
        return None

    def scale_heads(self, where: Where) -> torch.Tensor | None:
        """Factors for head outputs, broadcastable to (B, R, H); or None."""
        return None

    def edit_heads(self, outputs_brhd: torch.Tensor, where: Where) -> torch.Tensor | None:
        """New head outputs (B, R, H, D_v) instead of A·V, before W_O and after :meth:`scale_heads`; or None."""
        return None

    def logits_processor(self) -> Any | None:
        """A transformers ``LogitsProcessor`` for ``generate``; or None."""
        return None

    def writing(
        self, model: Any, encoded: Any, settings: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[Any | None]:
        """A context that is open while an answer is written, and gives a ``LogitsProcessor`` of this one run; or None.

        Args:
            model: transformers model. encoded: the input that it gets, after :meth:`edit_input`. settings: of
                ``generate``, as far as they are known.

        Raises:
            SpecError: on entering, before anything runs: an input or a way of decoding that it cannot act on.
        """
        return nullcontext()

    def edit_input(self, encoded: Any) -> Any:
        """The input to run on instead of ``encoded``."""
        return encoded

    def see_hidden(self, hidden_bqd: torch.Tensor, seen: Seen) -> None:
        """Look at the residual stream (B, q, d) at the input of a layer, before the layer's attention; prompt passes
        only. What is kept of it belongs to one run: see :meth:`fresh`."""

    def fresh(self) -> Steering:
        """The object that acts in one run, from its first pass on; itself, unless it holds something of a run."""
        return self

    def searches(self) -> bool:
        """Whether it writes answers by a search of its own, one prompt at a time: see :meth:`search`."""
        return False

    def search(self, model: Any, encoded: Any, *, most: int, ends: Sequence[int]) -> tuple[int, ...]:
        """The tokens of the answer to one prompt; only of those that :meth:`searches`.

        Args:
            most: how many tokens at most. ends: tokens that end an answer.
        """
        raise NotImplementedError

    def leave(self) -> None:
        """Let go of what a run needed; called when its session closes, whatever happened."""

    def for_model(self, vlm: Any) -> Steering:
        """The object that acts in ``vlm``, which may know what this one was not told; called before anything runs."""
        return self

    def check(self, width: int | None, layouts: Sequence[TokenLayout]) -> None:
        """Raise a SpecError for a model or a prompt that it cannot act on; called before anything runs.

        Args:
            width: coordinates of the residual stream, if known. layouts: of the batch.
        """

    def describe(self) -> str:
        """One phrase for provenance."""
        return type(self).__name__

    def parts(self) -> tuple[Steering, ...]:
        """What it is made of, in the order in which they act: itself, unless it joins several."""
        return (self,)

    def edits_attention(self) -> bool:
        """Whether any attention slot is overridden."""
        return self.edits_probabilities() or self._overrides("scale_heads") or self._overrides("edit_heads")

    def edits_probabilities(self) -> bool:
        """Whether scores or probabilities are edited, so that rows have to be recomputed."""
        return self.edits_scores() or self._overrides("edit_rows")

    def edits_scores(self) -> bool:
        """Whether it edits what comes before softmax, or looks at it."""
        return self._overrides("edit_queries_keys") or self._overrides("edit_scores")

    def sees_hidden(self) -> bool:
        """Whether it looks at the residual stream."""
        return self._overrides("see_hidden")

    def surveys(self) -> bool:
        """Whether it looks at all rows before it edits one."""
        return self._overrides("survey_rows")

    def _overrides(self, name: str) -> bool:
        return getattr(type(self), name) is not getattr(Steering, name)

    def acts_without_writing(self) -> bool:
        """Whether it does anything to a run that writes nothing, as with a given answer."""
        return self.edits_attention() or self._overrides("edit_input")

    def layers_among(self, present: Sequence[int]) -> frozenset[int]:
        """The layers to act in, of those ``present`` in a model.

        Raises:
            SpecError: a layer that is not there, or rows that no rule names.
        """
        if self.rows not in _ROWS:
            raise SpecError(f"rows of {self.describe()} must be one of {', '.join(_ROWS)}; got {self.rows!r}")
        if self.layers is None:
            return frozenset(present)
        if not are_whole(self.layers):
            raise SpecError(f"layers of {self.describe()} must be layer numbers or None; got {self.layers!r}")
        depth = max(present) + 1
        chosen = [layer + depth if layer < 0 else layer for layer in self.layers]
        missing = [layer for layer, index in zip(self.layers, chosen, strict=True) if index not in present]
        if missing or not chosen:
            raise SpecError(
                f"{self.describe()} has no attention to act on in layer {missing or '(none given)'}; "
                f"layers are {sorted(present)}"
            )
        return frozenset(chosen)
