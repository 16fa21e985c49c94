"""SPIN: in every layer and at every step, heads that look at the picture least are nearly switched off.

"SPIN: image-guided head suppression", EMNLP 2025, arXiv 2505.16411. With S the scaled scores of the last row, V the
image columns that it sees, r the share of heads that are kept:

    g_h = sum_{j in V} S_h[j];    the int(r H) heads of highest g keep their output,  the others' is multiplied by m
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import torch

from vlmattn.capture import Where
from vlmattn.capture.steering import EditRows
from vlmattn.core.errors import SpecError
from vlmattn.core.layout import TokenKind, TokenLayout
from vlmattn.steering.method import Method, Slot, check_pictures


@dataclass(frozen=True, eq=False, kw_only=True)
class SPIN(Method):
    """Suppression of image-inattentive heads, in the last row of every pass.

    Attributes:
        keep: share r of a layer's heads that are kept, rounded down to whole heads. factor: m of the others; 1 changes
            nothing, bit for bit. by: ``scores``, as the paper's code has it, where a head with high scores on all
            columns wins though it gives the picture little; or ``mass``, the attention after softmax.

    A layer that sees no image column, all being out of its window, is left alone.

    Raises:
        SpecError: values out of range; on asking, no image tokens.

    Example:
        >>> SPIN.preset("llava-1.5-7b-pope").keep
        0.8
    """

    slot: ClassVar[Slot] = "heads"
    factors: ClassVar[bool] = True
    rows: ClassVar[EditRows] = "last"  # type: ignore[misc]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "llava-1.5-7b-chair": {"keep": 0.95, "factor": 0.08, "depth": 32},
        "llava-1.5-7b-pope": {"keep": 0.8, "factor": 0.1, "depth": 32},
        "qwen-vl-chat-chair": {"keep": 0.7, "factor": 0.08, "layers": tuple(range(20)), "depth": 32},
    }

    keep: float = 0.95
    factor: float = 0.08
    by: Literal["scores", "mass"] = "scores"
    _gates: dict[int, torch.Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._check_number("keep", 0, 1)
        self._check_number("factor", 0)
        if self.by not in ("scores", "mass"):
            raise SpecError(f"by of SPIN must be 'scores' or 'mass', got {self.by!r}")

    @property
    def neutral(self) -> bool:
        """See :class:`Method`."""
        return self.factor == 1 or self.keep == 1

    def fresh(self) -> Self:
        """A copy that has seen nothing."""
        return replace(self)

    def check(self, width: int | None, layouts: Sequence[TokenLayout]) -> None:
        """See :meth:`Steering.check`."""
        check_pictures("SPIN", layouts)

    def edit_scores(self, scores_bhrk: torch.Tensor, where: Where) -> torch.Tensor | None:
        """Ranks the heads; changes nothing."""
        if not self.neutral and self.by == "scores":
            seen = where.columns(TokenKind.IMAGE) & where.visible & scores_bhrk.isfinite()
            self._rank(torch.where(seen, scores_bhrk, 0.0), where)
        return None

    def edit_rows(self, probs_bhrk: torch.Tensor, where: Where) -> torch.Tensor | None:
        """Ranks the heads; changes nothing."""
        if not self.neutral and self.by == "mass":
            self._rank(probs_bhrk * where.columns(TokenKind.IMAGE), where)
        return None

    def _rank(self, values_bhrk: torch.Tensor, where: Where) -> None:
        given = values_bhrk.sum(dim=-1).transpose(1, 2)  # (B, R, H)
        count = int(self.keep * given.shape[-1])
        kept = torch.zeros_like(given, dtype=torch.bool)
        kept.scatter_(-1, given.topk(count, dim=-1).indices, True)
        kept |= ~(where.columns(TokenKind.IMAGE) & where.visible).any(dim=-1).all(dim=1)[..., None]
        self._gates[where.layer_idx] = torch.where(kept, 1.0, float(self.factor))

    def scale_heads(self, where: Where) -> torch.Tensor | None:
        """See the module."""
        return None if self.neutral else self._gates[where.layer_idx]

    def describe(self) -> str:
        """One phrase for provenance."""
        return self._told("keep", "factor", "by")
