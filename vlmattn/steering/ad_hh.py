"""AD-HH: hallucination heads that look at the answer's own text lose that part of their attention.

Yang et al., "Understanding and Mitigating Hallucination in Large Vision-Language Models via Modular Attribution and
Intervention", ICLR 2025. For a chosen head, with A its last row after softmax and T the columns after the last image
token:

    A'[j] = 0  for j in T,   where  sum_T A >= threshold;      nothing is normalised again
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from vlmattn.capture import Where, model_sites
from vlmattn.capture.steering import EditRows
from vlmattn.core.errors import SpecError
from vlmattn.core.layout import TokenLayout
from vlmattn.steering.method import Heads, Method, Slot, check_heads, check_pairs, check_pictures

_LLAVA_7B: Heads = (
    (16, 29), (26, 9), (13, 31), (15, 10), (20, 12), (30, 9), (19, 18), (17, 0), (18, 9), (26, 28),
    (19, 27), (18, 26), (15, 25), (14, 16), (31, 26), (15, 24), (31, 3), (22, 20), (27, 29), (17, 28),
)  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class ADHH(Method):
    """Adaptive deactivation of hallucination heads, in the last row of every pass.

    Attributes:
        heads: (layer, head) pairs; those of the preset were found for LLaVA-1.5-7B,
            :meth:`vlmattn.Vlm.hallucination_heads` finds those of another model. threshold: least attention on text
            after the picture; above 1 nothing is changed, bit for bit.

    Raises:
        SpecError: no heads, one that does not exist, values out of range; on asking, no image tokens.

    Example:
        >>> len(ADHH.preset("llava-1.5-7b").heads)
        20
    """

    slot: ClassVar[Slot] = "rows"
    rows: ClassVar[EditRows] = "last"  # type: ignore[misc]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"llava-1.5-7b": {"heads": _LLAVA_7B, "depth": 32}}

    heads: Heads
    threshold: float = 0.4

    def __post_init__(self) -> None:
        self._check_number("threshold", 0)
        object.__setattr__(self, "heads", check_pairs("ADHH", self.heads))
        if self.layers is not None:
            raise SpecError("the heads of ADHH say in which layers it acts: leave layers out")

    @property
    def neutral(self) -> bool:
        """See :class:`Method`."""
        return self.threshold > 1

    def layers_among(self, present: Sequence[int]) -> frozenset[int]:
        """The layers of the heads."""
        super().layers_among(present)
        return self.layers_of_heads(present, self.heads)

    def for_model(self, vlm: Any) -> ADHH:
        """Itself, if the model has the heads.

        Raises:
            SpecError: a head that does not exist.
        """
        sites = model_sites(getattr(vlm, "model", vlm))
        self.check_depth(sites.depth)
        check_heads(self.heads, {s.layer_idx: s.heads for s in sites.attention})
        return self

    def check(self, width: int | None, layouts: Sequence[TokenLayout]) -> None:
        """See :meth:`Steering.check`."""
        check_pictures("ADHH", layouts)

    def edit_rows(self, probs_bhrk: torch.Tensor, where: Where) -> torch.Tensor | None:
        """See the module."""
        chosen = [head for layer, head in self.heads if layer == where.layer_idx]
        if self.neutral or not chosen:
            return None
        text = after_pictures(where)
        acts = torch.zeros(probs_bhrk.shape[1], dtype=torch.bool, device=probs_bhrk.device)
        acts[chosen] = True
        mass = (probs_bhrk * text).sum(dim=-1, keepdim=True)
        return torch.where(text & acts[None, :, None, None] & (mass >= self.threshold), 0.0, probs_bhrk)

    def describe(self) -> str:
        """One phrase for provenance."""
        named = ", ".join(f"{layer}.{head}" for layer, head in self.heads[:8])
        more = f" and {len(self.heads) - 8} more" if len(self.heads) > 8 else ""
        return f"ADHH: {len(self.heads)} heads ({named}{more}), threshold={self.threshold}"


def after_pictures(where: Where) -> torch.Tensor:
    """(B, 1, 1, K) bool: columns after the last image token; padding is not among them."""
    keys = where.column_kinds.shape[-1]
    columns = torch.arange(keys, device=where.column_kinds.device) + where.first_column
    ends = [pad + layout.image_end for layout, pad in zip(where.layouts, where.pad_left, strict=True)]
    end = torch.as_tensor(ends, device=columns.device)[:, None]
    return ((columns[None] >= end) & (where.column_kinds >= 0))[:, None, None, :]
