"""How far rounding alone may move a row between two runs of a model: a bound for each row, from what the runs got.

A score is a dot product of D terms, so in arithmetic of unit roundoff u it is off by at most (D + 6) u times the sum
of their absolute values (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1; the 6 are scaling,
soft cap, bias and mask). Two kernels also give the next layer slightly different queries and keys; by how much that
moves the scores is measured from both runs. If no score of a row moves by more than δ, the odds of a probability p
change by at most exp(2 δ), which bounds p itself. Nothing of this depends on masks, so a row with the wrong ones is
found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from vlmattn.capture import door
from vlmattn.capture.door import AttentionCall
from vlmattn.capture.rows import row_scores, rows_per_chunk
from vlmattn.capture.sites import AttentionSite

_UNIT = 2.0**-24
_STEPS = 6
"""Roundings of a score besides its dot product: scaling, three of a soft cap, bias, mask."""


@dataclass(frozen=True)
class ScoreRounding:
    """What rounding may do to the scores of one layer.

    Attributes:
        moved_hq: (H, Q) float32, the most that any score of a row may differ between the two runs.
        size: largest sum of absolute terms of a score. head_size: D. dtype: of queries and keys.
    """

    moved_hq: torch.Tensor
    size: float
    head_size: int
    dtype: torch.dtype

    def allowed(self, rows: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        """(H, Q, K) how far each probability of ``rows`` may be from the other run's; ``queries``: which Q they are."""
        shift = (2 * self.moved_hq[:, queries][..., None]).clamp_max(85.0)  # exp(89) is infinite in float32
        summed = 2 * (rows.shape[-1] + 8) * _UNIT
        rest = (1 - rows).clamp_min(summed)  # of what is nearly 1, the rest is known to that
        more, less = torch.exp(shift), torch.exp(-shift)
        up, down = rest * (more - 1) / (rest + rows * more), rest * (1 - less) / (rest + rows * less)
        moved = rows * torch.maximum(up, down)
        of_type = torch.finfo(self.dtype)
        return moved + (summed + of_type.eps) * rows + of_type.smallest_normal


class ScoreWatch:
    """Stands at the door in two runs, one after the other, and says what rounding may do between them.

    Of each module the first call of each run counts: that of the prompt.
    """

    edits = False
    resting = False

    def __init__(self) -> None:
        self.found: dict[int, ScoreRounding] = {}
        self._first: dict[int, AttentionCall] = {}
        self._second = False

    def next_run(self) -> None:
        """What comes now is the second run."""
        self._second = True

    @torch.no_grad()
    def visit(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        """See :class:`~vlmattn.capture.door.Visitor`."""
        key = id(call.module)
        if not self._second:
            self._first.setdefault(key, _held(call, torch.device("cpu")))
        elif key in self._first and self._first[key].query.shape == call.query[:1].shape:
            here = call.query.device
            self.found[key] = rounding_between(_held(self._first.pop(key), here), _held(call, here))
        return output


@contextmanager
def watched(watch: ScoreWatch, sites: Sequence[AttentionSite]) -> Iterator[None]:
    """``watch`` at the door of ``sites`` while inside."""
    modules = [site.module for site in sites]
    door.subscribe(watch, modules)
    try:
        yield
    finally:
        door.unsubscribe(watch, modules)


def _held(call: AttentionCall, where: torch.device) -> AttentionCall:
    """Query, key and what makes scores of them, of the first sequence: copies, as models may write over them."""
    bias = call.options.get("position_bias")
    options = {name: call.options.get(name) for name in ("scaling", "softcap")}
    options["position_bias"] = None if bias is None else _copy(bias, where)
    key = _copy(call.key, where)
    return replace(call, query=_copy(call.query, where), key=key, value=key, mask=None, options=options)


def _copy(tensor: torch.Tensor, where: torch.device) -> torch.Tensor:
    return tensor[:1].detach().to(where, copy=True)


def rounding_between(one: AttentionCall, other: AttentionCall) -> ScoreRounding:
    """What rounding may do to the scores of a layer between two runs.

    Args:
        one, other: its calls for the same tokens; B = 1.
    """
    count, size = one.query.shape[2], rows_per_chunk(one)
    parts = [_moved(one, other, slice(first, min(first + size, count))) for first in range(0, count, size)]
    moved = torch.cat([part for part, _ in parts], dim=-1)
    return ScoreRounding(moved.cpu(), max(most for _, most in parts), int(one.query.shape[3]), other.query.dtype)


def _moved(one: AttentionCall, other: AttentionCall, rows: slice) -> tuple[torch.Tensor, float]:
    apart = (row_scores(one, rows) - row_scores(other, rows)).abs().amax(-1)[0]
    sizes = [row_scores(_absolute(call), rows).amax(-1)[0] for call in (one, other)]
    bias = one.options["position_bias"]
    largest = torch.maximum(*sizes)
    full = largest + (0.0 if bias is None else float(bias.abs().max()))
    exact = (one.query.shape[3] + _STEPS) * _UNIT
    other_type = one.query.shape[3] * _UNIT + _STEPS * torch.finfo(other.query.dtype).eps / 2
    # The scores compared here are rounded, too.
    return apart + (3 * exact + other_type) * full, float(largest.max())


def _absolute(call: AttentionCall) -> AttentionCall:
    options = {"scaling": call.options["scaling"], "softcap": None, "position_bias": None}
    return replace(call, query=call.query.abs(), key=call.key.abs(), options=options)
