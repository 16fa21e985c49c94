"""VHR: heads whose output changes most when the picture is taken away write larger.

He et al., "Cracking the Code of Hallucination in LVLMs with Vision-aware Head Divergence", ACL 2025, arXiv 2412.13949.
With o a head's output A V at the last token of the prompt, before W_O, t the same for the text without image tokens:

    VHD = |o - t|,  set to 0 where VHD and |t|^2 are both above their mean + standard deviation over the layer's heads
    o'  = alpha o   for heads with VHD above the layer's median

layer by layer, each with the earlier ones reinforced in both runs; the heads stay chosen for the whole answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch

from vlmattn.capture import Where, model_sites
from vlmattn.capture.lockstep import Lockstep
from vlmattn.capture.steering import EditRows
from vlmattn.core.errors import CaptureError, SpecError
from vlmattn.core.layout import TokenLayout
from vlmattn.heads.divergence import head_divergence, vision_aware, without_outliers
from vlmattn.steering.method import Method, Slot
from vlmattn.steering.prompts import check_text_alone, text_alone


@dataclass(frozen=True, eq=False, kw_only=True)
class VHR(Method):
    """Vision-aware head reinforcement.

    Attributes:
        alpha: factor on the chosen heads' outputs, in all rows of the prompt and of the answer; 1 changes nothing, bit
            for bit. From 4 on the paper's answers degenerate. outliers: whether the rule for outliers is used.
        layers: None for the second one and the last 7/16: the paper's 1 and 18 to 31 of 32.

    One more pass of the text without image tokens per prompt, whose positions are counted anew; nothing per token.

    Raises:
        SpecError: values out of range; on asking, pictures that are no tokens of the prompt.

    Example:
        >>> VHR().alpha
        2.0
    """

    slot: ClassVar[Slot] = "heads"
    rows: ClassVar[EditRows] = "all"  # type: ignore[misc]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "llava-1.5": {"layers": (1, *range(18, 32)), "depth": 32},
        "instructblip": {"layers": tuple(range(14, 32)), "depth": 32},
    }

    alpha: float = 2.0
    outliers: bool = True
    _model: Any = field(default=None, init=False, repr=False)
    _inputs: Any = field(default=None, init=False, repr=False)
    _chosen: dict[int, torch.Tensor] = field(default_factory=dict, init=False, repr=False)
    _second: list[Lockstep] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self._check_number("alpha", 0)
        if not isinstance(self.outliers, bool):
            raise SpecError(f"outliers of VHR must be true or false, got {self.outliers!r}")

    @property
    def neutral(self) -> bool:
        """See :class:`Method`."""
        return self.alpha == 1

    def layers_among(self, present: Sequence[int]) -> frozenset[int]:
        """See the class."""
        chosen = super().layers_among(present)
        if self.layers is not None:
            return chosen
        depth = max(present) + 1
        last = range(depth - max(1, depth * 7 // 16), depth)
        return chosen & {1, *last}

    def for_model(self, vlm: Any) -> VHR:
        """One that knows the model."""
        known = replace(self)
        object.__setattr__(known, "_model", getattr(vlm, "model", vlm))
        return known

    def check(self, width: int | None, layouts: Sequence[TokenLayout]) -> None:
        """See :meth:`Steering.check`."""
        check_text_alone("VHR", layouts)

    def edit_input(self, encoded: Any) -> Any:
        """Notes the text without the picture; the input stays as it is."""
        if not self.neutral:
            self.check(None, encoded.layouts)
            object.__setattr__(self, "_inputs", text_alone(encoded))
        return encoded

    def fresh(self) -> Self:
        """A copy that has chosen no heads."""
        made = replace(self)
        object.__setattr__(made, "_model", self._model)
        object.__setattr__(made, "_inputs", self._inputs)
        return made

    def edit_heads(self, outputs_brhd: torch.Tensor, where: Where) -> torch.Tensor | None:
        """See the module.

        Raises:
            SpecError: used in a session of one's own, without :meth:`for_model` and :meth:`edit_input`.
            CaptureError: the first pass does not hold the whole prompt.
        """
        if self.neutral:
            return None
        if self._inputs is None or self._model is None:
            raise SpecError("VHR does not know the prompt: use VHR(...).for_model(vlm), and its edit_input(encoded)")
        if where.layer_idx not in self._chosen:
            self._choose(outputs_brhd, where)
        factors = torch.where(self._chosen[where.layer_idx], float(self.alpha), 1.0)
        return outputs_brhd * factors[:, None, :, None].to(outputs_brhd.dtype)

    def _choose(self, outputs_brhd: torch.Tensor, where: Where) -> None:
        second = self._lockstep()
        text = second.outputs(where.layer_idx)  # (B', Q, H, D) of the prompts, not of their beams
        copies = outputs_brhd.shape[0] // text.shape[0]
        seen = self._last_of_prompt(outputs_brhd, where).float().cpu().numpy()
        alone = text[:, -1].float().cpu().numpy().repeat(copies, axis=0)
        divergence = head_divergence(seen, alone)
        if self.outliers:
            divergence = without_outliers(divergence, np.square(alone.astype(np.float64)).sum(axis=-1))
        chosen = torch.as_tensor(vision_aware(divergence), device=outputs_brhd.device)
        self._chosen[where.layer_idx] = chosen
        factors = torch.where(chosen[::copies], float(self.alpha), 1.0).to(text)
        if where.layer_idx == max(site.layer_idx for site in second.sites.values()):
            second.close()
            self._second.clear()
        else:
            second.go_on(text * factors[:, None, :, None])

    def _lockstep(self) -> Lockstep:
        if not self._second:
            sites = model_sites(self._model)
            acts = self.layers_among(sites.layers)
            stops = [site for site in sites.attention if site.layer_idx in acts]
            self._second.append(Lockstep(self._model, self._inputs, stops))
        return self._second[0]

    @staticmethod
    def _last_of_prompt(outputs_brhd: torch.Tensor, where: Where) -> torch.Tensor:
        # (B, H, D)
        ends = [pad + layout.answer_start - 1 for layout, pad in zip(where.layouts, where.pad_left, strict=True)]
        hit = where.rows == torch.as_tensor(ends, device=where.rows.device)[:, None]
        if not bool(hit.any(dim=-1).all()):
            raise CaptureError("VHR did not see the end of the prompt in the first pass: run the whole prompt at once")
        lines = torch.arange(len(hit), device=outputs_brhd.device)
        return outputs_brhd[lines, hit.int().argmax(dim=-1).to(lines.device)]

    def leave(self) -> None:
        """Ends the second run, if the first one stopped before it."""
        while self._second:
            self._second.pop().close()

    def describe(self) -> str:
        """One phrase for provenance."""
        return self._told("alpha", "outliers")
