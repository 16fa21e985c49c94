"""What was kept: growing buffers while the model runs, one record per sequence afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vlmattn.capture.spec import KNOBS
from vlmattn.core.errors import BudgetExceeded
from vlmattn.core.layout import TokenLayout


@dataclass(frozen=True)
class KeptRows:
    """Everything a capture kept of one sequence.

    Positions count from the first real token of the sequence (left padding removed).

    Attributes:
        layout: the prompt's tokens.
        layers: (L,) layer index of each line of axis 0.
        heads: per layer, the kept head indices; ("mean",) or ("max",) after a reduction.
        positions: (Q,) query positions of the rows, ascending.
        columns: (K,) key positions of the kept columns.
        attn_lhqk: (L, H, Q, K) attention rows on those columns, not renormalised. Where layers keep different numbers
            of heads, H is the largest, and lines from ``len(heads[l])`` on are NaN.
        segments: names of axis S. mass_lhqs: (L, H, Q, S) total attention on each segment, float32; NaN likewise.
        visible_lqk: (L, Q, K) bool, whether the row can see the column at all: False where the column comes later than
            the row, where the layer's window has moved past it, or where a mask hides it. None if every kept row sees
            every kept column in every layer.
        value_norm_lhk: (L, H_all, K) value norms; head_norm_lhq: (L, H_all, Q) head-output norms, both for every head
            of the layer whatever ``heads`` says; None if not kept.
        hidden: residual-stream statistics of the prompt tokens, or None.
        candidates: next-token statistics at the predicting rows of answer tokens, or None.
        vision: attention of the vision tower, (L_v, crops, H, patches), or None.
        blind: those of ``layers`` that look at no picture, because its keys stand beside the tokens and the layer is no
            cross attention; their kept image columns are 0.
        composed: how attention to patches was composed of two hops; empty where the model attends to them itself.
        received_lhn: (L, H, N) mean of what each prompt token receives from the prompt rows that see it; NaN where a
            layer has fewer heads.
    """

    layout: TokenLayout
    layers: tuple[int, ...]
    heads: tuple[tuple[int | str, ...], ...]
    positions: NDArray[np.int64]
    columns: NDArray[np.int64]
    attn_lhqk: torch.Tensor
    segments: tuple[str, ...]
    mass_lhqs: torch.Tensor
    visible_lqk: torch.Tensor | None = None
    value_norm_lhk: torch.Tensor | None = None
    head_norm_lhq: torch.Tensor | None = None
    hidden: HiddenStats | None = None
    candidates: Candidates | None = None
    vision: torch.Tensor | None = None
    blind: tuple[int, ...] = ()
    composed: str = ""
    received_lhn: torch.Tensor | None = None


@dataclass(frozen=True)
class HiddenStats:
    """Residual stream at the input of each layer, for N prompt tokens; NaN (and -1) for keys beside them, without one.

    Attributes:
        layers: layer indices. rms_ln: (L, N) root mean square. peak_ln: (L, N) largest |x|. peak_coord_ln: (L, N) its
            coordinate. coords: which coordinates were kept. coord_lnc: (L, N, C) their values.
        width: coordinates of the residual stream.
        top_coord_lnk, top_value_lnk: (L, N, K) the largest coordinates and their values, largest |x| first; median_ln:
            (L, N) median |x|. None unless asked for.
    """

    layers: tuple[int, ...]
    rms_ln: torch.Tensor
    peak_ln: torch.Tensor
    peak_coord_ln: torch.Tensor
    coords: tuple[int, ...]
    coord_lnc: torch.Tensor
    width: int = 0
    top_coord_lnk: torch.Tensor | None = None
    top_value_lnk: torch.Tensor | None = None
    median_ln: torch.Tensor | None = None


@dataclass(frozen=True)
class Candidates:
    """Next-token statistics of T answer tokens, from the model's own logits (before any processor), natural logs.

    Attributes:
        entropy_t: (T,) nats. top_ids_tk, top_logp_tk: (T, k) most likely tokens and their log-probabilities.
        chosen_logp_t: (T,) log-probability of the token that was written; NaN where it is not known.
    """

    entropy_t: NDArray[np.float32]
    top_ids_tk: NDArray[np.int64]
    top_logp_tk: NDArray[np.float32]
    chosen_logp_t: NDArray[np.float32]


class RowBuffers:
    """Growing (B, L, H, Q, K) storage. Memory of rows that are never written is never touched on the CPU.

    Args:
        batch, layers, columns: extents. capacity: rows to make room for at first. most: rows that the budget allows.
        dtype: of the attention rows.
    """

    def __init__(
        self, batch: int, layers: int, columns: int, capacity: int, dtype: torch.dtype, *, most: int | None = None
    ) -> None:
        self.batch, self.layers, self.columns = batch, layers, columns
        self.capacity = max(capacity, 1)
        self.most = most
        self.dtype = dtype
        self.used = 0
        self.positions: list[NDArray[np.int64]] = []
        self._parts: dict[str, torch.Tensor] = {}

    def part(
        self,
        name: str,
        width: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        q_axis: int,
        *,
        fill: bool | None = None,
    ) -> torch.Tensor:
        """The buffer ``name``, created on first use with shape ``width`` and grown along ``q_axis`` when it is full.

        Args:
            fill: the value of all that is not written; None leaves it undefined, for buffers that are written in full.
        """
        held = self._parts.get(name)
        if held is not None and held.shape[q_axis] >= self.capacity:
            return held
        shape = list(width if held is None else held.shape)
        shape[q_axis] = self.capacity
        grown = torch.empty(shape, dtype=dtype, device=device)
        if fill is not None:
            grown.fill_(fill)
        if held is not None:
            grown.narrow(q_axis, 0, held.shape[q_axis]).copy_(held)
        self._parts[name] = grown
        return grown

    def get(self, name: str) -> torch.Tensor | None:
        """A buffer, or None if nothing was written under that name."""
        return self._parts.get(name)

    def reserve(self, rows: int) -> None:
        """Make room for ``rows`` more rows.

        Raises:
            BudgetExceeded: more than the budget allows.
        """
        needed = self.used + rows
        if needed <= self.capacity:
            return
        if self.most is not None and needed > self.most:
            raise BudgetExceeded(
                f"the budget has room for {self.most} rows of each sequence, and the run needs {needed}: lower "
                f"max_new_tokens, {KNOBS}"
            )
        while needed > self.capacity:
            self.capacity *= 2
        if self.most is not None:
            self.capacity = min(self.capacity, self.most)

    def advance(self, positions: NDArray[np.int64]) -> None:
        """Note that rows at ``positions`` (B, R) were written by every layer."""
        self.positions.append(positions)
        self.used += positions.shape[1]

    def all_positions(self) -> NDArray[np.int64]:
        """(B, used) padded positions of all rows; -1 for filler."""
        if not self.positions:
            return np.empty((self.batch, 0), dtype=np.int64)
        return np.concatenate(self.positions, axis=1)


def select_rows(tensor: torch.Tensor, rows: Sequence[int] | NDArray[np.int64], axis: int) -> torch.Tensor:
    """``tensor`` at ``rows`` of ``axis``: a view for a run without gaps, else a copy."""
    index = np.asarray(rows, dtype=np.int64)
    if len(index) and (np.diff(index) == 1).all():
        return tensor.narrow(axis, int(index[0]), len(index))
    return tensor.index_select(axis, torch.as_tensor(index, device=tensor.device))
