"""Attention of the vision tower to its own patches, for those who ask for it."""

from __future__ import annotations

import torch

from vlmattn.capture.door import AttentionCall
from vlmattn.capture.rows import apply_mask, row_mask, row_probabilities, row_scores, rows_per_chunk


def tower_rows(call: AttentionCall, kind: str) -> torch.Tensor:
    """Attention over the N tokens of the tower: (crops, H, N) float32.

    Args:
        call: one attention call of the tower.
        kind: ``cls`` for the row of token 0; ``received`` for the mean over all queries, computed in parts so that no
            N × N matrix is held.
    """
    if kind == "cls":
        return _rows(call, slice(0, 1))[:, :, 0]
    count = call.query.shape[2]
    size = rows_per_chunk(call)
    total = sum(_rows(call, slice(first, min(first + size, count))).sum(2) for first in range(0, count, size))
    return torch.as_tensor(total) / count


def _rows(call: AttentionCall, rows: slice) -> torch.Tensor:
    scores = row_scores(call, rows)
    return row_probabilities(call, apply_mask(scores, row_mask(call, rows)))
