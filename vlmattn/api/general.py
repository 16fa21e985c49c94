"""Passes of a general prompt, kept per picture: all questions about a picture are contrasted with the same one."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmattn.capture import CaptureSpec
from vlmattn.core.videos import Video, Visual
from vlmattn.trace import Trace

if TYPE_CHECKING:
    from vlmattn.api.request import Request
    from vlmattn.api.run import Run
    from vlmattn.api.vlm import Vlm

MOST_BYTES = 256 << 20
"""What is kept of general passes, for all pictures together; the oldest go first."""


class GeneralPasses:
    """Traces of general prompts by picture, prompt, capture, steering and state of the weights.

    A pass that wrote more steps than are asked for is the same as a shorter one as far as it goes, so it is taken.

    Attributes:
        runs: how often the model has run for it.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes, self.runs = most_bytes, 0
        self._held: OrderedDict[tuple[Any, ...], tuple[Run, int, Any]] = OrderedDict()

    def trace(self, vlm: Vlm, request: Request, pictures: Sequence[Visual], prompt: str, *, steps: int) -> Trace:
        """The trace of :meth:`run`."""
        return self.run(vlm, request, pictures, prompt, steps=steps).trace

    def run(self, vlm: Vlm, request: Request, pictures: Sequence[Visual], prompt: str, *, steps: int) -> Run:
        """``prompt`` asked of ``pictures``, with rows of ``steps`` answer tokens, or fewer if it ends before.

        Args:
            request: whose capture, steering, system text and generation options are used.
        """
        key = _key(vlm, request, pictures, prompt)
        held = self._held.get(key)
        if held is None or held[1] < steps:
            self.runs += 1
            found = vlm.run(_general(request, pictures, prompt, steps))[0]
            # Steering is held with it, so that no other object gets its identity.
            held = self._held[key] = (found, steps, request.steering)
        self._held.move_to_end(key)
        while len(self._held) > 1 and sum(_nbytes(one) for one, _, _ in self._held.values()) > self.most_bytes:
            self._held.popitem(last=False)
        return held[0]

    def clear(self) -> None:
        """Forget all passes."""
        self._held.clear()

    def __len__(self) -> int:
        return len(self._held)


def _nbytes(run: Run) -> int:
    frames = [len(one) if isinstance(one, Video) else 1 for one in run.pictures]
    sizes = [3 * one.wh[0] * one.wh[1] for one in run.pictures]
    return run.trace.nbytes + sum(size * count for size, count in zip(sizes, frames, strict=True))


def _general(request: Request, pictures: Sequence[Visual], prompt: str, steps: int) -> Request:
    asked = request.capture
    capture = CaptureSpec(
        rows="answer",
        layers=asked.layers,
        heads=asked.heads,
        reduce=asked.reduce,
        columns=asked.columns,
        dtype=asked.dtype,
        offload=asked.offload,
        top_k=0,
        budget=asked.budget,
    )
    return replace(
        request, items=((list(pictures), prompt),), answers=None, capture=capture, max_new_tokens=max(steps, 1)
    )


def _key(vlm: Vlm, request: Request, pictures: Sequence[Visual], prompt: str) -> tuple[Any, ...]:
    return (
        prompt,
        tuple(_fingerprint(picture) for picture in pictures),
        repr(request.capture),
        tuple(id(one) for one in request.steering),
        request.system,
        request.seed,
        repr(sorted(request.generate.items(), key=lambda pair: pair[0])),
        _weights_state(vlm.model),
    )


def _fingerprint(seen: Visual) -> str:
    pixels = seen.pixels if isinstance(seen, Video) else np.asarray(seen.image)
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def _weights_state(model: Any) -> int:
    """Changes when a weight is written or replaced, as training and merging adapters do."""
    return hash(tuple((id(w), 0 if w.is_inference() else w._version) for w in model.parameters()))
