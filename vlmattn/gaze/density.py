"""Densities of fixations: the ground truth that CC, SIM and KL compare a map with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.gaze.fixations import Fixations, Scanpath
from vlmattn.gaze.held_map import Gaze, counted, pixels_of, shares
from vlmattn.gaze.screen import Screen
from vlmattn.gaze.units import check_wh

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Blur:
    """How fixations are smeared into a density.

    Attributes:
        sigma: of a Gaussian, in pixels; None for one degree of visual angle, or for a Fourier filter.
        border: what lies past the picture's edge: ``nearest`` or ``reflect`` (scipy's words). fourier: cutoff in cycles
            per padded square at half height, in place of ``sigma``. once: fixations on one pixel count once.
        source: whose choice it is.
    """

    sigma: float | None = None
    border: Literal["nearest", "reflect"] = "nearest"
    fourier: float | None = None
    once: bool = False
    source: str = ""


BLURS: dict[str, Blur] = {
    "degree": Blur(source="one degree of visual angle; needs a screen"),
    "gazexplain": Blur(22.4, source="GazeXplain, for pictures of 512 x 384"),
    "hat": Blur(16.0, source="HAT, for pictures of 512 x 320"),
    "mit": Blur(fourier=8.0, once=True, source="MIT saliency benchmark (MATLAB), 8 cycles per image"),
    "osie": Blur(24.0, source="OSIE: 24 pixels are one degree"),
    "salicon": Blur(19.0, source="SALICON, for pictures of 640 x 480"),
    "tuebingen": Blur(35.0, source="MIT/Tübingen saliency benchmark, about one degree of MIT1003"),
}
"""Named ways to smear fixations."""


def fixation_density(
    gaze: Gaze,
    image_wh: tuple[int, int] | None = None,
    *,
    blur: str | Blur = "degree",
    sigma: float | None = None,
    weight: Literal["count", "duration"] = "count",
    screen: Screen | None = None,
) -> Array:
    """(H, W) where people looked, as shares of 1.

    Args:
        gaze: fixations of one picture; those off it are left out. image_wh: of the picture, where ``gaze`` is points.
        blur: a name of :data:`BLURS`, or one of your own. sigma: of a Gaussian in pixels, instead of the blur's; 0 for
            none at all.
        weight: each fixation counts once, or by its duration.
        screen: for ``degree``, where the scanpaths have none.

    Returns:
        A uniform density where there is no fixation.

    Raises:
        SpecError: another blur, no size, a degree of unknown size, or durations that are not there.

    Example:
        >>> fixation_density([(0.5, 0.5), (0.5, 0.5)], (2, 1), sigma=0).tolist()
        [[1.0, 0.0]]
    """
    wh = _size(gaze, image_wh)
    chosen = _blur(blur)
    counts = _counts(gaze, wh, weight, chosen.once)
    if sigma is None and chosen.fourier is not None:
        blurred = fourier_blur(counts, chosen.fourier)
    else:
        width = chosen.sigma if sigma is None else sigma
        blurred = gaussian(counts, _degree(gaze, screen) if width is None else width, chosen.border)
    return shares(np.maximum(blurred, 0.0))


def gaussian(counts: Array, sigma: float, border: str = "nearest") -> Array:
    """Counts smeared by a Gaussian of ``sigma`` pixels, cut at four sigmas: what scipy's ``gaussian_filter`` gives.
    Unchanged for 0."""
    pixels = np.flatnonzero(counts)
    return smeared(pixels, (counts.shape[1], counts.shape[0]), sigma, border, weights=counts.reshape(-1)[pixels])


def smeared(
    pixels: NDArray[np.int64],
    image_wh: tuple[int, int],
    sigma: float,
    border: str = "nearest",
    weights: Array | None = None,
) -> Array:
    """(H, W) fixated pixels, counted row by row, under a Gaussian, by products of matrices with a column for each."""
    if not (np.isfinite(sigma) and sigma >= 0):
        raise SpecError(f"sigma must be 0 pixels or more, got {sigma}")
    if sigma == 0:
        return counted(pixels, image_wh, weights)
    across, down = (_smearing(n, float(sigma), border) for n in image_wh)
    if len(pixels) > max(image_wh):
        return np.asarray(down @ counted(pixels, image_wh, weights) @ across.T)
    rows, columns = np.divmod(pixels, image_wh[0])
    left = down[:, rows] if weights is None else down[:, rows] * weights
    return np.asarray(left @ across[:, columns].T)


@lru_cache(maxsize=8)
def _smearing(n: int, sigma: float, border: str) -> Array:
    """(n, n) what each of n pixels in a line gets from each."""
    reach = int(4.0 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    source = np.pad(np.arange(n), reach, mode="edge" if border == "nearest" else "symmetric")
    matrix = np.zeros((n, n))
    for shift, weight in enumerate(weights / weights.sum()):
        matrix[np.arange(n), source[shift : shift + n]] += weight
    return matrix


def fourier_blur(counts: Array, cutoff: float) -> Array:
    """Counts under the Fourier Gaussian of MIT's benchmark code: half height at ``cutoff`` cycles per square.

    The picture lies in the corner of a square of zeros whose side is the next power of two, which wraps around.
    """
    rows, columns = counts.shape
    side = 1 << int(np.ceil(np.log2(max(2, rows, columns))))
    cycles = np.fft.fftfreq(side, 1 / side)
    gain = np.exp(-(cycles**2) * np.log(2) / cutoff**2)
    spectrum = np.fft.rfft2(counts, s=(side, side)) * gain[:, None] * gain[None, : side // 2 + 1]
    return np.fft.irfft2(spectrum, s=(side, side))[:rows, :columns]


def sigma_of_cutoff(cutoff: float, side: int) -> float:
    """Pixels of the Gaussian that a Fourier filter with this cutoff (cycles per ``side``) amounts to."""
    return float(side / (np.pi * cutoff) * np.sqrt(np.log(2) / 2))


def _blur(blur: str | Blur) -> Blur:
    if isinstance(blur, Blur):
        return blur
    if blur not in BLURS:
        raise SpecError(f"blur must be one of {sorted(BLURS)} or a Blur, got {blur!r}")
    return BLURS[blur]


def _size(gaze: Gaze, image_wh: tuple[int, int] | None) -> tuple[int, int]:
    if image_wh is not None:
        return check_wh(image_wh)
    if isinstance(gaze, Scanpath):
        return gaze.image_wh
    if isinstance(gaze, Fixations) and len(gaze):
        return gaze[0].image_wh
    raise SpecError("the picture's size is not known: give image_wh")


def _counts(gaze: Gaze, wh: tuple[int, int], weight: str, once: bool) -> Array:
    if weight not in ("count", "duration"):
        raise SpecError(f"weight must be 'count' or 'duration', got {weight!r}")
    index = pixels_of(gaze, wh)
    if weight == "duration":
        return counted(index, wh, _durations(gaze))
    return counted(np.unique(index) if once else index, wh)


def _durations(gaze: Any) -> Array:
    held = [path.duration[path.on_image()] for path in _paths(gaze) if path.duration is not None]
    if not isinstance(gaze, (Scanpath, Fixations)) or len(held) < len(_paths(gaze)):
        raise SpecError("the fixations have no durations: weight them by 'count'")
    return np.concatenate(held) if held else np.zeros(0)


def _paths(gaze: Any) -> list[Scanpath]:
    return [gaze] if isinstance(gaze, Scanpath) else list(gaze) if isinstance(gaze, Fixations) else []


def _degree(gaze: Any, screen: Screen | None) -> float:
    if screen is not None:
        return screen.pixels_per_degree
    paths = _paths(gaze)
    known = {path.screen.pixels_per_degree for path in paths if path.screen is not None}
    if len(known) != 1 or any(path.screen is None for path in paths):
        raise SpecError("how large a degree is, is not known: give sigma in pixels, a screen, or another blur")
    return float(known.pop())
