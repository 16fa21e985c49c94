"""What one pass of the vision tower kept, as plain arrays with provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.layout import ImageLayout
from vlmattn.core.provenance import Provenance
from vlmattn.core.tower_cells import TowerCells

if TYPE_CHECKING:
    from vlmattn.capture.tower_pass import KeptTower


@dataclass(frozen=True)
class TowerTrace:
    """Attention of the vision tower to its own patches, of the T tokens of all pictures of one prompt.

    Attributes:
        pictures, cells: each picture, and which of its tokens its cells are made of; tokens are counted picture by
            picture.
        layers: (L,) numbers of the tower's layers with attention. depth: all of its layers; read: how many of them
            reach the language model.
        received_lht: (L, H, T) mean over the queries of a view of what each of its tokens receives; 1 / n is even.
        special_lhst: (L, H, S, T) rows of the view's class tokens, then of its register tokens.
        norm_lt: (depth, T) norm of the residual stream after each layer.
        flows: per view (n, n), row i: where token i's output comes from, over the layers that are read; empty unless
            asked for. flow: ``rollout`` or ``last``.
        provenance: how it was made.
    """

    pictures: tuple[ImageLayout, ...]
    cells: tuple[TowerCells, ...]
    layers: tuple[int, ...]
    depth: int
    read: int
    received_lht: NDArray[np.float32]
    special_lhst: NDArray[np.float32]
    norm_lt: NDArray[np.float32]
    flows: tuple[NDArray[np.float32], ...] = ()
    flow: str = ""
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        tokens = sum(c.tokens for c in self.cells)
        for name in ("received_lht", "special_lhst", "norm_lt"):
            if getattr(self, name).shape[-1] != tokens:
                raise MapError(f"{name} must end in T = {tokens} tokens, got {getattr(self, name).shape}")
        views = [len(v) for c in self.cells for v in c.views]
        if self.flows and [f.shape for f in self.flows] != [(n, n) for n in views]:
            raise MapError(f"flows must be one (n, n) per view with n = {views}, got {[f.shape for f in self.flows]}")

    def tokens_of(self, image: int) -> slice:
        """Where the tokens of a picture are on axis T.

        Raises:
            SpecError: there is no such picture.
        """
        if not 0 <= image < len(self.cells):
            raise SpecError(f"picture {image} does not exist; there are {len(self.cells)}")
        first = sum(c.tokens for c in self.cells[:image])
        return slice(first, first + self.cells[image].tokens)

    def flows_of(self, image: int) -> tuple[NDArray[np.float32], ...]:
        """The flows of a picture's views.

        Raises:
            SpecError: there is no such picture. MapError: none were kept.
        """
        self.tokens_of(image)
        if not self.flows:
            raise MapError("no flow was kept: ask for the tower with flow='rollout' or flow='last'")
        first = sum(len(c.views) for c in self.cells[:image])
        return self.flows[first : first + len(self.cells[image].views)]

    def layer_slots(self, layers: int | Sequence[int] | None) -> NDArray[np.int64]:
        """Indices on axis L of layer numbers; None for the last layer that is read. Negative ones count from there.

        Raises:
            SpecError: a layer without attention, or beyond the tower's last.
        """
        wanted = [-1] if layers is None else [layers] if isinstance(layers, int) else list(layers)
        slots = {layer: index for index, layer in enumerate(self.layers)}
        numbers = [int(n) + self.read if n < 0 else int(n) for n in wanted]
        missing = [w for w, n in zip(wanted, numbers, strict=True) if n not in slots]
        if missing or not numbers:
            raise SpecError(
                f"no attention in layers {missing or '(none)'} of the tower; layers are {list(self.layers)}"
            )
        return np.array([slots[n] for n in numbers], dtype=np.int64)

    def __repr__(self) -> str:
        layers, heads, tokens = self.received_lht.shape
        views = sum(len(c.views) for c in self.cells)
        return f"<TowerTrace {layers} layers x {heads} heads x {tokens} tokens in {views} views>"


def tower_trace_from_kept(
    kept: KeptTower,
    pictures: Sequence[ImageLayout],
    cells: Sequence[TowerCells],
    provenance: Provenance,
    *,
    read: int,
    flow: str = "",
) -> TowerTrace:
    """The trace of what a pass kept; ``cells`` are those whose views it was given."""
    return TowerTrace(
        pictures=tuple(pictures),
        cells=tuple(cells),
        layers=kept.layers,
        depth=kept.depth,
        read=read,
        received_lht=_array(kept.received_lht),
        special_lhst=_array(kept.special_lhst),
        norm_lt=_array(kept.norm_lt),
        flows=tuple(_array(f) for f in kept.flows),
        flow=flow,
        provenance=provenance,
    )


def _array(tensor: Any) -> NDArray[Any]:
    result: NDArray[Any] = tensor.numpy()
    return result
