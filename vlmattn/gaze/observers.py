"""Synthetic observers: scanpaths on drawn scenes by a stated rule, so that everything that needs people runs without.

They are no people and stand for none: what is measured on them says that the measuring works, not how anybody looks.
Every scanpath says so in its trial facts (``synthetic``) and in its subject's name.

The rule. The gaze begins near the middle. Each next place x, a cell of 4 pixels, is drawn with probability proportional
to exp(L(x) / noise), where L is the sum of

* salience · (largest bump at x of the scene's objects): a bump is a Gaussian as wide as the object, 1 at its middle;
* guidance · (the same with each bump times how alike the object is to what is looked for: 1 for the thing itself,
  0.5 for the same colour, 0.25 for the same shape), in search only;
* -centre · d²: the squared distance from the middle in half sides of the picture;
* -|x - gaze|² / (2 reach²): near places are easier to go to;
* -inhibition · (a Gaussian of a twelfth of the shorter side round each earlier fixation, halved at each further one).

Free viewing ends after a number of fixations drawn from a Poisson distribution; search ends at the first fixation on
the target, or after ``longest``. Fixations last a log-normal time. Each subject has strengths of its own, log-normal
round those given.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.gaze.fixations import Fixations, Scanpath
from vlmattn.gaze.models.timing import Durations, timed
from vlmattn.scene import Scene, SceneObject

Array = NDArray[np.float64]
_CELL = 4
_LEAST = 3


@dataclass(frozen=True)
class Observer:
    """Strengths of what draws a synthetic observer's gaze; see the module.

    Attributes:
        guidance, salience, centre, inhibition: strengths, 0 or more. reach: of saccades, as a share of the diagonal.
        noise: above 0. mean_count: fixations in free viewing. longest: fixations in search. variation: deviation of
            the logarithm of a subject's strengths from those of all.

    Raises:
        SpecError: a number out of range.
    """

    guidance: float = 2.5
    salience: float = 2.5
    centre: float = 0.5
    inhibition: float = 4.0
    reach: float = 0.35
    noise: float = 0.8
    mean_count: float = 8.0
    longest: int = 12
    variation: float = 0.2

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            positive = one.name in ("reach", "noise", "mean_count", "longest")
            if not np.isfinite(value) or value < 0 or (positive and value == 0):
                raise SpecError(
                    f"{one.name} of an observer must be {'above 0' if positive else '0 or more'}: {value!r}"
                )

    def subject(self, number: int, seed: int) -> Observer:
        """The strengths of one subject."""
        rng = np.random.default_rng([seed, number, 1])
        names = ("guidance", "salience", "centre", "inhibition", "reach", "noise")
        factors = np.exp(rng.normal(0.0, self.variation, len(names)))
        return replace(self, **{n: getattr(self, n) * float(f) for n, f in zip(names, factors, strict=True)})


def synthetic_fixations(
    scene: Scene,
    *,
    image: str,
    target: str | None = None,
    task: str | None = None,
    subjects: int = 8,
    seed: int = 0,
    observer: Observer = Observer(),
) -> Fixations:
    """Scanpaths of synthetic observers on a scene; the same for the same arguments.

    Args:
        scene: with its objects. image: its name, which is part of the seed. target: colour and shape of what is looked
            for (``red circle``), there or not; None for free viewing. task: of the scanpaths. subjects: how many.

    Returns:
        One scanpath per subject, ``synthetic-1`` and so on. Trial facts: ``synthetic``, ``target`` and ``target_box``
        (None where it is not there).

    Raises:
        SpecError: no subject.

    Example:
        >>> from vlmattn.scene import make_scene
        >>> scene = make_scene(0)
        >>> found = synthetic_fixations(scene, image="0", target=scene.objects[0].name, subjects=2)
        >>> [path.subject for path in found], found[0].trial["synthetic"]
        (['synthetic-1', 'synthetic-2'], True)
    """
    if isinstance(subjects, bool) or not isinstance(subjects, (int, np.integer)) or subjects < 1:
        raise SpecError(f"subjects must be a whole number of 1 or more, got {subjects!r}")
    wanted = next((o for o in scene.objects if o.name == target), None)
    facts = {"synthetic": True, "target": target, "target_box": None if wanted is None else list(wanted.box_xyxy)}
    paths = []
    for number in range(1, subjects + 1):
        key = zlib.crc32(f"{image}\n{target}\n{task}".encode())
        looking = _Looking(scene, observer.subject(number, seed), target, np.random.default_rng([seed, number, key]))
        named: dict[str, Any] = {"image": image, "task": task, "subject": f"synthetic-{number}", "trial": facts}
        paths.append(looking.path(**named))
    return Fixations(tuple(paths))


def likeness(thing: SceneObject, target: str) -> float:
    """How alike a thing is to what is looked for: 1, 0.5 (colour), 0.25 (shape) or 0."""
    color, _, shape = target.partition(" ")
    return 1.0 if thing.name == target else 0.5 if thing.color == color else 0.25 if thing.shape == shape else 0.0


@dataclass
class _Looking:
    scene: Scene
    observer: Observer
    target: str | None
    rng: np.random.Generator

    def path(self, **named: Any) -> Scanpath:
        width, height = self.scene.image_wh
        places = [self._near((width / 2, height / 2))]
        drive, inhibited = self._drive(), np.zeros(self._cells[0].shape)
        while not self._ended(places):
            x, y = places[-1]
            squares = (self._cells[0] - x) ** 2 + (self._cells[1] - y) ** 2
            inhibited = inhibited / 2 + np.exp(-0.5 * squares / (min(width, height) / 12) ** 2)
            reach = self.observer.reach * np.hypot(width, height)
            log = drive - squares / (2 * reach**2) - self.observer.inhibition * inhibited
            weights = np.exp((log - log.max()) / self.observer.noise).reshape(-1)
            cell = int(self.rng.choice(len(weights), p=weights / weights.sum()))
            places.append(self._near((self._cells[0].flat[cell], self._cells[1].flat[cell])))
        return timed(places, (width, height), Durations("drawn", seconds=0.25), rng=self.rng, **named)

    def __post_init__(self) -> None:
        width, height = self.scene.image_wh
        x, y = (np.arange(_CELL / 2, n, _CELL) for n in (width, height))
        across, down = np.meshgrid(x, y)
        self._cells: tuple[Array, Array] = (across, down)
        self._last = max(_LEAST, int(self.rng.poisson(self.observer.mean_count)))
        self._boxes = [o.box_xyxy for o in self.scene.objects if o.name == self.target]

    def _drive(self) -> Array:
        width, height = self.scene.image_wh
        across, down = (self._cells[0] / width * 2 - 1), (self._cells[1] / height * 2 - 1)
        drawn = self.observer.salience * self._bumps([1.0] * len(self.scene.objects))
        if self.target is not None:
            alike = [likeness(one, self.target) for one in self.scene.objects]
            drawn = drawn + self.observer.guidance * self._bumps(alike)
        return np.asarray(drawn - self.observer.centre * (across**2 + down**2))

    def _bumps(self, heights: list[float]) -> Array:
        found = np.zeros(self._cells[0].shape)
        for one, height in zip(self.scene.objects, heights, strict=True):
            x, y = one.center_xy
            squares = (self._cells[0] - x) ** 2 + (self._cells[1] - y) ** 2
            found = np.maximum(found, height * np.exp(-0.5 * squares / (one.side / 2) ** 2))
        return found

    def _near(self, place: tuple[float, float]) -> tuple[float, float]:
        """The place, missed by 2 pixels or so, on the picture."""
        width, height = self.scene.image_wh
        x, y = np.asarray(place) + self.rng.normal(0, 2, 2)
        return float(np.clip(x, 0, width - 0.01)), float(np.clip(y, 0, height - 0.01))

    def _ended(self, places: list[tuple[float, float]]) -> bool:
        if self.target is None:
            return len(places) >= self._last
        x, y = places[-1]
        on = any(left < x < right and top < y < bottom for left, top, right, bottom in self._boxes)
        return on or len(places) >= self.observer.longest
