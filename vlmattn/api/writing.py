"""Settings of ``generate`` while steering acts on what is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vlmattn.api.endings import end_tokens
from vlmattn.core.errors import SpecError

if TYPE_CHECKING:
    from vlmattn.adapters import Encoded
    from vlmattn.api.request import Request
    from vlmattn.api.vlm import Vlm


def steering_in(vlm: Any, request: Request) -> Request:
    """The request with steering that knows the model, each method by itself.

    Raises:
        SpecError: methods that contradict each other, or that the model cannot have.
    """
    from vlmattn.capture import model_sites
    from vlmattn.steering.together import check_together

    members = [part for one in request.steering for part in one.parts()]
    known = tuple(one.for_model(vlm) for one in members)
    if len(known) > 1:
        check_together(known, model_sites(vlm.model).layers)
    return replace(request, steering=known)


def searches(request: Request) -> bool:
    """Whether answers are written by a search of one's own, one prompt at a time."""
    return request.answers is None and any(one.searches() for part in request.steering for one in part.parts())


def searched(vlm: Vlm, encoded: Encoded, request: Request) -> tuple[int, ...]:
    """The tokens of the answer that a steering's own search writes to one prompt.

    Raises:
        SpecError: other steering beside it, or options of ``generate``.
    """
    (first, *rest) = request.steering
    if rest:
        names = " and ".join(type(one).__name__ for one in request.steering)
        raise SpecError(f"{names} do not go together: a search of one's own is used alone")
    if request.generate:
        raise SpecError(f"{type(first).__name__} searches by itself: leave out {', '.join(request.generate)}")
    return first.search(
        vlm.model, encoded, most=request.max_new_tokens, ends=end_tokens(vlm.model, {"max_new_tokens": 1}).tolist()
    )


@contextmanager
def steered_settings(
    model: Any, encoded: Encoded, request: Request, settings: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """``settings`` with the logits processors of one run of ``request``; what they need is undone afterwards.

    Raises:
        SpecError: a steering that cannot act on this input, or on this way of decoding.
    """
    with ExitStack() as stack:
        told = [stack.enter_context(one.writing(model, encoded, settings)) for one in request.steering]
        added = [one for one in told if one is not None]
        if not added:
            yield dict(settings)
            return
        yield dict(settings) | {"logits_processor": [*(settings.get("logits_processor") or ()), *added]}
