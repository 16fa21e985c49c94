"""What is seen before the language model runs: the vision tower's own attention, and what a resampler's queries see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from vlmattn.capture.compose import hop_rows, hop_shape, own_call
from vlmattn.capture.door import AttentionCall
from vlmattn.capture.sites import AttentionSite, ModelSites
from vlmattn.capture.spec import CaptureSpec
from vlmattn.capture.step import BatchPlan
from vlmattn.capture.tower import look_at_tower, split_views
from vlmattn.core.layout import TokenLayout

Seen = list[torch.Tensor | None]


class BeforeWords:
    """Holds what was seen since it was last taken.

    Args:
        spec: what to keep; None for nothing. sites: the model's. layouts: one per sequence. instead: what to do where
            the tower cannot be kept.

    Attributes:
        watched: the sites whose calls it wants to see, by the identity of their modules. inside: whether the decoder
            runs the tower itself, so that a run has begun when the tower is seen.
    """

    def __init__(
        self, spec: CaptureSpec | None, sites: ModelSites, layouts: Sequence[TokenLayout], instead: str
    ) -> None:
        self._sites, self._instead = sites, instead
        self._kind = spec.vision if spec is not None else None
        self._shape = hop_shape(layouts) if spec is not None else None
        wanted = sites.vision if self._shape is not None or self._kind is not None else ()
        self.watched = {id(site.module): site for site in wanted}
        self._readers = {id(site.module): site for site in sites.own_readers} if self._shape else {}
        guests = {id(module) for module in sites.guests}
        self.inside = any(module in guests for module in (*self.watched, *self._readers))
        self._tower: dict[int, list[torch.Tensor]] = {}
        self._hops: dict[int, list[torch.Tensor]] = {}

    def look(self, site: AttentionSite, call: AttentionCall) -> None:
        """Keep what is wanted of a call of one of the sites."""
        if self._kind is not None:
            look_at_tower(self._tower, site, call, self._kind, self._sites, self._instead)
        if self._shape == (call.query.shape[2], call.key.shape[2]):
            self._hops.setdefault(site.layer_idx, []).append(hop_rows(call))

    def hooks(self, looking: Callable[[], bool]) -> Iterator[Any]:
        """Handles of hooks on resamplers that compute attention themselves; they look while ``looking()``."""

        def enters(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if looking():
                self.look(self._readers[id(module)], own_call(module, args, kwargs))

        for site in self._readers.values():
            yield site.module.register_forward_pre_hook(enters, with_kwargs=True)

    def take(self, plan: BatchPlan) -> tuple[Seen, Seen]:
        """What the tower saw, and what the queries did, of each line of the batch; forgotten here."""
        tower, hops = self._tower, self._hops
        self.clear()
        both = [split_views(one, plan.layouts, plan.copies, self._instead) for one in (tower, hops)]
        return both[0], both[1]

    def clear(self) -> None:
        """Forget what was seen."""
        self._tower, self._hops = {}, {}
