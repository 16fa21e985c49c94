"""Outputs of single heads, A·V before the output projection W_O, of one forward pass; and their gradients.

The model's own kernel computes them; this visitor only looks at what comes out of the door. With gradients wanted, the
graph begins at the output of the lowest layer: what comes before needs no memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from vlmattn.capture import door
from vlmattn.capture.sites import AttentionSite, model_sites, unwrap
from vlmattn.core.errors import CaptureError


class HeadOutputs:
    """Stands at the door and keeps head outputs of the last pass.

    Args:
        model: a transformers model. grad: keep them in the graph of gradients, from the lowest layer on.
        layers: their numbers; None for all that have attention.

    Attributes:
        found: (B, Q, H, D_v) by layer number, for the pass that ran last.

    Example:
        >>> with HeadOutputs(model).watching() as seen:         # doctest: +SKIP
        ...     model(**inputs)
        >>> seen.found[0].shape                                 # doctest: +SKIP
    """

    resting = False

    def __init__(self, model: Any, *, grad: bool = False, layers: Sequence[int] | None = None) -> None:
        self.model, self.grad = unwrap(model), grad
        chosen = [s for s in model_sites(self.model).attention if layers is None or s.layer_idx in layers]
        self.sites: dict[int, AttentionSite] = {id(site.module): site for site in chosen}
        self.edits = grad  # the output is replaced by one that gradients reach
        self.found: dict[int, torch.Tensor] = {}

    @contextmanager
    def watching(self) -> Iterator[HeadOutputs]:
        """Look at every pass inside the context."""
        modules = [site.module for site in self.sites.values()]
        self.found = {}
        door.subscribe(self, modules)
        try:
            with torch.set_grad_enabled(False):
                yield self
        finally:
            door.unsubscribe(self, modules)

    def visit(self, call: door.AttentionCall, output: torch.Tensor) -> torch.Tensor:
        """See :class:`~vlmattn.capture.door.Visitor`."""
        site = self.sites[id(call.module)]
        if site.layer_idx in self.found and self.grad:
            raise CaptureError(f"layer {site.layer_idx} runs several times in one pass: its heads have several outputs")
        if self.grad:
            torch.set_grad_enabled(True)
            if not output.requires_grad:
                output = output.detach().requires_grad_(True)
        self.found[site.layer_idx] = output
        return output

    def gradients(self, score: torch.Tensor) -> dict[int, torch.Tensor]:
        """The gradient of a score by the outputs of each layer, (B, Q, H, D_v); zeros where it does not depend on them.

        Raises:
            CaptureError: gradients do not reach the heads (quantised or off-loaded weights), or ``grad`` is False.
        """
        if not self.grad or not score.requires_grad:
            raise CaptureError("gradients do not reach the heads of this model: leave the gradient score out")
        outputs = list(self.found.values())
        slopes = torch.autograd.grad(score, outputs, allow_unused=True)
        filled = [torch.zeros_like(o) if g is None else g for o, g in zip(outputs, slopes, strict=True)]
        return dict(zip(self.found, filled, strict=True))
