"""Colour maps with evenly rising lightness, readable without colour vision.

Each map is a path through the OKLab colour space (Ottosson, 2020) from dark to light, so equal steps of value look like
equal steps of brightness, and the order survives greyscale printing and any colour blindness.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError

# Per map: positions along the value axis, and OKLab (lightness, a: green to red, b: blue to yellow) there.
_PATHS: dict[str, tuple[tuple[float, ...], tuple[tuple[float, float, float], ...]]] = {
    "ember": (
        (0.0, 0.25, 0.5, 0.75, 1.0),
        ((0.22, 0.03, -0.08), (0.395, 0.12, -0.06), (0.57, 0.16, 0.06), (0.745, 0.07, 0.14), (0.95, -0.01, 0.10)),
    ),
    "lagoon": (
        (0.0, 0.33, 0.66, 1.0),
        ((0.25, 0.05, -0.13), (0.48, -0.03, -0.08), (0.70, -0.11, 0.05), (0.93, -0.05, 0.17)),
    ),
    "dusk": (
        (0.0, 0.5, 1.0),
        ((0.24, 0.00, -0.09), (0.58, 0.00, 0.01), (0.92, 0.00, 0.13)),
    ),
    "grey": ((0.0, 1.0), ((0.15, 0.0, 0.0), (0.98, 0.0, 0.0))),
}
COLOUR_MAPS: tuple[str, ...] = tuple(_PATHS)
DEFAULT = "ember"


def colour_table(name: str = DEFAULT) -> NDArray[np.uint8]:
    """(256, 3) sRGB colours of a map, dark to light; read-only.

    Raises:
        SpecError: no such map; lists those there are.
    """
    if not isinstance(name, str) or name not in _PATHS:
        raise SpecError(f"colour map {name!r} does not exist; there are {', '.join(COLOUR_MAPS)}")
    return _table(name)


@lru_cache(maxsize=16)
def _table(name: str) -> NDArray[np.uint8]:
    at, points = _PATHS[name]
    values = np.linspace(0, 1, 256)
    lab = np.stack([np.interp(values, at, channel) for channel in np.array(points).T], axis=-1)
    table = _srgb(_linear(lab))
    table.setflags(write=False)
    return table


def lightness(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """OKLab lightness, 0 to 1, of (…, 3) sRGB colours."""
    encoded = rgb.astype(np.float64) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    cones = np.cbrt(linear @ np.linalg.inv(_TO_RGB).T)
    return cones @ np.array([0.2104542553, 0.7936177850, -0.0040720468])


_TO_CONES = np.array(
    [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.2914855480]]
)
_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def _linear(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip((lab @ _TO_CONES.T) ** 3 @ _TO_RGB.T, 0, 1)


def _srgb(linear: NDArray[np.float64]) -> NDArray[np.uint8]:
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (encoded * 255 + 0.5).astype(np.uint8)
