"""HGAI: raises attention to the picture in middle layers by what all heads of the layer give it.

Jiang et al., "Devils in Middle Layers of Large Vision-Language Models: Interpreting, Detecting and Mitigating Object
Hallucinations via Attention Lens", CVPR 2025, arXiv 2411.16724. With S the scaled scores of the last row of H heads:

    S_h'[j] = S_h[j] + alpha / H  sum_g |S_g[j]|                      j an image column
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from vlmattn.capture import Where
from vlmattn.core.layout import TokenKind
from vlmattn.steering.method import check_layer_number
from vlmattn.steering.pai import RaisedImage

_LLAVA = tuple(range(5, 19))


@dataclass(frozen=True, eq=False, kw_only=True)
class HGAI(RaisedImage):
    """Head-guided attention intervention, in the last row of every pass.

    Attributes:
        alpha: 0 changes nothing, bit for bit. first_layer: layers before it are left alone. layers: both ends count.

    Raises:
        SpecError: values out of range, or no layer left; on asking, no image tokens.

    Example:
        >>> HGAI.preset("llava-1.5-7b").layers[0], HGAI.preset("shikra").alpha
        (5, 0.55)
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "llava-1.5-7b": {"alpha": 0.5, "layers": _LLAVA, "depth": 32},
        "llava-1.5-13b": {"alpha": 0.5, "layers": _LLAVA, "depth": 40},
        "shikra": {"alpha": 0.55, "layers": tuple(range(3, 14)), "depth": 32},
        "minigpt-4": {"alpha": 0.5, "layers": tuple(range(3, 15)), "depth": 32},
    }

    alpha: float = 0.5
    first_layer: int = 0

    def __post_init__(self) -> None:
        self._check_number("alpha", 0)
        check_layer_number("first_layer of HGAI", self.first_layer)

    @property
    def neutral(self) -> bool:
        """See :class:`Method`."""
        return self.alpha == 0

    def edit_scores(self, scores_bhrk: torch.Tensor, where: Where) -> torch.Tensor | None:
        """See the module."""
        if self.neutral:
            return None
        given = self.alpha * scores_bhrk.abs().mean(dim=1, keepdim=True)
        picture = where.columns(TokenKind.IMAGE) & scores_bhrk.isfinite().all(dim=1, keepdim=True)
        return torch.where(picture, scores_bhrk + given, scores_bhrk)

    def describe(self) -> str:
        """One phrase for provenance."""
        return self._told("alpha")
