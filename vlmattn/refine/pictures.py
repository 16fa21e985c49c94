"""The picture that is shown the second time: masked, cut out, enlarged."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmattn.grid import PixelMap
from vlmattn.refine.places import Box, Place
from vlmattn.refine.recipes import Magnify, Outside, Recipe

MOST_ENLARGED = 4096
"""Longest side that enlarging may give, in pixels; a thin crop would otherwise fill the memory."""
_BLUR = 50


def refined_picture(image: Image.Image, place: Place, pixels: PixelMap, recipe: Recipe) -> Image.Image:
    """What a recipe makes of a picture; equal to it, bit for bit, where the recipe changes nothing.

    Args:
        image: the upright original. place: where to look. pixels: the map, for ``outside="fade"``.
    """
    shown = with_outside(image, place.mask, pixels, recipe.outside)
    return magnified(shown.crop(place.box_xyxy), image.size, recipe.magnify) if recipe.crop else shown


def with_outside(image: Image.Image, mask: NDArray[np.bool_], pixels: PixelMap, outside: Outside) -> Image.Image:
    """The picture with the pixels outside the mask changed; see :class:`~vlmattn.refine.Recipe`."""
    if outside == "keep" or (mask.all() and outside != "fade"):
        return image
    colours = np.asarray(image)
    if outside == "fade":
        return Image.fromarray((colours * _weights(pixels)[..., None] + 0.5).astype(np.uint8))
    return Image.fromarray(np.where(mask[..., None], colours, np.asarray(covered(image, outside))))


def covered(image: Image.Image, how: Literal["black", "mean", "blur"]) -> Image.Image:
    """The whole picture black, in its mean colour, or blurred."""
    if how == "blur":
        from PIL import ImageFilter

        return image.filter(ImageFilter.GaussianBlur(max(image.size) / _BLUR))
    fill = np.asarray(image).reshape(-1, 3).mean(axis=0).round() if how == "mean" else np.zeros(3)
    return Image.new("RGB", image.size, tuple(int(v) for v in fill))


def _weights(pixels: PixelMap) -> NDArray[np.float64]:
    """(H, W) the map between 0 and 1; pixels that the model never saw keep their colours."""
    seen = pixels.values[pixels.seen].astype(np.float64)
    low, high = float(seen.min()), float(seen.max())
    scaled = (pixels.values.astype(np.float64) - low) / (high - low)
    return np.where(pixels.seen, np.clip(scaled, 0, 1), 1.0)


def magnified(crop: Image.Image, image_wh: tuple[int, int], how: Magnify) -> Image.Image:
    """A crop enlarged with its proportions kept (Lanczos), up to :data:`MOST_ENLARGED` pixels on its longer side.

    Args:
        image_wh: size of the original. how: ``cover`` takes the larger of the two factors to it (CARVE: one side may
            come out longer than the original's), ``fit`` the smaller, ``none`` leaves it.
    """
    factors = [full / part for full, part in zip(image_wh, crop.size, strict=True)]
    factor = {"none": 1.0, "fit": min(factors), "cover": max(factors)}[how]
    factor = min(factor, max(MOST_ENLARGED / max(crop.size), 1.0))
    if factor <= 1:
        return crop
    size = (max(1, round(crop.size[0] * factor)), max(1, round(crop.size[1] * factor)))
    return crop.resize(size, Image.Resampling.LANCZOS)


def cut_out(image: Image.Image, box_xyxy: Box) -> Image.Image:
    """The part of a picture inside a box, at its own resolution; the picture itself where the box is all of it."""
    return image if box_xyxy == (0, 0, *image.size) else image.crop(box_xyxy)
