"""A map drawn on its picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.images import Picture
from vlmattn.core.provenance import Provenance
from vlmattn.overlay.colours import DEFAULT
from vlmattn.overlay.figure import Caption, enlargement, framed
from vlmattn.overlay.heat import Drawable, Scale, check_fits, extremes_of, painted, peak_xy, scale_of
from vlmattn.overlay.marks import Box, draw_box, draw_contours, draw_peak
from vlmattn.overlay.memory import array_of, image_of
from vlmattn.overlay.metadata import save_picture
from vlmattn.overlay.preview import Bundle, bundle

CAUTION = "attention shows where information could come from, not that it was used"
_SMALLEST_MARKED = 48


@dataclass(frozen=True, eq=False)
class Overlay:
    """A drawn map.

    Attributes:
        pixels: (H, W, 3) uint8 of :attr:`image`.
        caption: what stands round it in :attr:`figure`.
        record: label, scale, colour map and provenance; written into every file.
        enlarged: a tiny picture as the figure shows it: first enlarged, then marked; None for others.
    """

    pixels: NDArray[np.uint8]
    caption: Caption
    record: dict[str, Any] = field(default_factory=dict)
    enlarged: Image.Image | None = None

    @cached_property
    def image(self) -> Image.Image:
        """The picture with the map on it, exactly the size of the original. One of less than 48 pixels has no marks,
        which would hide it."""
        return image_of(self.pixels)

    @property
    def figure(self) -> Image.Image:
        """The picture with title, colour bar and small print."""
        return framed(self.pixels if self.enlarged is None else np.asarray(self.enlarged), self.caption)

    def save(self, path: str | Path, *, figure: bool = True, quality: int = 92) -> Path:
        """Write ``.png``, ``.webp`` or ``.jpg``, with the provenance inside the file.

        Args:
            figure: with title, colour bar and small print; False writes the picture alone, at its own size.
            quality: of JPEG and WebP, 1 to 100.

        Raises:
            FileError: another ending, or the file cannot be written.
        """
        return save_picture(path, self.figure if figure else self.image, self.record, quality=quality)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:
        return bundle(self.figure, repr(self))

    def __repr__(self) -> str:
        return f"<Overlay {self.image.width}x{self.image.height}: {self.caption.title!r}>"


def overlay(
    picture: Picture | Image.Image | NDArray[np.uint8],
    pixel_map: Drawable,
    *,
    cmap: str = DEFAULT,
    alpha: float | str = "value",
    alpha_max: float = 0.75,
    scale: Scale | None = None,
    contours: Sequence[float] | bool = False,
    box: Box | Sequence[Box] | None = None,
    peak: bool = True,
    title: str | None = None,
) -> Overlay:
    """Draw a map on the picture it belongs to, at the picture's own resolution.

    Args:
        picture: upright RGB picture. pixel_map: values and seen area in its pixels.
        cmap: one of :data:`~vlmattn.overlay.COLOUR_MAPS`.
        alpha: ``value`` covers the picture where the map is high and leaves it clear where it is low; a number covers
            all of it. alpha_max: the strongest cover.
        scale: values of the first and the last colour. Default: 0 (or the lowest value, if negative) to the highest
            seen value, as the colour bar says. Give one scale to pictures that are to be compared.
        contours: outline values; True for 50 % and 80 % of the scale.
        box: one box (x0, y0, x1, y1) or several. peak: mark the highest point.
        title: default: the map's label, the question and the answer.

    Pixels that the model did not see are hatched in grey. A flat map draws no heat and no peak, and says so.

    Raises:
        MapError: the map does not fit the picture or holds NaN. SpecError: an option that does not exist.
    """
    pixels = rgb_pixels(picture)
    check_fits(pixels, pixel_map)
    if title is not None and not isinstance(title, str):
        raise SpecError(f"title must be text, got {title!r}")
    known = extremes_of(pixel_map)
    ends, flat = scale_of([pixel_map], scale, known=known), known.flat
    out = painted(pixels, pixel_map, ends, cmap=cmap, alpha=alpha, alpha_max=alpha_max, flat=flat)
    marks = _Marks(
        _boxes(box),
        _levels(contours, ends) if contours is not False and not flat else (),
        peak_xy(pixel_map, known) if peak and not flat else None,
    )
    height, width = pixels.shape[:2]
    factor = enlargement(width, height)
    enlarged = _marked(_repeated(out, factor), pixel_map, marks, factor) if factor > 1 else None
    if max(width, height) >= _SMALLEST_MARKED:
        _marked(out, pixel_map, marks)
    small_print = small_print_of(pixel_map.provenance, _seen_share(pixel_map), factor)
    name = _title(pixel_map) if title is None else title
    caption = Caption(name, small_print, ends, cmap, flat, pixel_map.provenance.unit, alpha, alpha_max)
    record = record_of(pixel_map, ends, cmap, flat)
    return Overlay(out, caption, record, None if enlarged is None else Image.fromarray(enlarged))


@dataclass(frozen=True)
class _Marks:
    boxes: Sequence[Box]
    levels: Sequence[float]
    peak: tuple[float, float] | None


def _marked(pixels: NDArray[np.uint8], pixel_map: Drawable, marks: _Marks, factor: int = 1) -> NDArray[np.uint8]:
    """``pixels``, in place, with the marks; ``factor`` is by how much they are larger than the map."""
    if len(marks.levels):
        values = np.where(pixel_map.seen, pixel_map.values, -np.inf)
        draw_contours(pixels, _repeated(values, factor), marks.levels)
    for one in marks.boxes:
        draw_box(pixels, one, factor)
    if marks.peak is not None:
        draw_peak(pixels, (marks.peak[0] * factor, marks.peak[1] * factor))
    return pixels


def _repeated(pixels: NDArray[Any], factor: int) -> NDArray[Any]:
    return pixels if factor == 1 else pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def record_of(pixel_map: Drawable, scale: Scale, cmap: str, flat: bool) -> dict[str, Any]:
    """What a file says about the map in it."""
    return {
        "label": pixel_map.label,
        "scale": list(scale),
        "colour_map": cmap,
        "flat": flat,
        "seen_share": _seen_share(pixel_map),
        "provenance": pixel_map.provenance.to_dict(),
    }


def rgb_pixels(picture: Picture | Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of a picture.

    Raises:
        MapError: an array of another shape or type.
    """
    image = picture.image if isinstance(picture, Picture) else picture
    if isinstance(image, Image.Image) and image.mode != "RGB":
        image = image.convert("RGB")
    pixels = array_of(image) if isinstance(image, Image.Image) else np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise MapError(f"the picture must be RGB, (H, W, 3) uint8; got {pixels.dtype} of shape {pixels.shape}")
    return pixels


def _levels(contours: Sequence[float] | bool, scale: Scale) -> Sequence[float]:
    if isinstance(contours, bool):
        return [scale[0] + share * (scale[1] - scale[0]) for share in (0.5, 0.8)]
    try:
        levels = [float(level) for level in contours]
    except (TypeError, ValueError):
        raise SpecError(f"contours must be True, False or numbers, got {contours!r}") from None
    if not np.isfinite(levels).all():
        raise SpecError(f"contours must be finite numbers, got {contours!r}")
    return levels


def _boxes(box: Any) -> list[Box]:
    if box is None:
        return []
    if not isinstance(box, (Sequence, np.ndarray)):
        raise SpecError(f"a box must be (x0, y0, x1, y1), or several of them in a list; got {box!r}")
    if len(box) == 0:
        return []
    one: Any = box
    return [one] if isinstance(box, str) or np.isscalar(box[0]) else list(one)


def _seen_share(pixel_map: Drawable) -> float:
    return int(np.count_nonzero(pixel_map.seen)) / pixel_map.seen.size


def _title(pixel_map: Drawable) -> str:
    made = pixel_map.provenance
    asked = f"{made.question} {made.answer}".strip()
    if not asked or pixel_map.label == made.answer:
        return asked or pixel_map.label
    return f"{pixel_map.label} · {asked}"


def small_print_of(provenance: Provenance, seen_share: float = 1.0, factor: int = 1) -> str:
    """How a map was made, what of the picture it leaves out, and the caution that goes with every picture."""
    parts = [provenance.summary()]
    if seen_share < 1:
        parts.append(f"{1 - seen_share:.0%} of the picture was not seen by the model (hatched)")
    parts.append(CAUTION)
    if factor > 1:
        parts.append(f"shown {factor}x enlarged")
    return " · ".join(p for p in parts if p)
