"""Iterative visual search: look at parts of a picture, the most promising first, until one look is sure enough.

Two published searches, as far as their descriptions go, and a simple one:

* ``vstar``, after Wu and Xie, V*: Guided Visual Search, CVPR 2024 (arXiv 2312.14135): a part is split in two along its
  longer side, or in four where it is near square (sides within 1.5 of each other, our choice); the best cue of the
  parent's map decides what is looked at next. V* trains heads for cue and target; here the cue is the model's own
  attention, the target test the answer's certainty.
* ``zoomeye``, after Shen et al., ZoomEye (arXiv 2411.16044): the children of a part are all looked at, and the surest
  of them is opened next. Its three questions (is it there, could it be found by zooming, can it be answered) are one
  here: how sure the model is of its answer.
* ``zoom``: every look goes to a window round the peak of the last one's attention, smaller each time.

The search itself knows no model: it calls ``look(box)``.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from vlmattn.core.errors import SpecError
from vlmattn.grid import PixelMap
from vlmattn.refine.places import Box, around
from vlmattn.refine.recipes import check_number, is_whole

Opening = Literal["halves", "quarters", "peak"]
Order = Literal["cue", "confidence"]


@dataclass(frozen=True)
class SearchRule:
    """How to search, and when to stop.

    Attributes:
        name, source: what it is called and where it comes from.
        opening: children of a part: ``halves`` along the longer side (quarters of a near square one), ``quarters``
            always, or one window round the ``peak`` of its map.
        order: what is opened next: ``cue`` (the share of its parent's attention that lies inside, times the parent's
            own), or its own ``confidence``, for which all children are looked at first.
        enough: confidence that ends the search, 0 to 1. most_looks: besides the first. most_depth: splits on one way.
        least_px, least_share: a part's shorter side is not split below the larger of this many pixels and this share
            of the picture's shorter side (V*: 224 and a quarter).
        shrink: side of a ``peak`` window over its parent's.
        overlap: added to every child on each side, as a share of it, so that nothing is cut in two.
    """

    name: str
    source: str
    opening: Opening = "halves"
    order: Order = "cue"
    enough: float = 0.95
    most_looks: int = 6
    most_depth: int = 3
    least_px: int = 28
    least_share: float = 0.25
    shrink: float = 0.5
    overlap: float = 0.0

    def __post_init__(self) -> None:
        for name, known in (("opening", ("halves", "quarters", "peak")), ("order", ("cue", "confidence"))):
            if getattr(self, name) not in known:
                raise SpecError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        for name, low, high in (("enough", 0, 1), ("least_share", 0, 1), ("shrink", 0.05, 0.95), ("overlap", 0, 1)):
            check_number(name, getattr(self, name), low, high)
        for name in ("most_looks", "most_depth", "least_px"):
            if not is_whole(getattr(self, name)) or getattr(self, name) < 1:
                raise SpecError(f"{name} must be a whole number, at least 1, got {getattr(self, name)!r}")

    def but(self, **changes: Any) -> SearchRule:
        """The same with some fields changed.

        Raises:
            SpecError: a field that does not exist, a value that cannot be, or a field that decides nothing here.
        """
        unknown = [name for name in changes if name not in self.__dataclass_fields__]
        if unknown:
            raise SpecError(f"a search has no field {unknown[0]!r}; there are {', '.join(self.__dataclass_fields__)}")
        made = replace(self, **changes)
        idle = ("overlap", "order") if made.opening == "peak" else ("shrink",)
        for name in idle:
            if getattr(made, name) != getattr(self, name):
                raise SpecError(f"{name} decides nothing with opening={made.opening!r}: leave it out")
        return made


SEARCHES: dict[str, SearchRule] = {
    r.name: r
    for r in (
        SearchRule("zoom", "our choice", opening="peak", most_looks=2, most_depth=2, least_share=0.2),
        SearchRule("vstar", "after Wu and Xie, V*, CVPR 2024, arXiv 2312.14135", overlap=0.1),
        SearchRule(
            "zoomeye", "after Shen et al., ZoomEye, arXiv 2411.16044", opening="quarters", order="confidence",
            most_looks=8, most_depth=2, overlap=0.1,
        ),
    )
}  # fmt: skip
"""Named searches."""


@dataclass(frozen=True, eq=False)
class Seen:
    """One look: how sure the answer is (0 to 1), the map in pixels of the part (None if flat), and anything else."""

    confidence: float
    cue: PixelMap | None
    held: Any = None


@dataclass(frozen=True, eq=False)
class Visit:
    """A part that was looked at: its box in the original, depth, what was seen, and why it was next (its priority)."""

    box_xyxy: Box
    depth: int
    seen: Seen
    priority: float


@dataclass(frozen=True, eq=False)
class SearchPath:
    """All looks of a search in order, the first at the whole picture.

    Attributes:
        visits: the looks. stopped: ``sure``, ``looks`` (their number), or ``done`` (nothing left to split).
    """

    visits: tuple[Visit, ...]
    stopped: Literal["sure", "looks", "done"]

    @property
    def best(self) -> Visit:
        """The surest look; of equals, the first."""
        return max(self.visits, key=lambda visit: visit.seen.confidence)

    @property
    def looks(self) -> int:
        """Looks besides the first."""
        return len(self.visits) - 1


def search(image_wh: tuple[int, int], look: Callable[[Box], Seen], rule: SearchRule) -> SearchPath:
    """Look at parts of a picture until one look is sure enough.

    Args:
        image_wh: of the original. look: looks at a box, (x0, y0, x1, y1) in its pixels.

    Example:
        >>> path = search((64, 64), lambda box: Seen(1 - (box[2] - box[0]) / 64, None), SEARCHES["vstar"])
        >>> path.stopped, path.best.box_xyxy
        ('looks', (0, 0, 20, 20))
    """
    visits = [Visit((0, 0, *image_wh), 0, look((0, 0, *image_wh)), 1.0)]
    if visits[0].seen.confidence >= rule.enough:
        return SearchPath(tuple(visits), "sure")
    queue: list[tuple[float, int, _Group]] = []
    _push(queue, visits[0], image_wh, rule)
    while queue:
        _, _, group = heapq.heappop(queue)
        for box in group.boxes:
            if len(visits) > rule.most_looks:
                return SearchPath(tuple(visits), "looks")
            visits.append(Visit(box, group.depth, look(box), group.priority))
            if visits[-1].seen.confidence >= rule.enough:
                return SearchPath(tuple(visits), "sure")
            _push(queue, visits[-1], image_wh, rule)
    return SearchPath(tuple(visits), "done")


@dataclass(frozen=True)
class _Group:
    """Parts that are looked at one after the other before anything else is chosen."""

    boxes: tuple[Box, ...]
    depth: int
    priority: float


def _push(queue: list[tuple[float, int, _Group]], parent: Visit, image_wh: tuple[int, int], rule: SearchRule) -> None:
    for group in _groups(parent, image_wh, rule):
        number = max((entry[1] for entry in queue), default=0) + 1
        heapq.heappush(queue, (-group.priority, number, group))


def _groups(parent: Visit, image_wh: tuple[int, int], rule: SearchRule) -> list[_Group]:
    if parent.depth >= rule.most_depth:
        return []
    boxes = _children(parent, image_wh, rule)
    depth = parent.depth + 1
    if rule.order == "confidence":
        return [_Group(tuple(boxes), depth, parent.seen.confidence)] if boxes else []
    return [_Group((box,), depth, parent.priority * _share(parent, box)) for box in boxes]


def _children(parent: Visit, image_wh: tuple[int, int], rule: SearchRule) -> list[Box]:
    """The parts of a part, in reading order; none where they would be too small or no smaller than it."""
    x0, y0, x1, y1 = parent.box_xyxy
    least = max(rule.least_px, math.ceil(rule.least_share * min(image_wh)))
    if rule.opening == "peak":
        side = max(round(rule.shrink * max(x1 - x0, y1 - y0)), least)
        if side >= max(x1 - x0, y1 - y0) or parent.seen.cue is None:
            return []
        x, y = parent.seen.cue.peak_xy
        return [around((x0 + x, y0 + y), side, image_wh, (1, 1))]
    if min(x1 - x0, y1 - y0) <= least:
        return []
    columns, rows = _splits(x1 - x0, y1 - y0, rule)
    xs, ys = (np.linspace(a, b, n + 1).round().astype(int) for a, b, n in ((x0, x1, columns), (y0, y1, rows)))
    cells = [(xs[c], ys[r], xs[c + 1], ys[r + 1]) for r in range(rows) for c in range(columns)]
    return [_overlapping(box, parent.box_xyxy, rule.overlap) for box in cells]


def _splits(width: int, height: int, rule: SearchRule) -> tuple[int, int]:
    # V*: four parts of a near square one, two along the longer side of others.
    near_square = max(width, height) < 1.5 * min(width, height)
    if rule.opening == "quarters" or near_square:
        return 2, 2
    return (2, 1) if width > height else (1, 2)


def _overlapping(box: tuple[int, ...], parent: Box, overlap: float) -> Box:
    x0, y0, x1, y1 = (int(v) for v in box)
    dx, dy = round((x1 - x0) * overlap), round((y1 - y0) * overlap)
    return max(x0 - dx, parent[0]), max(y0 - dy, parent[1]), min(x1 + dx, parent[2]), min(y1 + dy, parent[3])


def _share(parent: Visit, box: Box) -> float:
    """Of the parent's map, how much lies in a part of it; of its area, where it has no map."""
    x0, y0, x1, y1 = parent.box_xyxy
    cue = parent.seen.cue
    if cue is None or cue.total <= 0:
        return (box[2] - box[0]) * (box[3] - box[1]) / ((x1 - x0) * (y1 - y0))
    inside = cue.values[box[1] - y0 : box[3] - y0, box[0] - x0 : box[2] - x0]
    return float(inside.sum(dtype=np.float64)) / cue.total
