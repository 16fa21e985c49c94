"""Focus directions: vectors added to queries and keys of chosen heads, so that they look more at what matters.

Zhu et al., "Focus Directions Make Your Language Models Pay More Attention to Relevant Contexts", 2025, arXiv
2503.23306. Of each chosen head, in rows of text after the picture, with V the image columns:

    q' = q + alpha d_q        k'[j] = k[j] + alpha d_k,  j in V

The directions are learnt so that the heads look at what is known to matter (:func:`vlmattn.api.fit_focus`), and act
without being told what matters. Here queries and keys are those that the kernel gets, after rotary positions, and keys
of the picture alone are moved: after rotation, a vector added to every key would change no row at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from vlmattn.capture import Where, model_sites
from vlmattn.capture.steering import EditRows
from vlmattn.core.errors import SpecError
from vlmattn.core.layout import TokenKind, TokenLayout
from vlmattn.steering.method import Heads, Method, Slot, check_heads, check_pairs, check_pictures


@dataclass(frozen=True, eq=False, kw_only=True)
class Focus(Method):
    """Focus directions, in rows of text after the picture.

    Attributes:
        heads: (layer, head) pairs. queries, keys: (n, D) direction of each, in the numbers of the model. alpha: 0
            changes nothing, bit for bit; below 0 heads look away.

    Cache, other heads and other rows keep the model's own queries and keys; of heads that share keys, each has its own.

    Raises:
        SpecError: values out of range, or directions that are not one for each head; on asking, heads that do not
            exist, directions of another size than the model's heads, or no image tokens.

    Example:
        >>> Focus(heads=((1, 0),), queries=np.ones((1, 4)), keys=np.zeros((1, 4))).describe()
        'Focus: alpha=1.0, 1 heads'
    """

    slot: ClassVar[Slot] = "queries"
    factors: ClassVar[bool] = True
    rows: ClassVar[EditRows] = "after_image"  # type: ignore[misc]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    heads: Heads
    queries: NDArray[np.float32]
    keys: NDArray[np.float32]
    alpha: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", check_pairs("Focus", self.heads))
        self._check_number("alpha")
        for name in ("queries", "keys"):
            given = np.asarray(getattr(self, name), dtype=np.float32)
            if given.ndim != 2 or len(given) != len(self.heads) or not np.isfinite(given).all():
                raise SpecError(
                    f"{name} of Focus must be ({len(self.heads)}, D) finite numbers, one line for each head; got shape "
                    f"{given.shape}"
                )
            object.__setattr__(self, name, given)
        if self.queries.shape != self.keys.shape:
            raise SpecError(f"queries and keys of Focus differ in shape: {self.queries.shape} and {self.keys.shape}")
        if self.layers is not None:
            raise SpecError("the heads of Focus say in which layers it acts: leave layers out")

    @property
    def neutral(self) -> bool:
        """See :class:`Method`."""
        return self.alpha == 0 or not (self.queries.any() or self.keys.any())

    def at_random(self, rng: np.random.Generator) -> Self:
        """A control: the same heads, directions of the same lengths that point anywhere."""
        drawn = []
        for given in (self.queries, self.keys):
            anywhere = rng.standard_normal(given.shape)
            size = np.linalg.norm(given, axis=1, keepdims=True) / np.linalg.norm(anywhere, axis=1, keepdims=True)
            drawn.append((anywhere * size).astype(np.float32))
        return replace(self, queries=drawn[0], keys=drawn[1])

    def layers_among(self, present: Sequence[int]) -> frozenset[int]:
        """The layers of the heads."""
        super().layers_among(present)
        return self.layers_of_heads(present, self.heads)

    def for_model(self, vlm: Any) -> Focus:
        """Itself, if the model has the heads.

        Raises:
            SpecError: a head that does not exist.
        """
        sites = model_sites(getattr(vlm, "model", vlm))
        check_heads(self.heads, {s.layer_idx: s.heads for s in sites.attention})
        return self

    def check(self, width: int | None, layouts: Sequence[TokenLayout]) -> None:
        """See :meth:`Steering.check`."""
        check_pictures("Focus", layouts)

    def edit_queries_keys(
        self, query_bhrd: torch.Tensor, key_bgkd: torch.Tensor, where: Where
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """See the module.

        Raises:
            SpecError: directions of another size than the heads of this layer.
        """
        at = [n for n, (layer, _) in enumerate(self.heads) if layer == where.layer_idx]
        if self.neutral or not at:
            return None
        if query_bhrd.shape[-1] != self.queries.shape[1]:
            raise SpecError(
                f"directions of Focus have {self.queries.shape[1]} numbers, heads of layer {where.layer_idx} have "
                f"{query_bhrd.shape[-1]}: fit them on this model"
            )
        heads = [self.heads[n][1] for n in at]
        toward, drawn = (self._directions(name, at, query_bhrd.device) for name in ("queries", "keys"))
        query = query_bhrd.float().clone()
        query[:, heads] += toward[:, None]
        if not bool(drawn.any()):
            return query, key_bgkd
        key = key_bgkd.float().repeat_interleave(query.shape[1] // key_bgkd.shape[1], dim=1)
        picture = where.columns(TokenKind.IMAGE)[:, :, 0, :, None]  # (B, 1, K, 1)
        key[:, heads] += torch.where(picture, drawn[:, None], 0.0)
        return query, key

    def _directions(self, name: str, at: Sequence[int], device: torch.device) -> torch.Tensor:
        return torch.as_tensor(self.alpha * getattr(self, name)[list(at)], dtype=torch.float32, device=device)

    def describe(self) -> str:
        """One phrase for provenance."""
        return f"{self._told('alpha')}, {len(self.heads)} heads"
