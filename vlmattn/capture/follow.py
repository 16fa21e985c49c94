"""Which forward passes belong together, and whether they are the ones that were encoded."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np
import torch

from vlmattn.capture.sites import ModelSites
from vlmattn.capture.step import BatchPlan, keeps_prompt
from vlmattn.core.errors import CaptureError, ConcurrentUse, UnsupportedAttention


class Follower:
    """Tells a pass that begins a run from one that goes on with it, and refuses what would mix two runs.

    A run stays in its thread and with its cache, and goes on where it stopped. Another thread may begin one only when
    the thread of the last run has ended.

    Args:
        name: of the model, for errors.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.inside = False
        self._lock = threading.Lock()
        self._runner: threading.Thread | None = None
        self._running: threading.Thread | None = None
        self._cache: weakref.ref[Any] | None = None
        self._left: list[weakref.ref[Any]] = []
        self._end = 0

    def enter(self) -> None:
        """Note that the current thread enters the decoder.

        Raises:
            ConcurrentUse: another thread is inside.
        """
        me = threading.current_thread()
        with self._lock:
            if self._running is not None and self._running is not me:
                raise self._two_threads()
            self._running, self.inside = me, True

    def leave(self) -> bool:
        """Note that the current thread leaves; False if it is not the one inside."""
        with self._lock:
            if self._running is not threading.current_thread():
                return False
            self._running, self.inside = None, False
            return True

    def begins(self, cache: Any, start: int, count: int) -> bool:
        """Whether a pass over positions [start, start + count) begins a run.

        Raises:
            ConcurrentUse: the last run belongs to another thread. CaptureError: two runs take turns.
        """
        me, held = threading.current_thread(), self._cache() if self._cache is not None else None
        if start and cache is not None and any(left() is cache for left in self._left):
            raise CaptureError(
                f"two runs of {self.name} take turns inside one capture, so their rows would be mixed: "
                "run the second one under session.paused()"
            )
        # The cache of a run that began without one is met in its second pass.
        same = held is cache if self._cache is not None else start == self._end
        fresh = start == 0 or self._runner is None or not same
        if self._runner is not None and self._runner is not me and not (fresh and not self._runner.is_alive()):
            raise self._two_threads()
        if fresh:
            self._forget(held, cache)
        if cache is not None and self._cache is None:
            self._cache = weakref.ref(cache)
        self._runner, self._end = me, start + count
        return fresh

    def _forget(self, held: Any, cache: Any) -> None:
        self._left = [left for left in self._left if left() is not None and left() is not cache]
        if self._cache is not None and held is not None and held is not cache:
            self._left.append(self._cache)
        self._cache = None

    def _two_threads(self) -> ConcurrentUse:
        return ConcurrentUse(
            f"{self.name} is run by two threads inside one capture: run it in one of them, or give each thread its own "
            "model"
        )


def cache_of(kwargs: dict[str, Any]) -> Any:
    """The cache among the decoder's arguments, or None.

    Raises:
        UnsupportedAttention: a paged one.
    """
    # transformers 5.24 calls it ``cache``, earlier ones ``past_key_values``.
    cache = kwargs.get("past_key_values")
    cache = cache if cache is not None else kwargs.get("cache")
    if "Paged" in type(cache).__name__:
        raise UnsupportedAttention("the model runs on a paged cache: turn continuous batching off")
    return cache


def moved_windows(cache: Any, count: int, sites: ModelSites) -> dict[int, int]:
    """Position of the first key of a pass over ``count`` tokens, for each windowed layer where it is not 0."""
    if cache is None:
        return {}
    offsets, latest = {}, 0
    for layer in (site.layer_idx for site in sites.attention if site.windowed):
        if keeps_prompt(cache, layer):
            continue
        if holds_keys(cache, layer):  # a layer without keys of its own reads those of the last one that has some
            latest = int(cache.get_mask_sizes(count, layer)[1])
        offsets[layer] = latest
    return {layer: offset for layer, offset in offsets.items() if offset}


def holds_keys(cache: Any, layer_idx: int) -> bool:
    """Whether a cache has keys of a layer's own; layers that read those of another one have none."""
    layers = getattr(cache, "layers", ())
    return layer_idx >= len(layers) or hasattr(layers[layer_idx], "get_mask_sizes")


def check_input(plan: BatchPlan, mask: Any, length: int) -> bool:
    """Compare what the decoder got with the layouts.

    Args:
        mask: its attention mask; only one of shape (B, N) can be compared. length: N, tokens per sequence, keys beside
            them included.

    Returns:
        Whether the mask may hide tokens inside a sequence.

    Raises:
        CaptureError: the padding or the length is another.
    """
    longest = max(pad + len(layout) for pad, layout in zip(plan.pad_left, plan.layouts, strict=True))
    if length > longest:
        raise CaptureError(
            f"the model got {length - plan.memory} tokens per sequence, but the layouts (with pad_left) say "
            f"{longest - plan.memory}: "
            "pass the layouts of this input, and generate one token per pass (no assistant, no prompt lookup)"
        )
    if not isinstance(mask, torch.Tensor) or mask.ndim != 2 or mask.shape[0] != len(plan.layouts):
        return mask is not None
    real = mask.detach().ne(0).cpu().numpy()
    for line, (one, pad, layout) in enumerate(zip(real, plan.pad_left, plan.layouts, strict=True)):
        first = pad + layout.memory - plan.memory
        end = pad + len(layout) - plan.memory
        _check_line(line // plan.copies, np.flatnonzero(one), first, min(end, len(one)))
    return _has_holes(real)


def _check_line(item: int, real: np.ndarray, first: int, end: int) -> None:
    got = (int(real[0]), int(real[-1]) + 1) if len(real) else (0, 0)
    if end > first and got != (first, end):
        raise CaptureError(
            f"sequence {item}: the attention mask has its tokens at {got[0]} to {got[1] - 1}, but pad_left and layout "
            f"say {first} to {end - 1}: pass pad_left=encoded.pad_left and the layouts of this input"
        )


def _has_holes(real: np.ndarray) -> bool:
    # A line with a hole has fewer ones than its outermost ones span.
    spans = real.shape[1] - real.argmax(1) - real[:, ::-1].argmax(1)
    return bool((real.sum(1) < spans).any())
