"""Makes what chosen heads write larger, smaller or opposite (slot C: after A V, before W_O)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, ClassVar

import torch

from vlmattn.capture import Steering, Where, model_sites
from vlmattn.capture.choices import is_whole
from vlmattn.capture.steering import EditRows
from vlmattn.core.errors import SpecError


@dataclass(frozen=True, eq=False)
class ScaleHeads(Steering):
    """Multiplies the outputs of heads by one factor, in every row, as head pursuit does to suppress (-1) or amplify (5)
    a concept.

    Attributes:
        heads: (layer, head) pairs. factor: 1 changes nothing, bit for bit; 0 takes the heads out.

    Raises:
        SpecError: no heads, one that is no pair or twice there, a factor that is not finite; on asking, a layer that
            has no attention or a head that the layer does not have.

    Example:
        >>> ScaleHeads(((3, 1), (5, 0)), -1.0).describe()
        'ScaleHeads: 2 heads (3.1, 5.0) times -1'
    """

    slot: ClassVar[str] = "heads"
    factors: ClassVar[bool] = True
    rows: ClassVar[EditRows] = "all"  # type: ignore[misc]

    heads: Sequence[tuple[int, int]]
    factor: float
    _counts: Mapping[int, int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            pairs = tuple((layer, head) for layer, head in self.heads)
        except (TypeError, ValueError):
            raise SpecError(f"heads of ScaleHeads must be (layer, head) pairs, got {self.heads!r}") from None
        if not pairs or not all(is_whole(n) and n >= 0 for pair in pairs for n in pair) or len(set(pairs)) < len(pairs):
            raise SpecError(f"heads of ScaleHeads must be different (layer, head) pairs from 0, got {self.heads!r}")
        object.__setattr__(self, "heads", tuple((int(layer), int(head)) for layer, head in pairs))
        if isinstance(self.factor, bool) or not isinstance(self.factor, Real) or not math.isfinite(self.factor):
            raise SpecError(f"factor of ScaleHeads must be a finite number, got {self.factor!r}")
        object.__setattr__(self, "layers", tuple(sorted({layer for layer, _ in self.heads})))

    def for_model(self, vlm: Any) -> ScaleHeads:
        """One that knows how many heads the layers of ``vlm`` (or of a model) have.

        Raises:
            SpecError: a head that its layer does not have.
        """
        counts = {s.layer_idx: s.heads for s in model_sites(getattr(vlm, "model", vlm)).attention}
        for layer, head in self.heads:
            if head >= counts.get(layer, math.inf):
                raise SpecError(
                    f"head {head} of layer {layer} does not exist; the layer has heads 0 to {counts[layer] - 1}"
                )
        known = replace(self)
        object.__setattr__(known, "_counts", counts)
        return known

    def scale_heads(self, where: Where) -> torch.Tensor | None:
        """See :meth:`Steering.scale_heads`.

        Raises:
            SpecError: used in a session of one's own without :meth:`for_model`.
        """
        chosen = [head for layer, head in self.heads if layer == where.layer_idx]
        if not chosen or self.factor == 1:
            return None
        if not self._counts:
            raise SpecError("ScaleHeads does not know the model: pass ScaleHeads(...).for_model(model) to the session")
        factors = torch.ones((1, 1, self._counts[where.layer_idx]), device=where.rows.device)
        factors[..., chosen] = float(self.factor)
        return factors

    def describe(self) -> str:
        """One phrase for provenance."""
        named = ", ".join(f"{layer}.{head}" for layer, head in self.heads[:8])
        more = f" and {len(self.heads) - 8} more" if len(self.heads) > 8 else ""
        return f"ScaleHeads: {len(self.heads)} heads ({named}{more}) times {self.factor:g}"
