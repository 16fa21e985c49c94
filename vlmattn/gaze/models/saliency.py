"""Maps of what stands out in a picture, whatever is asked: by colour, brightness and angle, or by its spectrum."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmattn.core.errors import ImageError
from vlmattn.core.images import Picture
from vlmattn.core.optional import cv2

Array = NDArray[np.float64]
_LONGEST = 640
_LEVELS = 9
_CENTRES, _DELTAS, _TO = (2, 3, 4), (3, 4), 4
_ANGLES = (0.0, 45.0, 90.0, 135.0)


def itti_koch(picture: Picture | Image.Image | NDArray[np.uint8]) -> Array:
    """(H, W) the saliency map of Itti, Koch and Niebur (IEEE TPAMI 1998), as shares of 1.

    The picture's longest side is brought to 640 pixels. Pyramids of nine levels of intensity, red-green and
    blue-yellow opponency and Gabor energy at four angles are compared, levels 2, 3, 4 with those 3 and 4 coarser; each
    comparison, and each of the three channels, is weighted by N: its range is brought to 0 to 1 and multiplied by
    (1 - mean of its other local maxima)², so that a map with one peak counts and one with many alike does not. What is
    summed at level 4 is enlarged to the picture. A picture without any contrast gives an even map.

    Raises:
        ImageError: no RGB picture.
    """
    pixels = _rgb(picture)
    height, width = pixels.shape[:2]
    factor = _LONGEST / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    how = cv2().INTER_AREA if factor < 1 else cv2().INTER_LINEAR
    small = cv2().resize(pixels.astype(np.float32) / 255, size, interpolation=how)
    intensity = small.mean(axis=2)
    channels = [
        sum(_compared(_pyramid(intensity))),
        sum(_compared(_pyramid(_red_green(small, intensity))))
        + sum(_compared(_pyramid(_blue_yellow(small, intensity)))),
        sum(_weighted(sum(_compared(_oriented(_pyramid(intensity), angle)))) for angle in _ANGLES),
    ]
    found = sum(_weighted(one) for one in channels) / 3
    return _shares(cv2().resize(found.astype(np.float32), (width, height), interpolation=cv2().INTER_CUBIC))


def spectral_residual(picture: Picture | Image.Image | NDArray[np.uint8], *, width: int = 64) -> Array:
    """(H, W) what is unusual in the picture's spectrum (Hou and Zhang, CVPR 2007), as shares of 1.

    Of the grey picture at ``width`` pixels wide: the log amplitude less its mean over 3 x 3 frequencies, with the
    phase as it is, transformed back, squared, and smeared by a Gaussian of 2.5 pixels.
    """
    pixels = _rgb(picture)
    full = pixels.shape[1], pixels.shape[0]
    size = (width, max(2, round(width * full[1] / full[0])))
    small = cv2().resize(pixels.astype(np.float32).mean(axis=2), size, interpolation=cv2().INTER_AREA)
    spectrum = np.fft.fft2(small)
    amplitude = np.log(np.abs(spectrum) + 1e-9).astype(np.float32)
    residual = amplitude - cv2().blur(amplitude, (3, 3))
    back = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    smeared = cv2().GaussianBlur(back.astype(np.float32), (0, 0), 2.5)
    return _shares(cv2().resize(smeared, full, interpolation=cv2().INTER_LINEAR))


def _rgb(picture: Picture | Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = picture.image if isinstance(picture, Picture) else picture
    pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ImageError(f"the picture must be RGB, (H, W, 3) uint8; got {pixels.dtype} of shape {pixels.shape}")
    return pixels


def _red_green(pixels: Any, intensity: Any) -> Any:
    red, green, blue = np.moveaxis(_hues(pixels, intensity), 2, 0)
    return np.maximum(red - (green + blue) / 2, 0) - np.maximum(green - (red + blue) / 2, 0)


def _blue_yellow(pixels: Any, intensity: Any) -> Any:
    red, green, blue = np.moveaxis(_hues(pixels, intensity), 2, 0)
    yellow = np.maximum((red + green) / 2 - np.abs(red - green) / 2 - blue, 0)
    return np.maximum(blue - (red + green) / 2, 0) - yellow


def _hues(pixels: Any, intensity: Any) -> Any:
    """Colours over intensity; none where it is too dark to see any."""
    bright = intensity > 0.1 * intensity.max()
    return np.where(bright[..., None], pixels / np.where(bright, intensity, 1.0)[..., None], 0.0)


def _pyramid(values: Any) -> list[Any]:
    levels = [values.astype(np.float32)]
    for _ in range(_LEVELS - 1):
        levels.append(cv2().pyrDown(levels[-1]) if min(levels[-1].shape) > 1 else levels[-1])
    return levels


def _oriented(levels: list[Any], angle: float) -> list[Any]:
    kernel = cv2().getGaborKernel((9, 9), 7 / 3, np.deg2rad(angle), 7.0, 1.0, 0.0)
    kernel = (kernel - kernel.mean()).astype(np.float32)
    return [np.abs(cv2().filter2D(level, cv2().CV_32F, kernel, borderType=cv2().BORDER_REFLECT)) for level in levels]


def _compared(levels: list[Any]) -> list[Any]:
    """Differences of centre and surround, weighted, at one level."""
    size = levels[_TO].shape[1], levels[_TO].shape[0]
    found = []
    for centre in _CENTRES:
        fine = levels[centre]
        for delta in _DELTAS:
            coarse = cv2().resize(levels[centre + delta], fine.shape[::-1], interpolation=cv2().INTER_LINEAR)
            found.append(_weighted(cv2().resize(np.abs(fine - coarse), size, interpolation=cv2().INTER_AREA)))
    return found


def _weighted(values: Any) -> Any:
    """N of the paper."""
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-5:  # rounding
        return np.zeros_like(values)
    spread = (values - low) / (high - low)
    peaks = spread[(spread == cv2().dilate(spread, np.ones((3, 3), np.uint8))) & (spread > 0.1)]
    others = np.sort(peaks)[:-1]
    return spread * (1 - (float(others.mean()) if len(others) else 0.0)) ** 2


def _shares(values: Any) -> Array:
    held = np.maximum(values.astype(np.float64), 0.0)
    total = held.sum()
    return np.asarray(held / total if total > 0 else np.full(held.shape, 1 / held.size))
