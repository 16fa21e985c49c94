"""Pictures as a page carries them: small enough, with the size of the original beside them."""

from __future__ import annotations

import base64
import io
import unicodedata
from collections.abc import Sequence
from typing import Any

from PIL import Image

from vlmattn.core.images import Picture
from vlmattn.core.videos import Video, Visual

PICTURE_BYTES = 600_000
"""How many bytes all pictures of a page may take together, as far as that can be had, before base64."""
_SMALL = 320
_STEPS = ((1600, 85), (1600, 75), (1280, 78), (1280, 65), (1024, 70), (800, 70), (640, 65), (480, 60), (320, 50))
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


class PictureStore:
    """The pictures of a page, each once, numbered in the order in which they came."""

    def __init__(self) -> None:
        self._seen: list[Visual] = []

    def number(self, seen: Visual) -> int:
        """The number of a picture or video; equal pixels under one name count once."""
        for index, other in enumerate(self._seen):
            if other is seen or _same(other, seen):
                return index
        self._seen.append(seen)
        return len(self._seen) - 1

    def to_list(self, most: int = PICTURE_BYTES) -> list[dict[str, Any]]:
        """All of them, encoded, as plain values for the page.

        Args:
            most: bytes of all frames and pictures together; the smallest step is taken even where it is over that.
        """
        frames = sum(len(_frames(one)) for one in self._seen)
        return [_told(one, most // max(frames, 1)) for one in self._seen]


def visible(text: str) -> str:
    """Text with characters that cannot be seen, or that turn others round, written as their code points.

    >>> visible("photo\\u202egpj.exe")
    'photo[U+202E]gpj.exe'
    """
    return "".join(f"[U+{ord(c):04X}]" if unicodedata.category(c) in _HIDDEN else c for c in text)


def _frames(seen: Visual) -> Sequence[Picture]:
    return seen.frames if isinstance(seen, Video) else (seen,)


def _same(one: Visual, other: Visual) -> bool:
    if type(one) is not type(other) or one.name != other.name or one.wh != other.wh:
        return False
    pairs = list(zip(_frames(one), _frames(other), strict=False))
    same = all(a.image is b.image or a.image.tobytes() == b.image.tobytes() for a, b in pairs)
    return same and len(_frames(one)) == len(_frames(other))


def _told(seen: Visual, most: int) -> dict[str, Any]:
    told = [encoded(frame.image, most) for frame in _frames(seen)]
    times = {"times": list(seen.times)} if isinstance(seen, Video) else {}
    return {
        "name": visible(seen.name),
        "image_wh": list(seen.wh),
        "shown_wh": list(told[0][1]),
        "shown_as": told[0][2],
        "notes": [visible(note) for note in seen.notes],
        "frames": [address for address, _, _ in told],
    } | times


def encoded(image: Image.Image, most: int) -> tuple[str, tuple[int, int], str]:
    """A ``data:`` address of a picture in about ``most`` bytes, the size it has there, and how it was made.

    Small pictures stay as they are (PNG) if that fits; others become JPEG, scaled down step by step until they fit.
    """
    if max(image.size) <= _SMALL:
        content = _written(image, "PNG")
        if len(content) <= most:
            return _address(content, "png"), image.size, "PNG, every pixel"
    before: tuple[int, int] | None = None
    content, small = b"", image
    for side, quality in _STEPS:
        size = _fitted(image.size, side)
        if size != before:
            small, before = (
                image if size == image.size else image.resize(size, Image.Resampling.BOX, reducing_gap=2.0),
                size,
            )
        content = _written(small, "JPEG", quality=quality)
        if len(content) <= most:
            break
    scaled = "" if small.size == image.size else f", scaled down to {small.size[0]} x {small.size[1]}"
    return _address(content, "jpeg"), small.size, f"JPEG of quality {quality}{scaled}"


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    factor = min(1.0, side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _written(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, optimize=True, **options)
    return stream.getvalue()


def _address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
