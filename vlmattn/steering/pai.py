"""PAI: raises attention to the picture before softmax, and contrasts the answer with one written without the picture.

Liu, Zheng & Chen, "Paying More Attention to Image: A Training-Free Method for Alleviating Hallucination in LVLMs",
ECCV 2024, arXiv 2407.21771. With S the scaled scores of the last row, V the image columns:

    S'[j] = S[j] + alpha |S[j]|                                       j in V

and, for the logits, with p the model's distribution and u that of the same text without image tokens:

    log p' = gamma log p - (gamma - 1) log u,  for tokens with  p >= beta max p
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from vlmattn.capture import Where
from vlmattn.capture.steering import EditRows
from vlmattn.core.errors import SpecError
from vlmattn.core.layout import TokenKind, TokenLayout
from vlmattn.steering.contrast import LogitsMethod, Processor, Second, against, contrasted
from vlmattn.steering.method import Method, Slot, check_layer_number, check_pictures
from vlmattn.steering.prompts import check_text_alone, text_alone


@dataclass(frozen=True, eq=False, kw_only=True)
class RaisedImage(Method):
    """Methods that add to the scores of image columns from one layer on; see :class:`PAI`."""

    slot: ClassVar[Slot] = "scores"
    rows: ClassVar[EditRows] = "last"  # type: ignore[misc]

    first_layer: int = 2

    def layers_among(self, present: Sequence[int]) -> frozenset[int]:
        """Without layers before ``first_layer``."""
        left = frozenset(n for n in super().layers_among(present) if n >= self.first_layer)
        if not left:
            raise SpecError(
                f"{type(self).__name__} has no layer to act in: first_layer={self.first_layer}, "
                f"layers={self.layers}, the model has {sorted(present)}"
            )
        return left

    def check(self, width: int | None, layouts: Sequence[TokenLayout]) -> None:
        """See :meth:`Steering.check`."""
        check_pictures(type(self).__name__, layouts)


@dataclass(frozen=True, eq=False, kw_only=True)
class PAI(RaisedImage):
    """PAI's attention: scores of image columns raised by ``alpha`` times their size, in the last row of every pass.

    Attributes:
        alpha: 0 changes nothing, bit for bit. first_layer: the released code's 2.

    A shift of alpha |S| multiplies a column's weight before normalisation by exp(alpha |S|), so heads with large scores
    change most.

    Raises:
        SpecError: values out of range, or no layer left; on asking, no image tokens.

    Example:
        >>> PAI.preset("readme").alpha
        0.2
    """

    factors: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "readme": {"alpha": 0.2},
        "llava-1.5": {"alpha": 0.5},
    }

    alpha: float = 0.5

    def __post_init__(self) -> None:
        self._check_number("alpha", 0, 1)
        check_layer_number("first_layer of PAI", self.first_layer)

    @property
    def neutral(self) -> bool:
        """See :class:`Method`."""
        return self.alpha == 0

    def edit_scores(self, scores_bhrk: torch.Tensor, where: Where) -> torch.Tensor | None:
        """See the module."""
        if self.neutral:
            return None
        picture = where.columns(TokenKind.IMAGE)
        raised = scores_bhrk + self.alpha * scores_bhrk.abs()
        return torch.where(picture & scores_bhrk.isfinite(), raised, scores_bhrk)

    def describe(self) -> str:
        """One phrase for provenance."""
        return self._told("alpha", "first_layer")


@dataclass(frozen=True, eq=False, kw_only=True)
class PAIContrast(LogitsMethod):
    """PAI's contrast with the same text without the picture: classifier-free guidance of strength ``gamma``.

    Attributes:
        gamma: 1 contrasts with nothing. beta: least probability, of that of the best token; 0 keeps all.

    ``gamma=1, beta=0`` changes nothing, bit for bit. A second pass without picture per token; it is not steered.

    Raises:
        SpecError: values out of range; on asking, pictures that are no tokens of the prompt.

    Example:
        >>> PAIContrast(gamma=2.0).describe()
        'PAIContrast: gamma=2.0, beta=0.1'
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"readme": {"gamma": 1.1}, "released": {"gamma": 2.0}}

    gamma: float = 1.1
    beta: float = 0.1

    def __post_init__(self) -> None:
        self._check_number("gamma", 0)
        self._check_number("beta", 0, 1)

    @property
    def neutral(self) -> bool:
        """See :class:`Method`."""
        return self.gamma == 1 and self.beta == 0

    def check(self, width: int | None, layouts: Sequence[TokenLayout]) -> None:
        """See :meth:`Steering.check`."""
        check_text_alone(type(self).__name__, layouts)

    def processor(self, model: Any, encoded: Any) -> Processor:
        """See :class:`LogitsMethod`."""
        second = Second(model, text_alone(encoded), encoded) if self.gamma != 1 else None
        return against(second, lambda scores, other: contrasted(scores, other, self.gamma - 1, self.beta))

    def describe(self) -> str:
        """One phrase for provenance."""
        return self._told("gamma", "beta")
