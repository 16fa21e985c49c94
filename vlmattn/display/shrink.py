"""Pictures small enough for a page or a notebook."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image

LONGEST = 1024
"""Pixels of the longer side of a picture that is shown."""
_MOST_PNG = 100_000
_QUALITY = 85


@dataclass(frozen=True)
class Shrunk:
    """A picture as it is shown.

    Attributes:
        image: RGB, at most so large. whole_wh: width and height of what it shows.
    """

    image: Image.Image
    whole_wh: tuple[int, int]

    @property
    def said(self) -> str:
        """That it is smaller than what it shows, and by how much; empty where it is not."""
        if self.image.size == self.whole_wh:
            return ""
        (width, height), (shown, high) = self.whole_wh, self.image.size
        return f"{shown} x {high} preview of {width} x {height} pixels"

    def address(self) -> str:
        """The picture as a ``data:`` address, in WebP."""
        stream = io.BytesIO()
        self.image.save(stream, "WEBP", quality=_QUALITY)
        return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def coded(image: Image.Image) -> tuple[str, bytes]:
    """Media type and bytes of an RGB picture: PNG, or JPEG where that would take more than 100 kB."""
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=6)
    if stream.tell() <= _MOST_PNG:
        return "image/png", stream.getvalue()
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_QUALITY)
    return "image/jpeg", stream.getvalue()


def shrunk(image: Image.Image, longest: int = LONGEST) -> Shrunk:
    """The picture, scaled down so that its longer side is at most ``longest`` pixels, and at least 1 wide and high."""
    wh = image.size
    factor = min(1.0, longest / max(wh))
    size = (max(1, round(wh[0] * factor)), max(1, round(wh[1] * factor)))
    image = image if image.mode == "RGB" else image.convert("RGB")
    return Shrunk(image if size == wh else image.resize(size, Image.Resampling.BOX, reducing_gap=2.0), wh)
