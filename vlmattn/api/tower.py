"""The vision tower of a run: one more pass of the tower, and maps of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal, cast

from vlmattn.core.errors import SpecError, UnsupportedModel
from vlmattn.trace import TowerTrace, tower_trace_from_kept

if TYPE_CHECKING:
    from vlmattn.api.run import Run
    from vlmattn.api.vlm import Vlm
    from vlmattn.capture import CaptureSpec
    from vlmattn.core.layout import TokenLayout
    from vlmattn.grid import PatchMap

Flow = Literal["rollout", "last"]
KINDS = ("class", "register", "received", "rollout", "norm")
"""Maps of the vision tower alone."""


def look_at_tower(run: Run, flow: Flow | None = None) -> TowerTrace:
    """Run the vision tower once more on a run's pictures, as they were prepared, and keep where its patches look.

    Raises:
        SpecError: another flow, or no attention of the tower can be seen. UnsupportedModel: its tokens are not known.
        BudgetExceeded: ``flow`` would take more than the capture's budget. CaptureError: other tokens than expected.
    """
    from vlmattn.capture import TowerPass

    check_flow(flow)
    vlm, request = run.vlm, run.request
    encoded = vlm.encode([run.pictures], [request.items[0][1]], system=request.system)
    for change in request.steering:
        encoded = change.edit_input(encoded)
    pictures = encoded.layouts[0].images
    if any(picture.times for picture in pictures):
        raise SpecError("the vision tower's own attention is kept for pictures only: give single frames as pictures")
    TowerPass(vlm.model, [])  # a model without a tower is told so before its tokens are asked for
    cells = [vlm.adapter.tower_cells(picture) for picture in pictures]
    views = [view for one in cells for view in one.views]
    read = vlm.adapter.tower_layers
    looking = TowerPass(vlm.model, views, flow=flow, read=read, budget=request.capture.budget)
    with vlm._running:
        kept = looking.run(encoded.inputs)
    provenance = replace(run.trace.provenance, rows="", convention="")
    return tower_trace_from_kept(kept, pictures, cells, provenance, read=read(kept.depth), flow=flow or "")


def seen_apart(vlm: Vlm, layouts: Sequence[TokenLayout], spec: CaptureSpec) -> bool:
    """Whether ``run.tower()`` will look at the tower of these prompts' pictures; asked only if ``spec`` keeps it."""
    from vlmattn.capture import TowerPass

    pictures = [picture for layout in layouts for picture in layout.images]
    if spec.vision is None or any(picture.times for picture in pictures):
        return False
    try:
        TowerPass(vlm.model, [view for picture in pictures for view in vlm.adapter.tower_cells(picture).views])
    except (SpecError, UnsupportedModel):
        return False
    return True


def check_flow(flow: Any) -> None:
    """Raises SpecError unless it is None or a way to follow outputs back through the tower."""
    if flow not in (None, "rollout", "last"):
        raise SpecError(f"the way through the vision tower must be 'rollout' or 'last', got {flow!r}")


def check_kind(kind: str, options: dict[str, Any]) -> None:
    """Refuse, by name, a map of the tower or an option of it that does not exist.

    Raises:
        SpecError: lists those there are.
    """
    if kind not in KINDS:
        raise SpecError(f"a map of the vision tower must be one of {', '.join(KINDS)}; got {kind!r}")
    known = [name for name in signature(_method(kind)).parameters if name not in ("tower", "image")]
    for name in options:
        if name not in known:
            raise SpecError(f"vision_map({kind!r}) has no option {name!r}; it has {', '.join(known)}")


def tower_map(tower: TowerTrace, kind: str, image: int, options: dict[str, Any]) -> PatchMap:
    """One of :data:`KINDS`; see :mod:`vlmattn.maps.vision`."""
    return _method(kind)(tower, image=image, **options)


def _method(kind: str) -> Callable[..., PatchMap]:
    from vlmattn import maps

    names = {
        "class": "class_attention",
        "register": "register_attention",
        "received": "received_attention",
        "rollout": "rollout",
        "norm": "patch_norms",
    }
    return cast("Callable[..., PatchMap]", getattr(maps, names[kind]))
