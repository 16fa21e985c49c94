"""PAINT: raises attention to two kinds of image tokens, chosen by what the vision tower's class token looks at.

"Fixing Imbalanced Attention to Mitigate In-Context Hallucination of Large Vision-Language Model", arXiv 2501.12206. Of
the class token's attention to N image tokens, c in the tower's first layer and d in its last that is read:

    summary = the n tokens of highest d,  n = number of d above Q3 + 1.5 (Q3 - Q1)
    local   = the share ``local_share`` of N of highest c,  without summary
    S'[j]   = S[j] + alpha |S[j]|  for j in local;   S[j] + beta |S[j]|  for j in summary

in the last row of every pass. The two streams act alike in all heads, as in the released code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from vlmattn.capture import Where
from vlmattn.core.errors import SpecError
from vlmattn.steering.method import check_layer_number
from vlmattn.steering.pai import RaisedImage
from vlmattn.steering.tower import class_attention


@dataclass(frozen=True, eq=False, kw_only=True)
class PAINT(RaisedImage):
    """Dual-stream token selection and attention intervention.

    Attributes:
        alpha: for local tokens. beta: for summary tokens; 0 and 0 change nothing, bit for bit. local_share: of all
            image tokens, rounded down. first_layer: of the decoder.

    The tower runs once more per prompt. ``PAINT() + PAIContrast(gamma=2)`` is the released script's optional guidance.

    Raises:
        SpecError: values out of range; on asking, a tower without a class token.

    Example:
        >>> PAINT.preset("released").alpha
        0.7
    """

    factors: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "released": {"alpha": 0.7, "beta": 0.3},
        "paper": {"alpha": 0.7, "beta": 0.4},
    }

    alpha: float = 0.7
    beta: float = 0.3
    local_share: float = 0.25
    _vlm: Any = field(default=None, init=False, repr=False)
    _raised: dict[int, NDArray[np.float64]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._check_number("alpha", 0, 1)
        self._check_number("beta", 0, 1)
        self._check_number("local_share", 0, 1)
        check_layer_number("first_layer of PAINT", self.first_layer)

    @property
    def neutral(self) -> bool:
        """See :class:`Method`."""
        return self.alpha == 0 and self.beta == 0

    def for_model(self, vlm: Any) -> PAINT:
        """One that knows the vision tower of ``vlm``, for one run."""
        known = replace(self)
        object.__setattr__(known, "_vlm", vlm)
        return known

    def edit_input(self, encoded: Any) -> Any:
        """Chooses the tokens of each prompt; the input stays as it is."""
        if not self.neutral and self._vlm is not None:
            self.check(None, encoded.layouts)
            first, deep = class_attention("PAINT", self._vlm, encoded, (0, -1))
            for line, (c, d) in enumerate(zip(first, deep, strict=True)):
                local, summary = two_streams(c, d, self.local_share)
                self._raised[line] = self.alpha * local + self.beta * summary
        return encoded

    def edit_scores(self, scores_bhrk: torch.Tensor, where: Where) -> torch.Tensor | None:
        """See the module.

        Raises:
            SpecError: used in a session of one's own, without :meth:`for_model` and :meth:`edit_input`.
        """
        if self.neutral:
            return None
        if not self._raised:
            raise SpecError("PAINT has chosen no tokens: use PAINT(...).for_model(vlm), and its edit_input(encoded)")
        by = self._by_column(where, scores_bhrk)
        raised = scores_bhrk + by * scores_bhrk.abs()
        return torch.where((by > 0) & scores_bhrk.isfinite(), raised, scores_bhrk)

    def _by_column(self, where: Where, like: torch.Tensor) -> torch.Tensor:
        # (B, 1, 1, K)
        copies, keys = like.shape[0] // len(self._raised), like.shape[-1]
        out = np.zeros((like.shape[0], keys), dtype=np.float32)
        for line, (layout, pad) in enumerate(zip(where.layouts, where.pad_left, strict=True)):
            columns = layout.image_positions + pad - where.first_column
            inside = (columns >= 0) & (columns < keys)
            out[line, columns[inside]] = self._raised[line // copies][inside]
        return torch.as_tensor(out, device=like.device)[:, None, None, :]

    def describe(self) -> str:
        """One phrase for provenance."""
        return self._told("alpha", "beta", "local_share", "first_layer")


def two_streams(
    first: NDArray[np.floating], deep: NDArray[np.floating], share: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(local, summary) tokens, (V,) each, of the class token's attention in a first and a deep layer.

    Example:
        >>> local, summary = two_streams(np.arange(8.0), np.array([1.0, 1, 1, 1, 1, 1, 1, 9]), 0.25)
        >>> local.nonzero()[0].tolist(), summary.nonzero()[0].tolist()
        ([6], [7])
    """
    low, high = np.quantile(deep, [0.25, 0.75])
    count = int((deep > high + 1.5 * (high - low)).sum())
    summary, local = np.zeros(len(deep), dtype=np.bool_), np.zeros(len(deep), dtype=np.bool_)
    summary[np.argsort(-deep, kind="stable")[:count]] = True
    local[np.argsort(-first, kind="stable")[: int(share * len(first))]] = True
    return local & ~summary, summary
