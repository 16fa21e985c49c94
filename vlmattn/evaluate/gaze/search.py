"""Search: how many fixations until the target, how many scanpaths have found it by then, and whether one kind of target
is found sooner among another than the other way round."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.evaluate.statistics import Interval, bootstrap, paired_bootstrap, permutation_test, ratio
from vlmattn.gaze import Scanpath
from vlmattn.gaze.observers import Observer, synthetic_fixations
from vlmattn.gaze.scanpaths import first_hit, tfp_auc
from vlmattn.gaze.search_displays import search_display
from vlmattn.scene import Scene

Array = NDArray[np.float64]
Box = tuple[float, float, float, float]
Searcher = Callable[[Scene, str, str], Sequence[Scanpath]]
"""Scanpaths on a display for a target (``red ring``), given the display's name."""


@dataclass(frozen=True)
class SearchResult:
    """How targets were found.

    Attributes:
        label: of what. found: share of scanpaths that were on the target within ``steps`` saccades. fixations: mean
            number of saccades to the target; those that did not find it count as ``steps + 1``, so it is a lower bound.
        when_found: the same of those that found it; NaN if none did. cdf: (steps + 1,) share that has found it after 0,
            1, ... saccades, each with its interval; area: their sum. Displays are what is drawn again. scanpaths: how
            many.
    """

    label: str
    found: Interval
    fixations: Interval
    when_found: float
    cdf: tuple[Interval, ...]
    area: float
    scanpaths: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Asymmetry:
    """Two searches on matching displays.

    Attributes:
        a, b: each. difference: of ``fixations``, a less b, displays drawn again in pairs. p: two-sided, that both
            could change places on any display.
    """

    a: SearchResult
    b: SearchResult
    difference: Interval
    p: float


def search_result(
    paths: Sequence[Scanpath],
    boxes_xyxy: Sequence[Box],
    *,
    label: str = "",
    displays: Sequence[Hashable] | None = None,
    steps: int = 10,
    draws: int = 2000,
    seed: int = 0,
) -> SearchResult:
    """What scanpaths say of search. A scanpath that ends before ``steps`` without the target has not found it.

    Args:
        paths: with the first, central fixation. boxes_xyxy: the target of each. displays: of each; each is its own if
            None. steps: saccades that count.

    Raises:
        SpecError: no scanpath, lengths that differ, or fewer than 0 steps.

    Example:
        >>> path = Scanpath([50.0, 20.0, 80.0], [50.0, 20.0, 80.0], (100, 100))
        >>> one = search_result([path, path], [(70, 70, 90, 90), (0, 0, 9, 9)], steps=3, draws=100)
        >>> one.found.value, one.fixations.value, one.when_found, [c.value for c in one.cdf]
        (0.5, 3.0, 2.0, [0.0, 0.0, 0.5, 0.5])
    """
    needed = saccades_to_target(paths, boxes_xyxy, steps)
    ones = np.ones(len(needed))
    keep: dict[str, Any] = {"clusters": displays, "draws": draws, "seed": seed}

    def mean(values: Array) -> Interval:
        return bootstrap(np.column_stack([values, ones]), ratio, **keep)

    cdf = tuple(mean((needed <= step).astype(float)) for step in range(steps + 1))
    hit = needed <= steps
    after = float(needed[hit].mean()) if hit.any() else float("nan")
    area = tfp_auc(np.array([one.value for one in cdf]))
    return SearchResult(label, cdf[-1], mean(needed), after, cdf, area, len(needed))


def saccades_to_target(paths: Sequence[Scanpath], boxes_xyxy: Sequence[Box], steps: int) -> Array:
    """(n,) number of saccades after which each scanpath is on its target; ``steps + 1`` where it is not within them.

    Raises:
        SpecError: as :func:`search_result`.
    """
    if not len(paths) or len(paths) != len(boxes_xyxy):
        raise SpecError(f"search needs one box per scanpath, and one at least; got {len(paths)}, {len(boxes_xyxy)}")
    if steps < 0:
        raise SpecError(f"steps must be 0 or more, got {steps}")
    hits = [first_hit(path, box) for path, box in zip(paths, boxes_xyxy, strict=True)]
    return np.array([steps + 1 if hit is None or hit > steps else hit for hit in hits], dtype=np.float64)


def search_asymmetry(
    a: str,
    b: str,
    searcher: Searcher,
    *,
    displays: int = 20,
    items: int = 12,
    steps: int = 10,
    draws: int = 2000,
    seed: int = 0,
) -> Asymmetry:
    """Whether a target a among b is found sooner than b among a, on displays that differ in nothing else.

    Args:
        a, b: things like ``red ring`` and ``red circle``. searcher: gives scanpaths on a display for a target;
            see :func:`synthetic_searcher` and :func:`neva_searcher`. displays: how many pairs; items: on each.

    Raises:
        SpecError: things that cannot be drawn, or a searcher without scanpaths.
    """
    if displays < 2:
        raise SpecError(f"asymmetry needs 2 pairs of displays or more, got {displays}")
    needed: dict[str, list[Array]] = {a: [], b: []}
    results = {}
    for target, other in ((a, b), (b, a)):
        paths: list[Scanpath] = []
        boxes: list[Box] = []
        names: list[str] = []
        for number in range(displays):
            scene = search_display(target, other, items=items, seed=seed + number)
            x0, y0, x1, y1 = scene.objects[0].box_xyxy
            some = list(searcher(scene, target, f"display-{number}"))
            paths, boxes = paths + some, boxes + [(x0, y0, x1, y1)] * len(some)
            names += [f"display-{number}"] * len(some)
            needed[target].append(saccades_to_target(some, boxes[-len(some) :] if some else [], steps))
        label = f"{target} among {other}"
        results[target] = search_result(
            paths, boxes, label=label, displays=names, steps=steps, draws=draws, seed=seed
        )  # fmt: skip
    first, second = (np.array([[one.mean(), 1.0] for one in needed[name]]) for name in (a, b))
    difference = paired_bootstrap(first, second, ratio, draws=draws, seed=seed)
    p = permutation_test(first, second, ratio, draws=draws, seed=seed)
    return Asymmetry(results[a], results[b], difference, p)


def synthetic_searcher(subjects: int = 6, seed: int = 0, observer: Observer | None = None) -> Searcher:
    """Synthetic observers (no people) as searchers."""
    chosen = Observer() if observer is None else observer

    def search(scene: Scene, target: str, name: str) -> Sequence[Scanpath]:
        return list(
            synthetic_fixations(scene, image=name, target=target, subjects=subjects, seed=seed, observer=chosen)
        )

    return search


def neva_searcher(clip: Any, fixations: int = 6) -> Searcher:
    """NevaClip as searcher, told ``a red ring``; its scanpaths get a first fixation in the middle, as people's have.

    Args:
        clip: a :class:`vlmattn.Clip`.
    """
    from vlmattn.gaze.models import Neva, neva_clip
    from vlmattn.scene.phrasings import with_article

    def search(scene: Scene, target: str, name: str) -> Sequence[Scanpath]:
        found = neva_clip(clip.encoder, [scene.image], [with_article(target)], settings=Neva(fixations))[0]
        width, height = scene.image_wh
        x, y = np.append(width / 2, found.x), np.append(height / 2, found.y)
        return [Scanpath(x, y, scene.image_wh, image=name, subject=clip.name, trial=dict(found.trial))]

    return search
