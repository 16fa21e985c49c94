"""ACT: sinks of the text give up part of their attention to all other columns of the row.

Yu et al., "Unveiling and Harnessing Hidden Attention Sinks: Enhancing Large Language Models without Training through
Attention Calibration", ICML 2024, arXiv 2406.15765. In each head, a column other than the first token is a sink where
its mean attention over the N rows of the prompt that see it is above alpha / N. With S the sinks, in every row:

    A'[j] = beta A[j]                                              j in S
    A'[j] = A[j] + (1 - beta) (sum_S A) A[j] / sum_R A             j in R, the columns that are neither sink nor first
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from vlmattn.capture import Where, model_sites
from vlmattn.capture.steering import EditRows
from vlmattn.core.errors import SpecError
from vlmattn.steering.method import Heads, Slot, check_heads, check_pairs
from vlmattn.steering.received import ByReceived


@dataclass(frozen=True, eq=False, kw_only=True)
class ACT(ByReceived):
    """Attention calibration, in every row.

    Attributes:
        alpha: how many times the even share a sink receives. beta: share of their attention that sinks keep; 1 changes
            nothing, bit for bit. heads: (layer, head) pairs to act in, which the paper chooses on held-out examples;
            None for all. layers: None for all but the first two and the last.

    Sinks are those of the prompt alone; the first token always keeps what it has. Sums of rows stay what they were. All
    rows of the prompt are computed once more, twice where one part of them does not hold all: more than 1.1 times the
    prompt's own cost.

    Raises:
        SpecError: values out of range, or no layer left; on asking, a head that does not exist.

    Example:
        >>> ACT().beta
        0.4
    """

    slot: ClassVar[Slot] = "rows"
    rows: ClassVar[EditRows] = "all"  # type: ignore[misc]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"alpha": 5.0, "beta": 0.4}}

    alpha: float = 5.0
    beta: float = 0.4
    heads: Heads | None = None

    def __post_init__(self) -> None:
        self._check_number("alpha", 0)
        self._check_number("beta", 0, 1)
        if self.heads is not None:
            object.__setattr__(self, "heads", check_pairs("ACT", self.heads))
            if self.layers is not None:
                raise SpecError("the heads of ACT say in which layers it acts: leave layers out")

    @property
    def neutral(self) -> bool:
        """See :class:`Method`."""
        return self.beta == 1

    def for_model(self, vlm: Any) -> ACT:
        """Itself, if the model has the heads.

        Raises:
            SpecError: a head that does not exist.
        """
        sites = model_sites(getattr(vlm, "model", vlm))
        check_heads(self.heads or (), {s.layer_idx: s.heads for s in sites.attention})
        return self

    def layers_among(self, present: Sequence[int]) -> frozenset[int]:
        """See the class."""
        chosen = super().layers_among(present)
        if self.heads is not None:
            return self.layers_of_heads(present, self.heads)
        if self.layers is not None:
            return chosen
        left = frozenset(n for n in chosen if 2 <= n < max(present))
        if not left:
            raise SpecError(f"ACT leaves the first two layers and the last alone, and there are {sorted(present)}")
        return left

    def edit_rows(self, probs_bhrk: torch.Tensor, where: Where) -> torch.Tensor | None:
        """See the module."""
        if self.neutral:
            return None
        first, sinks = self._columns(where)
        if not bool(sinks.any()):
            return None
        acting = sinks.any(dim=-1).any(dim=2).any(dim=0).nonzero()[:, 0]
        some = len(acting) < sinks.shape[1]
        rows = probs_bhrk[:, acting] if some else probs_bhrk
        edited = self._calibrated(rows, first, sinks[:, acting], where)
        return probs_bhrk.index_copy(1, acting, edited) if some else edited

    def _calibrated(
        self, rows_bhrk: torch.Tensor, first: torch.Tensor, sinks: torch.Tensor, where: Where
    ) -> torch.Tensor:
        # Every column times what its row gives to it, then the few that are a sink of some head, or first, put right.
        rest = (~sinks & ~first & (where.column_kinds >= 0)[:, None, None]).float()
        freed = (1 - self.beta) * torch.matmul(rows_bhrk, sinks.float().transpose(2, 3)).double()  # (B, H, R, 1)
        left = torch.matmul(rows_bhrk, rest.transpose(2, 3)).double()
        there = left > 0
        given = 1 + torch.where(there, freed / left.clamp_min(torch.finfo(torch.float64).tiny), 0.0).float()
        edited = rows_bhrk * given
        few = (rest == 0).flatten(0, 2).any(dim=0).nonzero()[:, 0]
        kept = torch.where(there, self.beta, 1.0).float()
        factors = torch.where(sinks[..., few], kept, torch.where(rest[..., few] > 0, given, 1.0))
        edited[..., few] = rows_bhrk[..., few] * factors
        return edited

    def _columns(self, where: Where) -> tuple[torch.Tensor, torch.Tensor]:
        # (B, 1, 1, K) the first token, (B, H, 1, K) sinks.
        device, keys = where.column_kinds.device, where.column_kinds.shape[-1]
        at = torch.arange(keys, device=device) + where.first_column
        pairs = list(zip(where.layouts, where.pad_left, strict=True))
        starts = torch.as_tensor([pad + layout.memory for layout, pad in pairs], device=device)
        counts = torch.as_tensor([layout.answer_start - layout.memory for layout, _ in pairs], device=device)
        first = (at[None] == starts[:, None])[:, None, None]
        received = self.received(where)
        sinks = (received > self.alpha / counts[:, None, None])[:, :, None] & ~first
        if self.heads is not None:
            acts = torch.zeros(received.shape[1], dtype=torch.bool, device=device)
            acts[[head for layer, head in self.heads if layer == where.layer_idx]] = True
            sinks &= acts[None, :, None, None]
        return first, sinks

    def describe(self) -> str:
        """One phrase for provenance."""
        told = "all heads" if self.heads is None else f"{len(self.heads)} heads"
        return f"{self._told('alpha', 'beta')}, {told}"
