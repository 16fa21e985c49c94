"""What an image processor does to a picture's geometry, read off its own settings."""

from __future__ import annotations

import math
from typing import Any

from vlmattn.adapters.canvas import Canvas
from vlmattn.core.errors import LayoutError


def _edges(size: Any) -> dict[str, int]:
    """The sides that are set in a processor's size, by name."""
    if size is None:
        return {}
    names = ("height", "width", "shortest_edge", "longest_edge", "max_height", "max_width")
    found = {n: size.get(n) if isinstance(size, dict) else getattr(size, n, None) for n in names}
    return {n: int(v) for n, v in found.items() if v}


def told_size(size: Any, side: str) -> int:
    """One side of a processor's size by name; 0 where it is not set."""
    return _edges(size).get(side, 0)


def resized_wh(wh: tuple[int, int], size: Any) -> tuple[int, int]:
    """Width and height after a processor's resize to ``size``.

    Raises LayoutError for a kind of size whose rule is not known here.
    """
    edges = _edges(size)
    width, height = wh
    if set(edges) == {"height", "width"}:
        return edges["width"], edges["height"]
    if set(edges) == {"shortest_edge"}:
        edge, short, long = edges["shortest_edge"], min(wh), max(wh)
        new_long = int(edge * long / short)
        return (edge, new_long) if width <= height else (new_long, edge)
    raise LayoutError(f"the image processor's size must be height and width, or shortest_edge; got {edges or size}")


def crop_offset(size: int, crop: int, *, floor: bool) -> int:
    """Where a centre crop of ``crop`` pixels starts along one side; negative where the picture is padded.

    For a picture smaller than the crop by an odd number, the torchvision backend puts the spare pixel after the
    picture and the PIL backend (``floor``) before it.
    """
    delta = size - crop
    return delta // 2 if floor or delta >= 0 else math.ceil(delta / 2)


def cropped(canvas: Canvas, size: Any, *, floor: bool) -> Canvas:
    """The centre crop of a processor, which pads what is smaller than the crop."""
    edges = _edges(size)
    if set(edges) != {"height", "width"}:
        raise LayoutError(f"the image processor's crop_size must be height and width, got {edges or size}")
    width, height = edges["width"], edges["height"]
    left = crop_offset(canvas.wh[0], width, floor=floor)
    top = crop_offset(canvas.wh[1], height, floor=floor)
    return canvas.window(left, top, width, height)


def fixed_view(image_processor: Any, image_wh: tuple[int, int], *, pads_to_square: bool) -> Canvas:
    """The one view of a picture that CLIP, SigLIP and LLaVA image processors make: pad, resize, centre crop."""
    return prepared_view(image_processor, Canvas.of(image_wh), pads_to_square=pads_to_square)


def prepared_view(image_processor: Any, canvas: Canvas, *, pads_to_square: bool = False) -> Canvas:
    """As :func:`fixed_view`, of a part of a picture."""
    if getattr(image_processor, "do_pad", False):
        if not pads_to_square:
            raise LayoutError(f"{type(image_processor).__name__} with do_pad=True: what it pads is not known here")
        canvas = canvas.squared()
    if getattr(image_processor, "do_resize", False):
        canvas = canvas.resized(*resized_wh(canvas.wh, image_processor.size))
    if getattr(image_processor, "do_center_crop", False):
        floor = getattr(image_processor, "backend", "") != "torchvision"
        canvas = cropped(canvas, image_processor.crop_size, floor=floor)
    return canvas


def check_prepared(canvas: Canvas, image_wh: tuple[int, int], side: int) -> Canvas:
    """The view that was made of a picture. Raises LayoutError unless it is the square that the vision tower takes."""
    if canvas.wh != (side, side):
        raise LayoutError(
            f"a picture of {image_wh[0]} x {image_wh[1]} is prepared as {canvas.wh[0]} x {canvas.wh[1]} pixels, but the"
            f" vision tower takes {side} x {side}: check the image processor's size and crop_size"
        )
    return canvas


def square_side(image_processor: Any, name: str) -> int:
    """Side in pixels of a square size of an image processor. Raises LayoutError if it is not square."""
    edges = _edges(getattr(image_processor, name))
    if set(edges) != {"height", "width"} or edges["height"] != edges["width"]:
        raise LayoutError(f"the image processor's {name} must be a square height and width, got {edges}")
    return edges["height"]


def tile_side(image_processor: Any) -> int:
    """Side in pixels of the square views that any-resolution image processors cut.

    Raises LayoutError if views are cut at one size and then resized or cropped to another: tiles would not join.
    """
    size, crop = _edges(image_processor.size), _edges(image_processor.crop_size)
    sides = set(size.values())
    if getattr(image_processor, "do_center_crop", False) or crop:
        sides |= set(crop.values())
    if len(sides) != 1:
        raise LayoutError(
            f"any-resolution tiles need one side for size and crop_size, got size={size}, crop_size={crop}"
        )
    return sides.pop()
