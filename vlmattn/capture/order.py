"""Whether the lines of a batch changed places while it ran, as beam search makes them."""

from __future__ import annotations

from typing import Any

import torch

from vlmattn.capture.sites import AttentionSite
from vlmattn.capture.step import Step


class LineOrder:
    """Compares, in one layer, the newest cached key of each line with what it was one pass before.

    Nothing is read back from the device while the model runs. Quantised caches give back other keys than they got, so
    nothing is known of those.

    Args:
        copies: lines per encoded sequence; one alone cannot change places. layer_idx: the layer to look at; a late one,
            where equal keys mean equal histories; None if no layer tells. cache: of the run, or None.
    """

    def __init__(self, copies: int, layer_idx: int | None, cache: Any) -> None:
        parts = (cache, *getattr(cache, "layers", ()))
        quantised = any("quantized" in type(part).__name__.lower() for part in parts)
        self.layer_idx = layer_idx if copies > 1 and not quantised else None
        self._newest: torch.Tensor | None = None
        self._moved: torch.Tensor | None = None

    def watches(self, site: AttentionSite) -> bool:
        """Whether the keys of ``site`` are looked at; those of cross attention stay as they are."""
        return site.layer_idx == self.layer_idx and site.kind != "cross"

    @torch.no_grad()
    def look(self, key: torch.Tensor, step: Step, first_column: int) -> None:
        """Take the keys (B, H, K, D) of a pass."""
        newest = min(step.start + step.count - 1 - first_column, key.shape[2] - 1)
        before = newest - 1
        if self._newest is not None and step.count == 1 and before >= 0:
            moved = ((key[:, :, before].float() - self._newest).abs() > 1e-6).any()
            self._moved = moved if self._moved is None else self._moved | moved
        self._newest = key[:, :, newest].float()

    def changed(self) -> bool:
        """Whether any line took another's place."""
        return self._moved is not None and bool(self._moved)
