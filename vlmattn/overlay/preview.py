"""Drawn pictures as notebooks show them."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from PIL import Image

from vlmattn.display import coded, shrunk
from vlmattn.overlay.figure import FAINT, PAPER
from vlmattn.overlay.text import draw_lines, line_height, wrapped

_SIZE = 13

Bundle = tuple[dict[str, Any], dict[str, Any]]


def bundle(image: Image.Image, told: str) -> Bundle:
    """What ``_repr_mimebundle_`` returns for a picture: one of at most 1024 pixels, and its description in words.

    A line below a picture that had to be made smaller says how large it is.
    """
    small = shrunk(image)
    shown = _with_line(small.image, small.said) if small.said else small.image
    kind, content = coded(shown)
    size = {"width": shown.width, "height": shown.height, "alt": told}
    return {kind: b64encode(content).decode("ascii"), "text/plain": told}, {kind: size}


def _with_line(image: Image.Image, line: str) -> Image.Image:
    width = max(image.width, 120)
    lines = wrapped(line, _SIZE, width - 8)
    canvas = Image.new("RGB", (width, image.height + len(lines) * line_height(_SIZE) + 6), PAPER)
    canvas.paste(image, ((width - image.width) // 2, 0))
    draw_lines(canvas, (4, image.height + 3), lines, _SIZE, FAINT)
    return canvas
