"""Time of an overlay of a 12-megapixel photograph against decoding and encoding it, measured in one run.

    python benchmarks/overlay.py [--repeat 5]

CPU time of this process, one OpenCV thread, least of the repeats. The budget is a ratio of 1.5.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import cv2
import numpy as np
from PIL import Image

from vlmattn.grid import PixelMap
from vlmattn.overlay import overlay

WIDTH, HEIGHT, BUDGET = 4000, 3000, 1.5


def photograph() -> bytes:
    """A JPEG of 4000x3000 pixels: the packaged photograph, enlarged, with the grain of a sensor."""
    with Image.open(io.BytesIO((files("vlmattn.cli") / "photo" / "coffee.jpg").read_bytes())) as small:
        pixels = np.asarray(small.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(np.int16)
    grain = np.random.default_rng(0).integers(-6, 7, pixels.shape, dtype=np.int16)
    return encoded(Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8)), "JPEG")


def decoded(content: bytes) -> Image.Image:
    """The picture in a file's content."""
    return Image.open(io.BytesIO(content)).convert("RGB")


def encoded(image: Image.Image, kind: str) -> bytes:
    """A picture as the content of a JPEG or PNG file."""
    stream = io.BytesIO()
    image.save(stream, kind, **({"quality": 92} if kind == "JPEG" else {"compress_level": 3}))
    return stream.getvalue()


def least(action: Callable[[], Any], repeat: int) -> float:
    """CPU seconds of the fastest of ``repeat`` calls."""
    best = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        action()
        best = min(best, time.process_time() - start)
    return best


def maps() -> dict[str, PixelMap]:
    """A random map that covers the picture, and one whose ends were not seen."""
    patches = np.random.default_rng(1).random((24, 24), dtype=np.float32) ** 4
    values = cv2.resize(patches, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
    seen = np.ones((HEIGHT, WIDTH), bool)
    cropped = seen.copy()
    cropped[:, :500] = cropped[:, -500:] = False
    return {"all seen": PixelMap(values, seen), "centre crop": PixelMap(np.where(cropped, values, 0), cropped)}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    cv2.setNumThreads(1)
    content = photograph()
    image = decoded(content)
    decode = least(lambda: decoded(content), repeat)
    encode = {kind: least(lambda kind=kind: encoded(image, kind), repeat) for kind in ("JPEG", "PNG")}
    print(f"decode {decode:.3f} s, " + ", ".join(f"encode {k} {s:.3f} s" for k, s in encode.items()))
    for name, one in maps().items():
        drawn = overlay(image, one)
        heat = least(lambda one=one: overlay(image, one), repeat)
        frame = least(lambda drawn=drawn: drawn.figure, repeat)
        for kind, seconds in encode.items():
            alone, framed = heat / (decode + seconds), (heat + frame) / (decode + seconds)
            word = "within" if alone <= BUDGET else "OVER"
            print(f"{name}, to {kind}: overlay {heat:.3f} s = {alone:.2f}x ({word} {BUDGET}x); figure {framed:.2f}x")


if __name__ == "__main__":
    main()
