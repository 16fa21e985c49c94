"""One generation or forward pass while it is being captured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlmattn.capture.candidates import CandidateLog
from vlmattn.capture.compose import KeptBlock, composed
from vlmattn.capture.door import AttentionCall
from vlmattn.capture.hidden import HiddenLog
from vlmattn.capture.kept import KeptRows, RowBuffers, select_rows
from vlmattn.capture.order import LineOrder
from vlmattn.capture.pending import PendingRows
from vlmattn.capture.received import ReceivedLog
from vlmattn.capture.rows import take_rows
from vlmattn.capture.sites import AttentionSite
from vlmattn.capture.spec import CaptureSpec
from vlmattn.capture.step import BatchPlan, KeptColumns, KeptPart, Step, key_parts
from vlmattn.capture.values import ValueNorms
from vlmattn.capture.visible import VisibleColumns
from vlmattn.core.errors import CaptureError, UnsupportedAttention

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


class Recording:
    """Buffers of one run and the rules by which they are filled.

    Args:
        spec: what to keep. sites, heads: the attention sites to keep rows of, and which heads. plan: rows and layouts
            of the batch. max_new_tokens: a bound on the answer's length if one is known; it sizes the buffers.
        most: rows that the budget allows. vision: what the vision tower saw, for each line of the batch. hops: what a
            resampler's queries looked at, likewise. own: a self attention whose keys tell whether lines change places.
            cache: that the run goes on with, if it is known.
    """

    def __init__(
        self,
        spec: CaptureSpec,
        sites: Sequence[AttentionSite],
        heads: Sequence[tuple[int, ...] | None],
        plan: BatchPlan,
        *,
        max_new_tokens: int | None = None,
        most: int | None = None,
        vision: Sequence[torch.Tensor | None] = (),
        hops: Sequence[torch.Tensor | None] = (),
        own: AttentionSite | None = None,
        cache: Any = None,
    ) -> None:
        self.spec, self.plan = spec, plan
        self.sites = tuple(sites)
        self.slot = {site.layer_idx: index for index, site in enumerate(self.sites)}
        self.columns = KeptColumns(spec, plan)
        self.heads = list(heads)
        self._widest = max(len(h) if h is not None else s.heads for h, s in zip(self.heads, self.sites, strict=True))
        capacity = plan.rows_kept(max_new_tokens or 32)
        batch = len(plan.layouts)
        width, layers = self.columns.width, len(self.sites)
        self.rows = RowBuffers(batch, layers, width, capacity, _DTYPES[spec.dtype], most=most)
        self.visible = VisibleColumns(self.sites, beside=any(layout.beside for layout in plan.layouts))
        self._lines = dict.fromkeys(range(len(self.sites)), 0)
        self.values = ValueNorms(spec.value_norms, self.columns, layers, batch, offload=spec.offload)
        self.hidden = HiddenLog(spec.offload, spec.hidden_top)
        self.received = ReceivedLog(plan, offload=spec.offload) if spec.received else None
        self.order = LineOrder(plan.copies, own.layer_idx if own is not None else None, cache)
        self.candidates = CandidateLog(spec.top_k, plan) if spec.top_k and spec.answer_rows() else None
        self.vision, self.hops = list(vision), list(hops)
        self.passes = 0
        self.finished = 0
        self.seen: dict[int, int] = dict.fromkeys(self.slot, 0)
        self._part_rows: dict[int, int] = {}
        self._gathered: list[tuple[AttentionSite, KeptPart, torch.Tensor]] = []
        self._pending = PendingRows(cache, self._add_at, lambda site: self.visible.wants(site, 1))
        plain = spec.reduce is None and not spec.head_norms and not spec.offload and not plan.memory
        self.gathers = plain and not any(s.windowed for s in self.sites) and all(h is None for h in self.heads)
        """Whether the single rows of a decoding pass may be kept for all layers at once, at its end."""
        self._may_wait = not spec.head_norms and not plan.memory and plan.copies == 1  # beams change places

    # -- while the model runs ------------------------------------------------------------------------------------------

    def begin(self, step: Step) -> None:
        """Note a new forward pass of the decoder."""
        self.passes += 1
        self._part_rows.clear()
        self._gathered.clear()
        if step.kept is not None:
            self.rows.reserve(step.kept.positions.shape[1])

    def end(self, step: Step) -> None:
        """Note that the pass went through all layers."""
        self._keep_gathered()
        self.finished += 1
        if step.kept is not None:
            self.rows.advance(step.kept.positions)

    def saw(self, site: AttentionSite, call: AttentionCall, step: Step) -> None:
        """Note that ``site`` came through the door in this pass.

        Raises:
            UnsupportedAttention: it came a second time.
        """
        self.seen[site.layer_idx] += 1
        if self.seen[site.layer_idx] > self.passes:
            raise UnsupportedAttention(
                f"layer {site.layer_idx} runs several times in one pass: it has several attention matrices, and rows"
                " are kept by layer. Choose layers= without it"
            )
        if self.values.kind is not None and step.start < self.plan.prompt_end:
            self._add_values(site, call, step)
        if self.received is not None and step.start < self.plan.prompt_end:
            self.received.add(self.slot[site.layer_idx], call, step, site)

    @torch.no_grad()
    def add_rows(
        self, site: AttentionSite, part: KeptPart, probs: torch.Tensor, seen: torch.Tensor | None, first_column: int
    ) -> None:
        """Keep (B, H, R, K) rows of one layer; parts of a layer come in order."""
        slot = self.slot[site.layer_idx]
        first = self.rows.used + self._part_rows.get(slot, 0)
        count = part.positions.shape[1]
        self._part_rows[slot] = self._part_rows.get(slot, 0) + count
        self._add_at(site, first, probs, seen, first_column)

    def _add_at(
        self,
        site: AttentionSite,
        first: int,
        probs: torch.Tensor,
        seen: torch.Tensor | None = None,
        first_column: int = 0,
    ) -> None:
        slot = self.slot[site.layer_idx]
        heads = self.heads[slot]
        if heads is not None:
            probs = probs[:, list(heads)]
        kept, masses = self._pick(site, probs, first_column), self._masses(site, probs, first_column)
        if self.spec.reduce == "mean":
            kept, masses = kept.mean(1, keepdim=True), masses.mean(1, keepdim=True)
        elif self.spec.reduce == "max":
            kept, masses = kept.amax(1, keepdim=True), masses.amax(1, keepdim=True)
        self._write("attn", slot, first, kept, self.rows.dtype)
        self._write("mass", slot, first, masses, torch.float32)
        if seen is not None:
            columns = self._pick(site, seen.to(torch.uint8), first_column)[:, 0].bool()
            self.visible.write(self.rows, site, first, columns, self._device(columns))

    def _pick(self, site: AttentionSite, rows: torch.Tensor, first_column: int) -> torch.Tensor:
        parts = [self.columns.pick(part, at) for part, at in key_parts(rows, site, first_column, self.plan.memory)]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def _masses(self, site: AttentionSite, rows: torch.Tensor, first_column: int) -> torch.Tensor:
        parts = [self.columns.masses(part, at) for part, at in key_parts(rows, site, first_column, self.plan.memory)]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def wait(self, site: AttentionSite, call: AttentionCall, first_column: int) -> bool:
        """Hold the single row of a decoding pass, to be computed with those of others; False if it cannot wait."""
        return self._may_wait and self._pending.take(site, call, self.rows.used, first_column)

    def settle(self) -> None:
        """Compute the rows that wait."""
        self._pending.settle()

    def gather(self, site: AttentionSite, part: KeptPart, probs: torch.Tensor) -> None:
        """Hold the one row (B, H, 1, K) of a layer in a decoding pass until :meth:`end`; see :attr:`gathers`."""
        self._gathered.append((site, part, probs))

    @torch.no_grad()
    def _keep_gathered(self) -> None:
        # One small operation for all layers instead of one each: decoding is made of small operations.
        held, self._gathered = self._gathered, []
        alike = {(probs.shape, probs.device) for _, _, probs in held}
        if len(held) != len(self.sites) or len(alike) != 1 or held[0][2].shape[1] != self._widest:
            for site, part, probs in held:
                self.add_rows(site, part, probs, None, 0)
            return
        held.sort(key=lambda one: self.slot[one[0].layer_idx])
        batch, heads, count, _ = held[0][2].shape
        block = torch.cat([probs for _, _, probs in held], dim=1)
        first, layers = self.rows.used, len(self.sites)
        if not self._lines[0]:
            self._lines = dict.fromkeys(range(layers), heads)
        for name, dtype, values in (
            ("attn", self.rows.dtype, self.columns.pick(block, 0)),
            ("mass", torch.float32, self.columns.masses(block, 0)),
        ):
            shape = (batch, layers, heads, self.rows.capacity, values.shape[-1])
            buffer = self.rows.part(name, shape, dtype, values.device, q_axis=3)
            buffer[:, :, :, first : first + count] = values.view(batch, layers, heads, count, -1)

    @torch.no_grad()
    def add_head_norms(self, site: AttentionSite, part: KeptPart, output: torch.Tensor) -> None:
        """Keep norms of head outputs (B, Q, H, D_v) at the rows of ``part``; call after :meth:`add_rows`."""
        slot = self.slot[site.layer_idx]
        first = self.rows.used + self._part_rows.get(slot, 0) - part.positions.shape[1]
        norms = take_rows(output.unsqueeze(1), part.index)[:, 0].float().norm(dim=-1).transpose(1, 2)
        shape = (self.rows.batch, self.rows.layers, norms.shape[1], self.rows.capacity)
        buffer = self.rows.part("head_norm", shape, torch.float32, self._device(norms), q_axis=3)
        buffer[:, slot, :, first : first + norms.shape[2]] = norms

    @torch.no_grad()
    def _add_values(self, site: AttentionSite, call: AttentionCall, step: Step) -> None:
        first = step.first_columns.get(site.layer_idx, 0)
        self.values.add(self.slot[site.layer_idx], site, call, step, first)

    def _device(self, like: torch.Tensor) -> torch.device:
        return torch.device("cpu") if self.spec.offload else like.device

    def _write(self, name: str, slot: int, first: int, values: torch.Tensor, dtype: torch.dtype) -> None:
        width = 1 if self.spec.reduce else self._widest or values.shape[1]
        shape = (self.rows.batch, self.rows.layers, width, self.rows.capacity, values.shape[-1])
        buffer = self.rows.part(name, shape, dtype, self._device(values), q_axis=3)
        heads, last = values.shape[1], first + values.shape[2]
        if heads > buffer.shape[2]:
            raise UnsupportedAttention(f"layers differ in heads: {heads} and {buffer.shape[2]}; choose layers=")
        buffer[:, slot, :heads, first:last] = values
        self._lines[slot] = heads
        if heads < buffer.shape[2]:
            buffer[:, slot, heads:, first:last] = torch.nan

    # -- afterwards ----------------------------------------------------------------------------------------------------

    def check_complete(self) -> None:
        """Refuse a recording that misses a layer.

        Raises:
            CaptureError: the decoder never ran, or its last pass did not come to its end.
            UnsupportedAttention: a layer's attention did not come through the door.
        """
        if not self.passes:
            raise CaptureError("nothing was captured: the model did not run inside the capture")
        if self.finished != self.passes:
            raise CaptureError(
                "the last forward pass did not come to its end inside the capture (it failed, was still running, or "
                "another thread ran the model): run it again, in one thread"
            )
        missing = [layer for layer, count in self.seen.items() if count != self.passes]
        if missing:
            raise UnsupportedAttention(
                f"attention of layers {missing} bypassed the dispatch in {self.passes} forward passes; "
                "choose layers= without them"
            )

    def kept(self, item: int, beams: NDArray[np.int64] | None, written: int | None) -> KeptRows:
        """The record of one sequence.

        Args:
            item: line of the batch, or of the first beam. beams: (T,) batch line that wrote each answer token, for
                beam search. written: number of answer tokens, or None for what was kept.
        """
        self.settle()
        plan, positions = self.plan, self.rows.all_positions()
        layout, pad = plan.layouts[item], plan.pad_left[item]
        first = pad + layout.memory - plan.memory
        lines, slots, where = self._trail(item, beams, written, positions)

        def rows(buffer: torch.Tensor | None, axis: int) -> torch.Tensor | None:
            return None if buffer is None else _gather(buffer, lines, slots, axis)

        attn, mass = rows(self.rows.get("attn"), 3), rows(self.rows.get("mass"), 3)
        if attn is None or mass is None:
            raise CaptureError("no row was kept: the rows asked for never ran (is the answer empty?)")
        seen = self.visible.of(rows(self.visible.held(self.rows), 2), tuple(self.slot))
        part = KeptBlock.cut(self.columns.positions[item], attn, seen)
        if len(layout.latent_positions):
            part = composed(part, layout, self.hops[item] if self.hops else None)
        return KeptRows(
            layout=layout,
            layers=tuple(self.slot),
            heads=self._head_names(),
            positions=where - pad,
            columns=part.columns,
            attn_lhqk=part.attn_lhqk,
            segments=self.columns.segments,
            mass_lhqs=mass,
            visible_lqk=part.seen_lqk,
            value_norm_lhk=self.values.of(item, len(part.columns)),
            head_norm_lhq=rows(self.rows.get("head_norm"), 3),
            hidden=self.hidden.stats(
                item, first, first + layout.answer_start - layout.memory, self.spec.hidden_coords, before=layout.memory
            ),
            candidates=self.candidates.of(item, beams, written) if self.candidates else None,
            vision=self.vision[item] if self.vision else None,
            blind=tuple(s.layer_idx for s in self.sites if layout.beside and not s.sees_memory),
            composed=part.told,
            received_lhn=self.received.of(item, len(self.sites)) if self.received else None,
        )

    def _head_names(self) -> tuple[tuple[int | str, ...], ...]:
        if self.spec.reduce:
            return ((self.spec.reduce,),) * len(self.sites)
        return tuple(tuple(range(self._lines[slot])) if h is None else h for slot, h in enumerate(self.heads))

    def _trail(
        self, item: int, beams: NDArray[np.int64] | None, written: int | None, positions: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        # Batch line, buffer row and padded position of each kept row of one sequence.
        end = self.plan.prompt_end
        slots = np.flatnonzero(positions[item] >= 0)
        where = positions[item, slots]
        if written is not None:
            # Which line the last token's own row would be in is not told by beams.
            query = self.spec.convention == "query" and beams is None
            last = end + written - (1 if query else 2)
            slots, where = slots[where <= max(last, end - 1)], where[where <= max(last, end - 1)]
        lines = np.full(len(slots), item, dtype=np.int64)
        if beams is not None and len(beams):
            step = np.clip(where - (end - 1), 0, len(beams) - 1)
            lines = np.where(where >= end - 1, beams[step], beams[0])
        return lines, slots, where


def _gather(buffer: torch.Tensor, lines: NDArray[np.int64], slots: NDArray[np.int64], axis: int) -> torch.Tensor:
    """(B, …, Q, …) → (…, len(slots), …) along ``axis`` (counted with the batch); a view where one line suffices."""
    if not len(lines) or (lines == lines[0]).all():
        line = int(lines[0]) if len(lines) else 0
        return select_rows(buffer[line], slots, axis - 1)
    runs = [select_rows(buffer[int(b)], slots[i : i + 1], axis - 1) for i, b in enumerate(lines)]
    return torch.cat(runs, dim=axis - 1)
