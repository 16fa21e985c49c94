"""Settings of ``generate`` while steering acts on what is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmattn.adapters import Encoded
    from vlmattn.api.request import Request


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
