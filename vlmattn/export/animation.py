"""Maps as an animation: one frame for every token of the answer, or for every layer, all on one scale."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.files import as_path, atomic_write_bytes
from vlmattn.core.optional import cv2, require
from vlmattn.export.figures import shared_unit
from vlmattn.export.subject import Mapped, each, pixels_of, title_of
from vlmattn.overlay.colours import DEFAULT
from vlmattn.overlay.draw import record_of, small_print_of
from vlmattn.overlay.figure import INK, PAPER, Caption, enlargement, framed, text_size
from vlmattn.overlay.heat import Scale, is_flat, painted, scale_of
from vlmattn.overlay.sheet import Small, common_provenance, shrunk
from vlmattn.overlay.text import draw_lines, line_height, wrapped

ANIMATION_ENDINGS = (".webp", ".gif", ".mp4")
_MOST_SIDE, _LEAST_SIDE = 4096, 16
_MOST_FRAMES = 2000
_TITLE_LINES = 2


@dataclass(frozen=True, eq=False)
class Animation:
    """Frames of one size.

    Attributes:
        frames: RGB pictures. titles: what each is of. fps: frames a second. record: written into every file.
    """

    frames: tuple[Image.Image, ...]
    titles: tuple[str, ...]
    fps: float = 2.0
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = {frame.size for frame in self.frames}
        if len(sizes) != 1 or len(self.titles) != len(self.frames):
            raise SpecError(f"an animation needs frames of one size and a title for each, got sizes {sorted(sizes)}")
        if not isinstance(self.fps, Real) or isinstance(self.fps, bool) or not 0.1 <= float(self.fps) <= 50:
            raise SpecError(f"fps must be a number from 0.1 to 50, got {self.fps!r}")

    def save(self, path: str | Path, *, quality: int = 85) -> Path:
        """Write ``.webp``, ``.gif`` or ``.mp4`` (H.264), atomically, with the record inside.

        A GIF counts time in hundredths of a second and has 256 colours, the same for all frames. Sides of an MP4 are
        made even with a white line.

        Args:
            quality: of WebP, 1 to 100.

        Raises:
            FileError: another ending, or a place that cannot be written. DependencyMissing: MP4 without PyAV.
        """
        target = as_path(path)
        return atomic_write_bytes(target, self.encoded(target.suffix.lower(), quality=quality))

    def encoded(self, suffix: str, *, quality: int = 85) -> bytes:
        """The file's bytes.

        Raises:
            FileError: an ending that is not known.
        """
        if suffix not in ANIMATION_ENDINGS:
            told = ", ".join(ANIMATION_ENDINGS)
            raise FileError(f"cannot write an animation as {suffix or 'a file without ending'}: expected {told}")
        if suffix == ".mp4":
            return self._mp4()
        return self._gif() if suffix == ".gif" else self._webp(quality)

    @property
    def _text(self) -> str:
        return json.dumps(self.record, ensure_ascii=True, sort_keys=True)

    def _webp(self, quality: int) -> bytes:
        from vlmattn.overlay.metadata import comment_exif

        stream = io.BytesIO()
        first, *rest = self.frames
        first.save(
            stream, "WEBP", save_all=True, append_images=rest, duration=round(1000 / float(self.fps)), loop=0,
            quality=quality, exif=comment_exif(self._text),
        )  # fmt: skip
        return stream.getvalue()

    def _gif(self) -> bytes:
        # One palette for all frames, so that a colour means one value from the first frame to the last.
        palette = _montage(self.frames).quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        first, *rest = (one.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for one in self.frames)
        stream = io.BytesIO()
        first.save(
            stream, "GIF", save_all=True, append_images=rest, duration=10 * max(2, round(100 / float(self.fps))),
            loop=0, disposal=1, comment=self._text.encode("ascii"),
        )  # fmt: skip
        return stream.getvalue()

    def _mp4(self) -> bytes:
        av = require("av", extra="export")
        width, height = (side + side % 2 for side in self.frames[0].size)
        with tempfile.TemporaryDirectory() as folder:
            # A file, because the index is moved to its beginning once it is whole, so that browsers can start at once.
            file = Path(folder) / "film.mp4"
            with av.open(str(file), "w", format="mp4", options={"movflags": "+faststart"}) as container:
                self._encode(av, container, (width, height))
            return file.read_bytes()

    def _encode(self, av: Any, container: Any, wh: tuple[int, int]) -> None:
        container.metadata["comment"] = self._text
        video = container.add_stream("libx264", rate=Fraction(float(self.fps)).limit_denominator(1000))
        video.width, video.height, video.pix_fmt = *wh, "yuv420p"
        video.options = {"crf": "18", "preset": "veryfast", "tune": "stillimage"}
        video.codec_context.thread_count = 1
        for frame in self.frames:
            even = Image.new("RGB", wh, PAPER)
            even.paste(frame, (0, 0))
            container.mux(video.encode(av.VideoFrame.from_image(even)))
        container.mux(video.encode())

    def __repr__(self) -> str:
        width, height = self.frames[0].size
        return f"<Animation {len(self.frames)} frames {width}x{height}, {self.fps:g} a second>"


def _montage(frames: Sequence[Image.Image]) -> Image.Image:
    """Small copies of up to 16 frames side by side: the colours of all."""
    chosen = [frames[n] for n in sorted({round(n) for n in np.linspace(0, len(frames) - 1, min(16, len(frames)))})]
    small = [one.resize((max(1, one.width // 2), max(1, one.height // 2)), Image.Resampling.NEAREST) for one in chosen]
    sheet = Image.new("RGB", (sum(one.width for one in small), small[0].height))
    left = 0
    for one in small:
        sheet.paste(one, (left, 0))
        left += one.width
    return sheet


def animate(
    looks: Mapped | Iterable[Mapped],
    titles: Sequence[str] | None = None,
    *,
    fps: float = 2.0,
    max_side: int = 960,
    scale: Scale | None = None,
    cmap: str = DEFAULT,
) -> Animation:
    """One frame for every look, in order, all on one scale; a look at a video gives its frames.

    Over the tokens of an answer: ``run.token_maps()``; over layers: ``run.map(word, layers=[n])`` for each.

    Args:
        looks: of pictures of one size. titles: one for each; default: the words. They are shown with their number.
        fps: frames a second, 0.1 to 50. max_side: pictures larger than this, in pixels, are averaged down to it.
        scale: values of the first and the last colour; default: 0 (or the lowest value) to the highest of all maps.
        cmap: one of :data:`vlmattn.overlay.COLOUR_MAPS`.

    Raises:
        SpecError: nothing given, too many frames, pictures of different sizes, another number of titles, an ``fps`` or
            ``max_side`` that cannot be, or maps whose numbers are of different kinds.
    """
    every = each(looks)
    _check(every, titles, max_side)
    unit = shared_unit(every)
    small = [_small(look, max_side) for look in every]
    ends = scale_of(list(small), scale)
    names = list(titles) if titles is not None else [title_of(look) for look in every]
    shown = [f"{n} of {len(names)}: {name}" for n, name in enumerate(names, 1)]
    made = common_provenance([one.provenance for one in small])
    caption = Caption("", small_print_of(made), ends, cmap, all(is_flat(one) for one in small), unit)
    record = {
        "scale": list(ends),
        "colour_map": cmap,
        "titles": names,
        "cells": [record_of(one, ends, cmap, is_flat(one)) for one in small],
    }
    frames = _titled([_frame(one, ends, caption) for one in small], shown)
    return Animation(tuple(frames), tuple(names), fps, record)


def _check(looks: Sequence[Mapped], titles: Sequence[str] | None, max_side: Any) -> None:
    if len(looks) > _MOST_FRAMES:
        raise SpecError(f"an animation has at most {_MOST_FRAMES} frames, got {len(looks)}: take fewer tokens")
    sizes = sorted({look.picture.wh for look in looks})
    if len(sizes) > 1:
        told = ", ".join(f"{width} x {height}" for width, height in sizes[:4])
        raise SpecError(f"the frames of an animation must be of one size, got {told}: animate picture by picture")
    if titles is not None and len(titles) != len(looks):
        raise SpecError(f"{len(titles)} titles for {len(looks)} frames: give one each")
    if not isinstance(max_side, int) or isinstance(max_side, bool) or not _LEAST_SIDE <= max_side <= _MOST_SIDE:
        raise SpecError(f"max_side must be a whole number from {_LEAST_SIDE} to {_MOST_SIDE}, got {max_side!r}")


def _small(look: Mapped, max_side: int) -> Small:
    width, height = look.picture.wh
    return shrunk(look.picture, pixels_of(look), max(1, round(width * min(1.0, max_side / max(width, height)))))


def _frame(one: Small, scale: Scale, caption: Caption) -> Image.Image:
    hot = painted(one.pixels, one, scale, cmap=caption.cmap, alpha="value", alpha_max=0.75, flat=is_flat(one))
    factor = enlargement(hot.shape[1], hot.shape[0])
    if factor > 1:
        hot = cv2().resize(hot, None, fx=factor, fy=factor, interpolation=cv2().INTER_NEAREST)
    return framed(hot, caption)


def _titled(frames: Sequence[Image.Image], titles: Sequence[str]) -> list[Image.Image]:
    """The frames with a strip above that is of one height, whatever stands in it."""
    width, height = frames[0].size
    size = text_size(width, height)
    lines = [wrapped(title, size, width - size, most=_TITLE_LINES) for title in titles]
    head = max(len(one) for one in lines) * line_height(size) + size // 2
    made = []
    for frame, text in zip(frames, lines, strict=True):
        canvas = Image.new("RGB", (width, height + head), PAPER)
        draw_lines(canvas, (size // 2, size // 4), text, size, INK)
        canvas.paste(frame, (0, head))
        made.append(canvas)
    return made
