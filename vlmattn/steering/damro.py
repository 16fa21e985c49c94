"""DAMRO: contrasts the answer with one to the few image tokens alone that the vision tower's class token looks at most.

Gong et al., "DAMRO: Dive into the Attention Mechanism of LVLM to Reduce Object Hallucination", EMNLP 2024, arXiv
2410.04514. With o the logits where the picture is its k outlier tokens:

    l' = (1 + alpha) l - alpha o,   for tokens with  p >= beta max p
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch

from vlmattn.adapters import Encoded
from vlmattn.capture.choices import is_whole
from vlmattn.core.errors import SpecError
from vlmattn.core.layout import TokenKind, TokenLayout
from vlmattn.steering.contrast import LogitsMethod, Processor, Second, against, contrasted
from vlmattn.steering.prompts import check_text_alone
from vlmattn.steering.tower import class_attention


@dataclass(frozen=True, eq=False, kw_only=True)
class DAMRO(LogitsMethod):
    """Contrast with the outliers of the vision tower.

    Attributes:
        alpha: strength; 0 contrasts with nothing. beta: least probability, of that of the best token; 0 keeps all.
        k: image tokens of each prompt that are kept: those that the tower's class token looks at most, in the last
            layer that the language model reads.

    ``alpha=0, beta=0`` changes nothing, bit for bit. The second run gets the embeddings of these tokens, with positions
    counted anew; separators between image tokens stay. One more pass of the tower, and one short one per token; the
    second run has its own cache and is not steered.

    Raises:
        SpecError: values out of range; on asking, a tower without a class token, or fewer image tokens than ``k``.

    Example:
        >>> DAMRO.preset("llava-1.5-pope").k
        10
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "llava-1.5-pope": {"alpha": 0.5, "beta": 0.1, "k": 10},
        "llava-1.5-mme": {"alpha": 2.0, "beta": 0.1, "k": 10},
    }

    alpha: float = 0.5
    beta: float = 0.1
    k: int = 10
    _vlm: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._check_number("alpha", 0)
        self._check_number("beta", 0, 1)
        if not is_whole(self.k) or self.k < 1:
            raise SpecError(f"k of DAMRO must be a whole number, at least 1; got {self.k!r}")

    @property
    def neutral(self) -> bool:
        """See :class:`Method`."""
        return self.alpha == 0 and self.beta == 0

    def for_model(self, vlm: Any) -> DAMRO:
        """One that knows the vision tower of ``vlm``."""
        known = replace(self)
        object.__setattr__(known, "_vlm", vlm)
        return known

    def check(self, width: int | None, layouts: Sequence[TokenLayout]) -> None:
        """See :meth:`Steering.check`."""
        check_text_alone("DAMRO", layouts)
        fewest = min(len(layout.image_positions) for layout in layouts)
        if fewest < self.k:
            raise SpecError(f"DAMRO keeps k={self.k} image tokens, and a prompt has {fewest}")

    def processor(self, model: Any, encoded: Any) -> Processor:
        """See :class:`LogitsMethod`.

        Raises:
            SpecError: used in a run of one's own without :meth:`for_model`; no class token.
        """
        if self._vlm is None:
            raise SpecError("DAMRO does not know the vision tower: use DAMRO(...).for_model(vlm)")
        second = Second(model, self._outliers(encoded), encoded) if self.alpha else None
        return against(second, lambda scores, other: contrasted(scores, other, self.alpha, self.beta))

    def _outliers(self, encoded: Encoded) -> dict[str, Any]:
        ranked = class_attention("DAMRO", self._vlm, encoded, (-1,))[0]
        states = self._vlm.adapter.states_seen(encoded.inputs)
        lines = []
        for line, (layout, pad, scores) in enumerate(zip(encoded.layouts, encoded.pad_left, ranked, strict=True)):
            best = layout.image_positions[np.argsort(-scores, kind="stable")[: self.k]]
            stays = (layout.kinds != TokenKind.IMAGE) | np.isin(np.arange(len(layout)), best)
            at = torch.as_tensor(np.flatnonzero(stays) + pad, device=states.device)
            lines.append(states[line].index_select(0, at))
        longest = max(len(one) for one in lines)
        embeds = states.new_zeros((len(lines), longest, states.shape[-1]))
        mask = torch.zeros((len(lines), longest), dtype=torch.long, device=states.device)
        for line, one in enumerate(lines):
            embeds[line, longest - len(one) :], mask[line, longest - len(one) :] = one, 1
        return {"inputs_embeds": embeds, "attention_mask": mask}

    def describe(self) -> str:
        """One phrase for provenance."""
        return self._told("alpha", "beta", "k")
