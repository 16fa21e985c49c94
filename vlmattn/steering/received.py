"""Edits that depend on what each column of the prompt receives: mean attention over the prompt rows that see it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import torch

from vlmattn.capture import Where
from vlmattn.core.errors import CaptureError
from vlmattn.steering.method import Method


@dataclass(frozen=True, eq=False, kw_only=True)
class ByReceived(Method):
    """A method that looks at all prompt rows of a layer before it edits one."""

    _sums: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict, init=False, repr=False)

    def fresh(self) -> Self:
        """A copy that has seen no prompt."""
        return replace(self)

    def survey_rows(self, probs_bhrk: torch.Tensor, where: Where) -> None:
        """Adds up what columns receive from the rows of the prompt."""
        if self.neutral:
            return
        asked = self.prompt_rows(where)[:, None, :, None]
        rows = probs_bhrk if bool(asked.all()) else torch.where(asked, probs_bhrk, 0.0)
        total = rows.sum(dim=2).double()
        count = (where.visible & asked).sum(dim=2).double().expand_as(total)
        if where.layer_idx in self._sums:
            before = self._sums[where.layer_idx]
            fill = (0, total.shape[-1] - before[0].shape[-1])
            total = total + torch.nn.functional.pad(before[0], fill)
            count = count + torch.nn.functional.pad(before[1], fill)
        self._sums[where.layer_idx] = (total, count)

    @staticmethod
    def prompt_rows(where: Where) -> torch.Tensor:
        """(B, R) bool: rows of the prompt's own tokens."""
        ends = [pad + layout.answer_start for layout, pad in zip(where.layouts, where.pad_left, strict=True)]
        end = torch.as_tensor(ends, device=where.rows.device)[:, None]
        return (where.rows >= 0) & (where.rows < end)

    def received(self, where: Where) -> torch.Tensor:
        """(B, H, K) mean attention that the columns of this pass received in the prompt; 0 for those of the answer.

        Raises:
            CaptureError: the prompt was not seen.
        """
        if where.layer_idx not in self._sums:
            raise CaptureError(
                f"{type(self).__name__} did not see the prompt at layer {where.layer_idx}: run the whole prompt inside "
                "the session"
            )
        total, count = self._sums[where.layer_idx]
        mean = total / count.clamp_min(1)
        keys = where.column_kinds.shape[-1]
        shifted = mean[..., where.first_column : where.first_column + keys]
        return torch.nn.functional.pad(shifted, (0, keys - shifted.shape[-1]))
