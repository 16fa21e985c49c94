"""Applies steering to the rows of one forward pass; only rows that changed are written back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from vlmattn.capture.door import AttentionCall
from vlmattn.capture.rows import (
    apply_mask,
    row_mask,
    row_probabilities,
    row_scores,
    rows_per_chunk,
    take_rows,
    visible,
    visible_to,
)
from vlmattn.capture.sites import AttentionSite
from vlmattn.capture.steering import Seen, Steering, Where
from vlmattn.capture.step import BatchPlan, KeptPart, Step, column_kinds
from vlmattn.capture.turned import turned_call
from vlmattn.core.errors import CaptureError

if TYPE_CHECKING:
    from vlmattn.capture.recording import Recording


class SteeredRows:
    """Steering during one forward pass.

    Args:
        steering: in the order they act. layers: of each of them. plan: the batch. step: the pass.
    """

    def __init__(
        self, steering: Sequence[Steering], layers: Sequence[frozenset[int]], plan: BatchPlan, step: Step
    ) -> None:
        self.steering, self.plan, self.step = tuple(steering), plan, step
        self.layers = {id(s): chosen for s, chosen in zip(self.steering, layers, strict=True)}
        self.first_rows = {id(s): self._first_rows(s) for s in self.steering}

    def acts_in(self, layer_idx: int) -> bool:
        """Whether any steering acts in ``layer_idx`` in this pass."""
        return any((self.first_rows[id(s)] < self.step.count).any() for s in self._active(layer_idx))

    def see(self, layer_idx: int, hidden: torch.Tensor) -> None:
        """Show the residual stream (B, q, d) at the input of a layer to those that look at it."""
        looking = [s for s in self._active(layer_idx) if s.sees_hidden()]
        if not looking or self.step.start >= self.plan.prompt_end:
            return
        end = self.step.start + self.step.count
        kinds = column_kinds(self.plan, self.step.start, self.step.count, end, hidden.device)
        seen = Seen(layer_idx, self.plan.layouts, self.plan.pad_left, self.step.start, kinds)
        for steering in looking:
            steering.see_hidden(hidden.detach(), seen)

    def _active(self, layer_idx: int) -> list[Steering]:
        return [s for s in self.steering if layer_idx in self.layers[id(s)]]

    def apply(
        self, site: AttentionSite, call: AttentionCall, output: torch.Tensor, recording: Recording | None
    ) -> torch.Tensor:
        """The attention output (B, Q, H, D_v) with the changes made; kept rows are recorded as the model used them."""
        active = self._active(site.layer_idx)
        kept = self.step.kept if recording is not None else None
        rewriting = [s for s in active if s.edits_probabilities()]
        if rewriting:
            output = self._rewrite(rewriting, site, call, output, kept, recording)
        output = self._scale(active, site, output, call)
        if kept is not None and recording is not None:
            self._record(site, call, output, kept, recording, rewritten=bool(rewriting))
        return output

    # -- rows ----------------------------------------------------------------------------------------------------------

    def _first_rows(self, steering: Steering) -> np.ndarray:
        # First query of this pass that is offered, per sequence.
        if steering.rows == "all":
            pairs = zip(self.plan.layouts, self.plan.pad_left, strict=True)
            return np.array([max(pad + layout.memory - self.step.start, 0) for layout, pad in pairs])
        if steering.rows == "last":
            return np.full(self.step.batch, self.step.count - 1)
        ends = []
        for layout, pad in zip(self.plan.layouts, self.plan.pad_left, strict=True):
            ends.append(pad + layout.image_end - self.step.start)
        return np.clip(np.array(ends), 0, self.step.count)

    def _rewrite(
        self,
        active: list[Steering],
        site: AttentionSite,
        call: AttentionCall,
        output: torch.Tensor,
        kept: KeptPart | None,
        recording: Recording | None,
    ) -> torch.Tensor:
        begin = min(int(self.first_rows[id(s)].min()) for s in active)
        size = rows_per_chunk(call)
        self._edited: list[tuple[slice, torch.Tensor, torch.Tensor | None]] = []
        whole = self._survey([s for s in active if s.surveys()], site, call, size)
        if any(s.edits_scores() for s in active):
            whole = None
        keep_from = kept.positions[kept.positions >= 0].min() - self.step.start if kept is not None else None
        for first in range(begin, self.step.count, size):
            rows = slice(first, min(first + size, self.step.count))
            held = None if whole is None else whole[:, :, rows]
            probs, mask, changed = self._edit(active, site, call, rows, held)
            if changed is not None:
                output = self._write(call, output, rows, probs, changed)
            if keep_from is not None and keep_from < rows.stop:
                self._edited.append((rows, probs, mask))
        return output

    def _survey(
        self, looking: list[Steering], site: AttentionSite, call: AttentionCall, size: int
    ) -> torch.Tensor | None:
        # Rows of the whole pass where one part holds them: editing them need not compute them again.
        if not looking or self.step.start >= self.plan.prompt_end:
            return None
        for first in range(0, self.step.count, size):
            rows = slice(first, min(first + size, self.step.count))
            mask = row_mask(call, rows)
            probs = row_probabilities(call, apply_mask(row_scores(call, rows), mask, own=True), rows)
            where = self._where(site, call, rows, mask)
            for steering in looking:
                steering.survey_rows(probs, where)
        return probs if self.step.count <= size else None

    def _edit(
        self,
        active: list[Steering],
        site: AttentionSite,
        call: AttentionCall,
        rows: slice,
        held: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        mask = row_mask(call, rows)
        where = self._where(site, call, rows, mask)
        changed: torch.Tensor | None = None
        if held is None:
            scores, changed = self._scores(active, call, rows, where)
            free = not any(s.edits_scores() for s in active)  # otherwise someone may have kept them
            probs = row_probabilities(call, apply_mask(scores, mask, own=free), rows)
        else:
            probs = held
        for steering in active:
            new = steering.edit_rows(probs, where)
            probs, changed = self._merge(steering, probs, new, rows, changed)
        return probs, mask, changed

    def _scores(
        self, active: list[Steering], call: AttentionCall, rows: slice, where: Where
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        scores, changed = row_scores(call, rows), None
        for steering in active:
            turned = turned_call(steering, call, rows, where)
            if turned is not None:
                call, touched = turned
                new = torch.where(touched[..., None], row_scores(call, rows), scores)
                scores, changed = self._merge(steering, scores, new, rows, changed)
        for steering in active:
            new_scores = steering.edit_scores(scores, where)
            scores, changed = self._merge(steering, scores, new_scores, rows, changed)
        return scores, changed

    def _merge(
        self,
        steering: Steering,
        old: torch.Tensor,
        new: torch.Tensor | None,
        rows: slice,
        changed: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if new is None or new is old:
            return old, changed
        if new.shape != old.shape:
            raise CaptureError(
                f"{steering.describe()} returned rows of shape {tuple(new.shape)}; expected {tuple(old.shape)}"
            )
        merged = new.float()
        if (self.first_rows[id(steering)] > rows.start).any():
            offered = self._offered(steering, rows, old.device)
            merged = torch.where(offered[:, None, :, None], merged, old)
        differs = (merged != old).any(dim=3)
        if not bool(differs.any()):
            return old, changed
        return merged, differs if changed is None else changed | differs

    def _offered(self, steering: Steering, rows: slice, device: torch.device) -> torch.Tensor:
        local = torch.arange(rows.start, rows.stop, device=device)
        return local[None, :] >= torch.as_tensor(self.first_rows[id(steering)], device=device)[:, None]

    @staticmethod
    def _write(
        call: AttentionCall, output: torch.Tensor, rows: slice, probs: torch.Tensor, changed: torch.Tensor
    ) -> torch.Tensor:
        batch, heads, count, keys = probs.shape
        groups = call.value.shape[1]
        grouped = probs.reshape(batch, groups, heads // groups * count, keys)
        new = torch.matmul(grouped, call.value.float()).view(batch, heads, count, -1).transpose(1, 2)
        output = output.clone()
        old = output[:, rows]
        output[:, rows] = torch.where(changed.transpose(1, 2)[..., None], new.to(output.dtype), old)
        return output

    def _scale(
        self, active: list[Steering], site: AttentionSite, output: torch.Tensor, call: AttentionCall
    ) -> torch.Tensor:
        for steering in active:
            first = int(self.first_rows[id(steering)].min())
            if first >= self.step.count:
                continue
            rows = slice(first, self.step.count)
            offered = self._offered(steering, rows, output.device)
            where = self._where(site, call, rows, row_mask(call, rows))
            factors = steering.scale_heads(where)
            if factors is not None and not bool((factors == 1).all()):
                shape = (output.shape[0], rows.stop - rows.start, output.shape[2])
                factors = torch.where(offered[..., None], factors.to(output.device, output.dtype).expand(shape), 1.0)
                output = output.clone()
                output[:, rows] = output[:, rows] * factors[..., None].to(output.dtype)
            output = self._replaced(steering, output, rows, where, offered)
        return output

    @staticmethod
    def _replaced(
        steering: Steering, output: torch.Tensor, rows: slice, where: Where, offered: torch.Tensor
    ) -> torch.Tensor:
        old = output[:, rows]
        new = steering.edit_heads(old, where)
        if new is None or new is old:
            return output
        if new.shape != old.shape:
            raise CaptureError(
                f"{steering.describe()} returned head outputs of shape {tuple(new.shape)}; expected {tuple(old.shape)}"
            )
        output = output.clone()
        output[:, rows] = torch.where(offered[..., None, None], new.to(output.dtype), old)
        return output

    # -- what is kept --------------------------------------------------------------------------------------------------

    def _record(
        self,
        site: AttentionSite,
        call: AttentionCall,
        output: torch.Tensor,
        kept: KeptPart,
        recording: Recording,
        *,
        rewritten: bool,
    ) -> None:
        first = self.step.first_columns.get(site.layer_idx, 0)
        for part in kept.split(rows_per_chunk(call)):
            scores, mask = row_scores(call, part.index), row_mask(call, part.index)
            probs = row_probabilities(call, apply_mask(scores, mask), part.index)
            if rewritten:
                probs = self._overlay_edits(part, probs)
            seen = visible_to(mask, scores) if recording.visible.wants(site, self.step.count) else None
            recording.add_rows(site, part, probs, seen, first)
            if recording.spec.head_norms:
                recording.add_head_norms(site, part, output)

    def _overlay_edits(self, part: KeptPart, probs: torch.Tensor) -> torch.Tensor:
        local = torch.as_tensor(np.maximum(part.positions - self.step.start, 0), device=probs.device)
        for rows, edited, _ in self._edited:
            inside = (local >= rows.start) & (local < rows.stop)
            if bool(inside.any()):
                index = (local - rows.start).clamp(0, rows.stop - rows.start - 1)
                probs = torch.where(inside[:, None, :, None], take_rows(edited, index), probs)
        return probs

    def _kinds(self, site: AttentionSite, first: int, keys: int, device: torch.device) -> torch.Tensor:
        end = self.step.start + self.step.count
        if site.kind != "merged":
            return column_kinds(self.plan, first, keys, end, device)
        own = column_kinds(self.plan, first, keys - self.plan.memory, end, device)
        return torch.cat([own, column_kinds(self.plan, 0, self.plan.memory, end, device)], dim=-1)

    def _where(self, site: AttentionSite, call: AttentionCall, rows: slice, mask: torch.Tensor | None) -> Where:
        first = self.step.first_columns.get(site.layer_idx, 0)
        device, keys = call.query.device, call.key.shape[2]
        positions = torch.arange(rows.start, rows.stop, device=device) + self.step.start
        firsts = [pad + lay.memory for lay, pad in zip(self.plan.layouts, self.plan.pad_left, strict=True)]
        pads = torch.as_tensor(firsts, device=device)[:, None]
        return Where(
            layer_idx=site.layer_idx,
            layouts=self.plan.layouts,
            rows=torch.where(positions[None] >= pads, positions[None], -1),
            column_kinds=self._kinds(site, first, keys, device),
            first_column=first,
            pad_left=self.plan.pad_left,
            is_prefill=self.step.is_prefill,
            visible=visible(mask, (call.query.shape[0], rows.stop - rows.start, keys), device),
        )


def leave_all(steering: Sequence[Steering]) -> None:
    """Have each let go of what its run needed."""
    for one in steering:
        one.leave()
