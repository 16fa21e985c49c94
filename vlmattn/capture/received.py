"""What every prompt token receives from all prompt rows that see it: whole matrices, summed row by row.

Rows are computed in parts of a few megabytes and added up, so that an N × N matrix never exists. The work is that of
eager attention.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vlmattn.capture.door import AttentionCall
from vlmattn.capture.rows import apply_mask, row_mask, row_probabilities, row_scores, rows_per_chunk, visible
from vlmattn.capture.sites import AttentionSite
from vlmattn.capture.spec import CaptureSpec
from vlmattn.capture.steering import Steering
from vlmattn.capture.step import BatchPlan, Step
from vlmattn.core.errors import SpecError
from vlmattn.core.layout import TokenLayout


def check_received(spec: CaptureSpec | None, layouts: Sequence[TokenLayout], steering: Sequence[Steering]) -> None:
    """Refuse to add up rows that are not those of the prompt alone, or not those the model used.

    Raises:
        SpecError: keys beside the prompt, or steering that changes rows.
    """
    if spec is None or not spec.received:
        return
    if any(layout.memory for layout in layouts):
        raise SpecError(
            "received=True adds up rows of the prompt, and this model sees pictures by keys beside it, which no row of "
            "the prompt is about: leave it out"
        )
    changing = [s.describe() for s in steering if s.edits_probabilities()]
    if changing:
        raise SpecError(f"received=True keeps the model's own attention, and {changing[0]} changes it: leave one out")


class ReceivedLog:
    """Sums of received attention, per layer slot, in padded positions.

    Args:
        plan: the batch. offload: hold them on the CPU.
    """

    def __init__(self, plan: BatchPlan, *, offload: bool = False) -> None:
        self.plan, self.offload = plan, offload
        self._sums: dict[int, torch.Tensor] = {}
        self._seen: dict[int, torch.Tensor] = {}

    @torch.no_grad()
    def add(self, slot: int, call: AttentionCall, step: Step, site: AttentionSite) -> None:
        """Add the rows of one layer in a pass over (a part of) the prompt."""
        first, end = step.first_columns.get(site.layer_idx, 0), self.plan.prompt_end
        count = min(step.count, end - step.start)
        batch, heads, keys = call.query.shape[0], call.query.shape[1], call.key.shape[2]
        last = min(first + keys, end)
        sums, seen = self._held(slot, batch, heads, call.query.device)
        for begin in range(0, count, rows_per_chunk(call)):
            rows = slice(begin, min(begin + rows_per_chunk(call), count))
            mask = row_mask(call, rows)
            probs = row_probabilities(call, apply_mask(row_scores(call, rows), mask), rows)
            real = self._real(rows, step.start, call.query.device)
            visible_to = (
                visible(mask, (batch, rows.stop - rows.start, keys), call.query.device).any(1) & real[..., None]
            )
            added = (probs * real[:, None, :, None]).sum(2)
            sums[..., first:last] += added[..., : last - first].to(sums.device)
            seen[..., first:last] += visible_to.sum(1)[..., : last - first].to(seen.device)

    def _held(self, slot: int, batch: int, heads: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        if slot not in self._sums:
            home = torch.device("cpu") if self.offload else device
            self._sums[slot] = torch.zeros((batch, heads, self.plan.prompt_end), device=home)
            self._seen[slot] = torch.zeros((batch, self.plan.prompt_end), dtype=torch.int64, device=home)
        return self._sums[slot], self._seen[slot]

    def _real(self, rows: slice, start: int, device: torch.device) -> torch.Tensor:
        # (B, R): rows of prompt tokens, no padding and no answer that was given.
        at = torch.arange(rows.start, rows.stop, device=device)[None] + start
        pads = torch.as_tensor(self.plan.pad_left, device=device)[:, None]
        ends = torch.as_tensor([layout.answer_start for layout in self.plan.layouts], device=device)[:, None] + pads
        return (at >= pads) & (at < ends)

    def of(self, item: int, slots: int) -> torch.Tensor | None:
        """(L, H, N) means of one sequence; NaN for tokens that no row sees, and where a layer has fewer heads."""
        if not self._sums:
            return None
        first = self.plan.pad_left[item]
        last = first + self.plan.layouts[item].answer_start
        heads = max(held.shape[1] for held in self._sums.values())
        out = torch.full((slots, heads, last - first), torch.nan)
        for slot, held in self._sums.items():
            counts = self._seen[slot][item, first:last].float()
            means = held[item, :, first:last] / counts
            out[slot, : held.shape[1]] = means.cpu()
        return out
