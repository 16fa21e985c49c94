"""EAH: in a shallow layer, all heads look as the one with the most image sinks does.

Zhang et al., "Seeing Clearly by Layer Two: Enhancing Attention Heads to Alleviate Hallucination in LVLMs", arXiv
2411.09968. In the prompt, an image column is a sink of a head where its mean attention over the rows that see it is
above tau; the rows of the head with the most sinks take the place of those of every head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from vlmattn.capture import Where
from vlmattn.capture.steering import EditRows
from vlmattn.core.layout import TokenKind, TokenLayout
from vlmattn.steering.method import Slot, check_pictures
from vlmattn.steering.received import ByReceived


@dataclass(frozen=True, eq=False, kw_only=True)
class EAH(ByReceived):
    """Enhancement of attention heads: one head's rows for all, in all rows of the prompt.

    Attributes:
        tau: least mean attention of a sink; 1 changes nothing, bit for bit. layers: the second layer, as in the paper;
            beyond it answers collapse.

    A layer where no head has a sink is left alone; of several heads with as many sinks the first is taken. Written
    tokens are not steered. The layer's whole rows are computed once more, twice where they need parts, once per prompt.

    Raises:
        SpecError: values out of range; on asking, no image tokens.

    Example:
        >>> EAH().layers
        (1,)
    """

    slot: ClassVar[Slot] = "rows"
    rows: ClassVar[EditRows] = "all"  # type: ignore[misc]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"llava-1.5-7b": {"tau": 0.002, "layers": (1,), "depth": 32}}

    tau: float = 0.002
    layers: tuple[int, ...] | None = (1,)

    def __post_init__(self) -> None:
        self._check_number("tau", 0, 1)

    @property
    def neutral(self) -> bool:
        """See :class:`Method`."""
        return self.tau == 1

    def check(self, width: int | None, layouts: Sequence[TokenLayout]) -> None:
        """See :meth:`Steering.check`."""
        check_pictures("EAH", layouts)

    def edit_rows(self, probs_bhrk: torch.Tensor, where: Where) -> torch.Tensor | None:
        """See the module."""
        asked = self.prompt_rows(where)
        if self.neutral or not bool(asked.any()):
            return None
        sinks = (self.received(where) > self.tau) & where.columns(TokenKind.IMAGE)[:, 0]
        counts = sinks.sum(dim=-1)  # (B, H)
        most, head = counts.max(dim=1)
        lines = torch.arange(probs_bhrk.shape[0], device=probs_bhrk.device)
        one = probs_bhrk[lines, head.to(lines.device)][:, None].expand_as(probs_bhrk)
        acts = asked & (most > 0)[:, None]
        return torch.where(acts[:, None, :, None], one, probs_bhrk)

    def describe(self) -> str:
        """One phrase for provenance."""
        return self._told("tau")
