"""Scanpaths of one answer: in which order, and how long, the model looked where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from vlmattn.api.whole import one_pass
from vlmattn.core.errors import MapError, SpecError

if TYPE_CHECKING:
    from vlmattn.api.look import Look
    from vlmattn.api.run import Run
    from vlmattn.gaze import Scanpath
    from vlmattn.gaze.models import Durations

Order = Literal["tokens", "words", "layers", "map", "sampled"]
ORDERS = ("tokens", "words", "layers", "map", "sampled")
_OF_MAPS = ("at", "merge_px")


def scanpath_of(
    run: Run,
    order: Order = "tokens",
    what: Any = None,
    *,
    image: int = 0,
    durations: Durations | None = None,
    seed: int = 0,
    **options: Any,
) -> Scanpath:
    """See :meth:`vlmattn.Run.scanpath`."""
    import numpy as np

    from vlmattn.gaze.models import places_scanpath, reading_scanpath, sampled_scanpath, winner_take_all

    if order not in ORDERS:
        raise SpecError(f"the order of a scanpath is one of {', '.join(ORDERS)}, got {order!r}")
    if what is not None and order in ("tokens", "words"):
        raise SpecError(f"a scanpath over {order} is of the whole answer: leave out {what!r}, or take order='map'")
    made = {"count", "inhibition", "start", "centre", "temperature", "reach_px"} if order in ("map", "sampled") else {
        *_OF_MAPS
    }  # fmt: skip
    path_options = {name: options.pop(name) for name in list(options) if name in made}
    named: dict[str, Any] = path_options | ({} if durations is None else {"durations": durations})
    picture = run.pictures[image].name if image in range(len(run.pictures)) else None
    facts: dict[str, Any] = {"model": run.vlm.name, "order": order, "answer": run.answer}
    named |= {"image": picture, "task": run.question, "subject": run.vlm.name, "trial": facts}
    named["rng"] = np.random.default_rng(seed)
    if order in ("map", "sampled"):
        make = winner_take_all if order == "map" else sampled_scanpath
        return make(run.map(what, image=image, **options).patch_map, **named)
    looks = _looks(run, order, what, image, options)
    if named.get("at", "peak") != "peak":
        return reading_scanpath([look.patch_map for look in looks], **named)
    # The quick way to a peak, without a map in pixels for every token of a photograph.
    named.pop("at", None)
    seen = [look for look in looks if not look.patch_map.is_flat]
    facts["flat_maps"] = len(looks) - len(seen)
    if not looks:
        raise MapError("a scanpath needs at least one map")
    return places_scanpath([one.peak_xy for one in seen], looks[0].picture.wh, **named)


def _looks(run: Run, order: str, what: Any, image: int, options: dict[str, Any]) -> list[Look]:
    if order == "tokens":
        return run.token_maps(image=image, **options)
    with one_pass(run):
        if order == "layers":
            return list(layer_maps(run, what, image=image, **options).values())
        words = [word for word in run.words() if any(c.isalnum() for c in word.text)]
        if not words:
            raise MapError("the answer has no word to look at the picture for")
        return [run.map(word, image=image, **options) for word in words]


def layer_maps(run: Run, what: Any = None, **options: Any) -> dict[int, Look]:
    """The map of each layer alone, by its number; layers that look at no picture, or from whose rows it is hidden by a
    sliding window, have none.

    Raises:
        MapError: no layer has one.
    """
    found: dict[int, Look] = {}
    last: MapError | None = None
    for layer in run.trace.layers:
        if layer in run.trace.blind:
            continue
        try:
            found[layer] = run.map(what, layers=[layer], **options)
        except MapError as error:
            last = error
    if not found:
        raise last or MapError("no layer that was kept looks at the picture")
    return found
