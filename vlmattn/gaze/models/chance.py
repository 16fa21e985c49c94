"""Scanpaths that know nothing of the picture: what any model has to beat."""

from __future__ import annotations

from typing import Any

import numpy as np

from vlmattn.core.errors import SpecError
from vlmattn.gaze.baselines import centre_map
from vlmattn.gaze.fixations import Fixations, Scanpath
from vlmattn.gaze.models.attention import AnyMap, drawn_places
from vlmattn.gaze.models.timing import CONSTANT, Durations, count_of, timed
from vlmattn.gaze.units import check_wh


def uniform_scanpath(
    image_wh: tuple[int, int],
    *,
    count: int = 8,
    rng: np.random.Generator,
    durations: Durations = CONSTANT,
    **named: Any,
) -> Scanpath:
    """Places drawn independently, each anywhere on the picture.

    Example:
        >>> len(uniform_scanpath((640, 480), count=5, rng=np.random.default_rng(0)))
        5
    """
    wh = check_wh(image_wh)
    return timed(rng.random((count_of(count), 2)) * wh, wh, durations, rng=rng, **named)


def centre_scanpath(
    image_wh: tuple[int, int],
    *,
    count: int = 8,
    rng: np.random.Generator,
    density: AnyMap | None = None,
    width: float = 0.25,
    durations: Durations = CONSTANT,
    **named: Any,
) -> Scanpath:
    """Places drawn independently near the middle.

    Args:
        density: (H, W) where to draw from, as :func:`vlmattn.gaze.centre_bias` of people; default: a Gaussian of
            ``width`` of the picture's sides (:func:`vlmattn.gaze.centre_map`).
    """
    wh = check_wh(image_wh)
    places = drawn_places(centre_map(wh, width=width) if density is None else density, count_of(count), rng)
    return timed(places, wh, durations, rng=rng, **named)


def random_walk(
    image_wh: tuple[int, int],
    *,
    count: int = 8,
    rng: np.random.Generator,
    step: float = 0.15,
    durations: Durations = CONSTANT,
    **named: Any,
) -> Scanpath:
    """A walk from the middle whose steps are Gaussian, ``step`` of the picture's diagonal across and down, thrown back
    at the borders.

    Raises:
        SpecError: a step that is not above 0.

    Example:
        >>> path = random_walk((640, 480), count=3, rng=np.random.default_rng(0))
        >>> float(path.x[0]), float(path.y[0]), bool(path.on_image().all())
        (320.0, 240.0, True)
    """
    wh = check_wh(image_wh)
    if not (np.isfinite(step) and step > 0):
        raise SpecError(f"step must be a share of the diagonal above 0, got {step!r}")
    steps = rng.normal(0.0, step * np.hypot(*wh), (count_of(count) - 1, 2))
    way = np.concatenate([[np.array(wh) / 2], steps]).cumsum(axis=0)
    folded = np.mod(way, 2 * np.array(wh))
    places = np.minimum(np.minimum(folded, 2 * np.array(wh) - folded), np.nextafter(np.array(wh, dtype=float), 0))
    return timed(places, wh, durations, rng=rng, **named)


def other_scanpath(
    fixations: Fixations, image: str | None, image_wh: tuple[int, int], *, rng: np.random.Generator, least: int = 1
) -> Scanpath:
    """Somebody's scanpath on another picture, moved to this one's size, with its own number of fixations.

    Args:
        least: fixations that it must have.

    Raises:
        SpecError: there is none.
    """
    others = [path for path in fixations if path.image != image and len(path) >= least]
    if not others:
        raise SpecError(f"no other picture than {image!r} has a scanpath of {least} fixations or more")
    chosen = others[int(rng.integers(len(others)))]
    moved = chosen.scaled_to(check_wh(image_wh)).outside("clip")
    facts = {"from_image": chosen.image, "from_subject": chosen.subject}
    return Scanpath(moved.x, moved.y, moved.image_wh, moved.start, moved.duration, image=image, trial=facts)
