"""Rows of decoding passes, held as queries and computed some dozens at a time.

A pass that writes one token is made of small operations, so looking at every layer of every pass costs more than the
arithmetic. Where a layer's keys only ever grow at their end, the rows of several passes follow from the queries of
each and the keys of the last: the same numbers, in few operations.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F

from vlmattn.capture.door import AttentionCall
from vlmattn.capture.rows import apply_mask, row_probabilities, row_scores, rows_per_chunk, visible_to
from vlmattn.capture.sites import AttentionSite

MOST = 32
"""Rows of a layer that are held before they are computed."""
_PER_ROW = ("sinks", "position_bias")

Keep = Callable[[AttentionSite, int, torch.Tensor, torch.Tensor | None, int], None]
"""Takes a layer's site, the place of the first row, (B, H, R, K) probabilities that are 0 outside a row's own keys,
(B, 1, R, K) which keys are seen where the layer is asked, and the padded position of the first key."""


@dataclass
class _Held:
    """Passes of a layer that follow each other.

    Attributes:
        first: place of the first row. slides: whether every pass drops its oldest key, as full windows do. most: passes
            that are held. call: the last one. keys: of windows that slide, (B, H_kv, K, D) of the first pass and the
            newest one of each later pass. queries, masks, lengths, starts: of each pass: (B, H, 1, D), its mask, how
            many keys it has, and the padded position of the first.
    """

    site: AttentionSite
    call: AttentionCall
    first: int
    slides: bool
    most: int
    keys: list[torch.Tensor] = field(default_factory=list)
    queries: list[torch.Tensor] = field(default_factory=list)
    masks: list[torch.Tensor | None] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    def goes_on(self, call: AttentionCall, place: int, start: int, slides: bool) -> bool:
        """Whether a pass is the next one, and there is room for it."""
        count = len(self.lengths)
        told = (self.first + count, self.starts[-1] + slides, self.lengths[-1] + (not slides), slides)
        return count < self.most and told == (place, start, call.key.shape[2], self.slides)

    def add(self, call: AttentionCall, start: int) -> None:
        """Hold a pass."""
        self.call = call
        if self.slides:
            self.keys.append(call.key[:, :, -1:].detach().clone() if self.keys else call.key.detach())
        self.queries.append(call.query.detach() if call.query.requires_grad else call.query)
        self.masks.append(call.mask)
        self.lengths.append(call.key.shape[2])
        self.starts.append(start)

    def joined(self) -> AttentionCall:
        """All passes as one call, whose keys are those of any of them."""
        last = self.call
        key = torch.cat(self.keys, dim=2) if self.slides else last.key
        query = torch.cat(self.queries, dim=2)
        return AttentionCall(last.kernel, last.module, query, key, last.value, None, last.options)

    def own(self, keys: int, device: torch.device) -> torch.Tensor:
        """(R, K) which keys of the joined call each pass had."""
        begin = torch.tensor([start - self.starts[0] for start in self.starts], device=device)[:, None]
        end = begin + torch.tensor(self.lengths, device=device)[:, None]
        columns = torch.arange(keys, device=device)
        return (columns >= begin) & (columns < end)

    def mask(self, keys: int) -> torch.Tensor | None:
        """(B, 1|H, R, K) of all passes, as the model's; None if every row sees all its keys."""
        given = [mask for mask in self.masks if mask is not None]
        if not given:
            return None
        hidden = False if given[0].dtype == torch.bool else torch.finfo(given[0].dtype).min
        seen = True if given[0].dtype == torch.bool else 0.0
        parts = []
        for mask, length, start in zip(self.masks, self.lengths, self.starts, strict=True):
            row = given[0].new_full((*given[0].shape[:2], 1, length), seen) if mask is None else mask[..., :length]
            before = start - self.starts[0]
            parts.append(F.pad(row, (before, keys - before - length), value=hidden))
        return torch.cat(parts, dim=2)


class PendingRows:
    """Holds rows until they are worth computing.

    Args:
        cache: of the run. keep: gets the rows. asks: whether a layer has to say what a new row sees.
    """

    def __init__(self, cache: Any, keep: Keep, asks: Callable[[AttentionSite], bool]) -> None:
        self._cache = weakref.ref(cache) if cache is not None else None
        self._keep, self._asks = keep, asks
        self._held: dict[int, _Held] = {}

    def take(self, site: AttentionSite, call: AttentionCall, place: int, start: int) -> bool:
        """Hold the row of a pass, if it can wait: its keys are those of a cache that grows or slides, its mask is told
        by one row.

        Args:
            place: where the row belongs. start: padded position of the first key.
        """
        cache = self._cache() if self._cache is not None else None
        layers = getattr(cache, "layers", ())
        if site.layer_idx >= len(layers) or getattr(cache, "offloading", False) or not _told_by_row(call):
            return False
        slides = _slides(layers[site.layer_idx], call.key)
        if slides is None or any(call.options.get(name) is not None for name in _PER_ROW):
            return False
        held = self._held.get(site.layer_idx)
        if held is None or not held.goes_on(call, place, start, slides):
            if held is not None:
                self._compute(held)
            most = min(MOST, rows_per_chunk(call))
            held = self._held[site.layer_idx] = _Held(site, call, place, slides, most)
        held.add(call, start)
        return True

    def settle(self) -> None:
        """Compute all that is held."""
        waiting, self._held = self._held, {}
        for held in waiting.values():
            self._compute(held)

    @torch.no_grad()
    def _compute(self, held: _Held) -> None:
        call = held.joined()
        rows = slice(0, call.query.shape[2])
        scores = row_scores(call, rows)
        keys = scores.shape[-1]
        own, mask = held.own(keys, scores.device), held.mask(keys)
        probs = row_probabilities(call, apply_mask(scores, mask).masked_fill(~own, -torch.inf), rows)
        seen = visible_to(mask, scores) & own if self._asks(held.site) else None
        self._keep(held.site, held.first, probs, seen, held.starts[0])


def _slides(layer: Any, key: torch.Tensor) -> bool | None:
    """Whether a layer's keys slide, or grow (False); None where neither is sure: layers of other kinds may drop,
    quantise or move what they hold."""
    grows, slides = _kinds()
    held, kind = getattr(layer, "keys", None), type(layer)
    if kind is grows:
        return False if held is key else None
    if kind is not slides or held is None or getattr(layer, "record_past", False):
        return None
    if held.untyped_storage().data_ptr() != key.untyped_storage().data_ptr():
        return None
    return held.shape[2] < key.shape[2]


@cache
def _kinds() -> tuple[type, type]:
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    return DynamicLayer, DynamicSlidingWindowLayer


def _told_by_row(call: AttentionCall) -> bool:
    mask, window = call.mask, call.options.get("sliding_window")
    if "flash" in call.kernel and window is not None and call.key.shape[2] > window:
        return False
    if mask is None:
        return True
    return (
        isinstance(mask, torch.Tensor) and mask.ndim == 4 and mask.shape[2] == 1 and mask.shape[3] >= call.key.shape[2]
    )
