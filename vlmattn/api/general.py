"""Passes of a general prompt, kept per picture: all questions about a picture are contrasted with the same one."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.capture import CaptureSpec
from vlmattn.core.videos import Video, Visual
from vlmattn.maps.gradient import pixel_slopes
from vlmattn.trace import Trace

if TYPE_CHECKING:
    from vlmattn.api.request import Request
    from vlmattn.api.run import Run
    from vlmattn.api.vlm import Vlm

Slopes = list[NDArray[np.float32]]
MOST_BYTES = 256 << 20
"""What is kept of general passes, for all pictures together; the oldest go first."""
_ADAPTER = ("_active_adapter", "_disable_adapters", "merged_adapters", "scaling")
"""What PEFT's layers say of themselves."""


class GeneralPasses:
    """Traces of general prompts by picture, prompt, capture, steering, generation options and state of the weights; and
    gradients of the pixels under them.

    A pass that wrote more steps than are asked for is the same as a shorter one as far as it goes, so it is taken.
    Steering and generation options are compared by what they hold; where that cannot be told (of anything but plain
    values, arrays and frozen dataclasses of these), the pass is run every time and not kept. What cannot be seen from
    outside calls for :meth:`clear`: weights written through ``.data``, hooks of your own, another setting of the
    processor.

    Attributes:
        runs: how often the model has run for it.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes, self.runs = most_bytes, 0
        self._held: OrderedDict[tuple[Any, ...], tuple[Any, int]] = OrderedDict()

    def trace(self, vlm: Vlm, request: Request, pictures: Sequence[Visual], prompt: str, *, steps: int) -> Trace:
        """The trace of :meth:`run`."""
        return self.run(vlm, request, pictures, prompt, steps=steps).trace

    def run(self, vlm: Vlm, request: Request, pictures: Sequence[Visual], prompt: str, *, steps: int) -> Run:
        """``prompt`` asked of ``pictures``, with rows of ``steps`` answer tokens, or fewer if it ends before.

        Args:
            request: whose capture, steering, system text and generation options are used.
        """
        asked = _general(request, pictures, prompt, steps)
        with vlm.alone():
            key = _key(vlm, asked)
            found, reach = self._held.get(key, (None, 0)) if key is not None else (None, 0)
            if found is None or reach < steps:
                self.runs += 1
                found, reach = vlm.run(asked)[0], steps
            if key is not None:
                self._keep(key, found, reach)
        run: Run = found
        return run

    def slopes(self, vlm: Vlm, request: Request, pictures: Sequence[Visual], prompt: str, *, image: int) -> Slopes:
        """Sizes of the gradient of a picture's pixels under ``prompt``; see
        :func:`vlmattn.maps.gradient.pixel_slopes`."""
        with vlm.alone():
            seen = tuple(_fingerprint(picture) for picture in pictures)
            key = prompt, seen, image, request.system, _model_state(vlm.model)
            found = self._held.get(key, (None, 0))[0]
            if found is None:
                self.runs += 1
                encoded = vlm.encode([pictures], [prompt], system=request.system)
                found = pixel_slopes(vlm.model, encoded, image=image)
            self._keep(key, found, 0)
        slopes: Slopes = found
        return slopes

    def _keep(self, key: tuple[Any, ...], found: Run | Slopes, steps: int) -> None:
        self._held[key] = found, steps
        self._held.move_to_end(key)
        while len(self._held) > 1 and sum(_nbytes(one) for one, _ in self._held.values()) > self.most_bytes:
            self._held.popitem(last=False)

    def clear(self) -> None:
        """Forget all passes."""
        self._held.clear()

    def __len__(self) -> int:
        return len(self._held)


def _nbytes(held: Run | Slopes) -> int:
    if isinstance(held, list):
        return sum(one.nbytes for one in held)
    frames = [len(one) if isinstance(one, Video) else 1 for one in held.pictures]
    sizes = [3 * one.wh[0] * one.wh[1] for one in held.pictures]
    return held.trace.nbytes + sum(size * count for size, count in zip(sizes, frames, strict=True))


def _general(request: Request, pictures: Sequence[Visual], prompt: str, steps: int) -> Request:
    asked = request.capture
    capture = CaptureSpec(
        rows="answer",
        layers=asked.layers,
        heads=asked.heads,
        reduce=asked.reduce,
        columns=asked.columns,
        dtype="float32",  # it is divided by
        offload=asked.offload,
        top_k=0,
        budget=asked.budget,
    )
    # Shortest lengths are of the answer that was asked for, not of a pass that is cut short.
    options = {name: value for name, value in request.generate.items() if name not in ("min_length", "min_new_tokens")}
    return replace(
        request,
        items=((list(pictures), prompt),),
        answers=None,
        capture=capture,
        max_new_tokens=max(steps, 1),
        generate=options,
    )


def _key(vlm: Vlm, asked: Request) -> tuple[Any, ...] | None:
    # Equal for passes that do the same; None where that cannot be told.
    try:
        changes = _plain(asked.steering), _plain(sorted(asked.generate.items(), key=lambda pair: pair[0]))
    except TypeError:
        return None
    pictures, prompt = asked.items[0]
    seen = tuple(_fingerprint(picture) for picture in pictures)
    return prompt, seen, repr(asked.capture), changes, asked.system, asked.seed, _model_state(vlm.model)


def _fingerprint(seen: Visual) -> str:
    pixels = seen.pixels if isinstance(seen, Video) else np.asarray(seen.image)
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def _plain(value: Any) -> Any:
    """Something that compares by what a value holds. Raises TypeError for what cannot be known to stay as it is."""
    if isinstance(value, (str, int, float, np.generic, type(None))):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(_plain(one) for one in value)
    if isinstance(value, Mapping):
        return tuple((_plain(name), _plain(one)) for name, one in value.items())
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return value.shape, value.dtype.str, value.tobytes()
    if is_dataclass(value) and not isinstance(value, type) and getattr(value, "__dataclass_params__").frozen:  # noqa: B009
        return type(value), tuple(_plain(getattr(value, one.name)) for one in fields(value) if one.init)
    raise TypeError


def _model_state(model: Any) -> int:
    """Changes when a weight is written, moved, cast or replaced, and when an adapter is put on, merged or put aside."""
    weights = tuple((id(w), w.data_ptr(), 0 if w.is_inference() else w._version) for w in model.parameters())
    tuned = (part for part in model.modules() if hasattr(part, "_disable_adapters"))
    adapters = tuple(repr([getattr(part, name, None) for name in _ADAPTER]) for part in tuned)
    return hash((weights, adapters, model.training))
