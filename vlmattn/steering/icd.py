"""ICD: contrasts the answer with one to the same question after an instruction that disturbs.

Wang et al., "Mitigating Hallucinations in Large Vision-Language Models with Instruction Contrastive Decoding", Findings
of ACL 2024, arXiv 2403.18715. With l the logits, d those where the question is preceded by the disturbance:

    l' = (1 + alpha) l - alpha d,   for tokens with  p >= beta max p
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from vlmattn.core.errors import SpecError
from vlmattn.core.layout import TokenLayout
from vlmattn.steering.contrast import LogitsMethod, Processor, Second, against, contrasted
from vlmattn.steering.method import check_pictures
from vlmattn.steering.prompts import inserted, retokened

DISTURBANCE = "You are a confused object detector. "
"""The role that is put before the question. The wording is ours, after the paper's description."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ICD(LogitsMethod):
    """Instruction contrastive decoding.

    Attributes:
        alpha: strength; 0 contrasts with nothing. beta: least probability, of that of the best token; 0 keeps all.
        disturbance: put before the question, as tokens of its own; a Q-Former's own text stays as it is.

    ``alpha=0, beta=0`` changes nothing, bit for bit. One more pass per token; the second run has its own cache and is
    not steered.

    Raises:
        SpecError: values out of range, no disturbance; on asking, a prompt with keys beside it, or no question.

    Example:
        >>> ICD().alpha
        1.0
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"alpha": 1.0, "beta": 0.1}}

    alpha: float = 1.0
    beta: float = 0.1
    disturbance: str = DISTURBANCE
    _words: tuple[int, ...] = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        self._check_number("alpha", 0)
        self._check_number("beta", 0, 1)
        if not isinstance(self.disturbance, str) or not self.disturbance.strip():
            raise SpecError(f"disturbance of ICD must be words, got {self.disturbance!r}")

    @property
    def neutral(self) -> bool:
        """See :class:`Method`."""
        return self.alpha == 0 and self.beta == 0

    def for_model(self, vlm: Any) -> ICD:
        """One that knows the disturbance as tokens of ``vlm``."""
        known = replace(self)
        ids = vlm.adapter.tokenizer(self.disturbance, add_special_tokens=False)["input_ids"]
        object.__setattr__(known, "_words", tuple(int(one) for one in ids))
        return known

    def check(self, width: int | None, layouts: Sequence[TokenLayout]) -> None:
        """See :meth:`Steering.check`."""
        check_pictures("ICD", layouts)
        for layout in layouts:
            if layout.memory:
                raise SpecError("ICD puts words into the decoder's prompt; this model has keys beside it")
            inserted(layout, np.zeros(1, dtype=np.int64))

    def processor(self, model: Any, encoded: Any) -> Processor:
        """See :class:`LogitsMethod`.

        Raises:
            SpecError: used in a run of one's own without :meth:`for_model`.
        """
        if not self._words:
            raise SpecError("ICD does not know the model's words: use ICD(...).for_model(vlm)")
        second = None
        if self.alpha:
            lines = [inserted(layout, np.array(self._words)) for layout in encoded.layouts]
            second = Second(model, retokened(encoded, lines, pictures=True), encoded)
        return against(second, lambda scores, other: contrasted(scores, other, self.alpha, self.beta))

    def describe(self) -> str:
        """One phrase for provenance."""
        return self._told("alpha", "beta", "disturbance")
