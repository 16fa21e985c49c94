"""VAF: more attention from text to the picture and less to the system prompt, by factors on scores of middle layers.

Yin, Si & Wang, "ClearSight: Visual Signal Enhancement for Object Hallucination Mitigation in Multimodal Large Language
Models", CVPR 2025, arXiv 2503.13107. In rows of text after the picture, before the mask, with S the scaled scores:

    S'[j] = enhance S[j]     j an image column
    S'[j] = suppress S[j]    j before the first image column
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from vlmattn.capture import Where
from vlmattn.capture.steering import EditRows
from vlmattn.core.layout import TokenKind, TokenLayout
from vlmattn.steering.method import Method, Slot, check_pictures

_MIDDLE = tuple(range(9, 15))


@dataclass(frozen=True, eq=False, kw_only=True)
class VAF(Method):
    """Visual amplification fusion.

    Attributes:
        enhance: factor on scores of image columns. suppress: on those of columns before the first picture; 1 and 1
            change nothing, bit for bit. layers: None for all; the paper's, of models of 32 layers, are 9 to 14.

    A factor above 1 makes a negative score more negative, so that such columns get less, as in the released code.

    Raises:
        SpecError: values out of range; on asking, no image tokens.

    Example:
        >>> VAF.preset("llava-1.5-7b").layers
        (9, 10, 11, 12, 13, 14)
    """

    slot: ClassVar[Slot] = "scores"
    factors: ClassVar[bool] = True
    rows: ClassVar[EditRows] = "after_image"  # type: ignore[misc]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"llava-1.5-7b": {"layers": _MIDDLE, "depth": 32}}

    enhance: float = 1.15
    suppress: float = 0.95

    def __post_init__(self) -> None:
        self._check_number("enhance", 0)
        self._check_number("suppress", 0)

    @property
    def neutral(self) -> bool:
        """See :class:`Method`."""
        return self.enhance == 1 and self.suppress == 1

    def check(self, width: int | None, layouts: Sequence[TokenLayout]) -> None:
        """See :meth:`Steering.check`."""
        check_pictures("VAF", layouts)

    def edit_scores(self, scores_bhrk: torch.Tensor, where: Where) -> torch.Tensor | None:
        """See the module."""
        if self.neutral:
            return None
        factors = torch.where(where.columns(TokenKind.IMAGE), self.enhance, 1.0)
        factors = torch.where(before_pictures(where), self.suppress, factors)
        return torch.where(scores_bhrk.isfinite(), scores_bhrk * factors, scores_bhrk)

    def describe(self) -> str:
        """One phrase for provenance."""
        return self._told("enhance", "suppress")


def before_pictures(where: Where) -> torch.Tensor:
    """(B, 1, 1, K) bool: columns before the first image token, padding excluded; none where pictures stand beside."""
    keys = where.column_kinds.shape[-1]
    columns = torch.arange(keys, device=where.column_kinds.device) + where.first_column
    firsts = [
        pad + int(layout.image_positions[0]) if len(layout.image_positions) else 0
        for layout, pad in zip(where.layouts, where.pad_left, strict=True)
    ]
    first = torch.as_tensor(firsts, device=columns.device)[:, None]
    return ((columns[None] < first) & (where.column_kinds >= 0))[:, None, None, :]
