"""Pictures from wherever they come, upright and in RGB."""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from vlmattn.core.errors import ImageError

MAX_PIXELS = 178_956_970
"""Largest picture read by default, in pixels; Pillow's own limit for decompression bombs."""
PIPE_PATIENCE = 5.0
"""Seconds to wait for the first byte of a named pipe."""
_DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)
_PILLOW_LIMIT = threading.Lock()


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as every other part of the library sees it.

    Attributes:
        image: upright (EXIF orientation applied), mode RGB.
        name: file name, or a word for where it came from.
        notes: what was done to it, one phrase each.
    """

    image: Image.Image
    name: str
    notes: tuple[str, ...] = ()

    @property
    def wh(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.size

    def __repr__(self) -> str:
        notes = f", {', '.join(self.notes)}" if self.notes else ""
        return f"<Picture {self.name!r} {self.wh[0]}x{self.wh[1]}{notes}>"


def load_image(source: Any, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture.

    EXIF rotation is applied, transparency is laid on white, an animation gives its first frame, 16-bit values are
    scaled to 8; each is said in ``notes``.

    Args:
        source: a path, bytes, a binary file, a PIL image, or an array (H, W) or (H, W, 1 | 3 | 4) of uint8, uint16,
            bool, or floats from 0 to 1.
        max_pixels: larger pictures are refused before they are decoded.

    Raises:
        ImageError: says which picture, what is wrong, and what to do.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, Image.Image):
        name = _name_of(getattr(source, "filename", None), "picture")
        with _damage_named(name):
            return _prepared(source, name, max_pixels)
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if type(source).__module__.partition(".")[0] == "torch":
        raise ImageError(
            f"a torch tensor of shape {tuple(source.shape)} is not a picture: give a path, a PIL image, or an array "
            "(H, W, 3) of uint8"
        )
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _opened(io.BytesIO(bytes(source)), "bytes", len(bytes(source)), max_pixels)
    if hasattr(source, "read"):
        return _from_file(source, max_pixels)
    if isinstance(source, (str, os.PathLike)):
        return _from_path(os.fspath(source), max_pixels)
    raise ImageError(
        f"cannot read a picture from {type(source).__name__}: give a path, bytes, a PIL image or a NumPy array"
    )


def _from_path(source: str | bytes, max_pixels: int) -> Picture:
    text = os.fsdecode(source)
    if not text:
        raise ImageError("the path of the picture is empty")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://|data:", text):
        raise ImageError(f"{text[:80]} is an address, and nothing is fetched: download the picture and give its path")
    try:
        path = Path(text).expanduser()
        status = path.stat()
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(f"{path} is a folder: give one picture")
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise ImageError(f"{path} is a device: give a file")
        with path.open("rb") if not stat.S_ISFIFO(mode) else _open_pipe(path) as file:
            if stat.S_ISREG(mode):
                # Only as much is read as the picture needs, whatever else the file holds.
                return _opened(file, _name_of(path, ""), status.st_size, max_pixels)
            content = file.read()
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{text[:200]!r} cannot be read: {reason}; give the path of a picture") from error
    return _opened(io.BytesIO(content), _name_of(path, ""), len(content), max_pixels)


def _open_pipe(path: Path) -> BinaryIO:
    # A plain open would wait for ever for a program that writes.
    import select

    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not select.select([handle], [], [], PIPE_PATIENCE)[0]:
        os.close(handle)
        raise ImageError(f"{path} is a pipe that nothing was written to for {PIPE_PATIENCE:g} s: give a file")
    os.set_blocking(handle, True)
    return os.fdopen(handle, "rb")


def _from_file(source: BinaryIO, max_pixels: int) -> Picture:
    name = _name_of(getattr(source, "name", None), "file")
    try:
        content = source.read()
    except (OSError, ValueError) as error:
        raise ImageError(f"{name} cannot be read: {error}; give an open file or a path") from error
    if not isinstance(content, bytes):
        raise ImageError(f"{name} is open as text: open it in binary mode ('rb')")
    return _opened(io.BytesIO(content), name, len(content), max_pixels)


def _name_of(given: Any, otherwise: str) -> str:
    # A name that is not UTF-8 would make every record that holds it unwritable.
    known = bool(given) and isinstance(given, (str, bytes, os.PathLike))
    return os.fsencode(os.path.basename(os.fspath(given))).decode("utf-8", "replace") if known else otherwise


def _opened(stream: BinaryIO, name: str, size: int, max_pixels: int) -> Picture:
    if not size:
        raise ImageError(f"{name} is empty (0 bytes)")
    with _damage_named(name, size), warnings.catch_warnings(), _pillow_allows(max_pixels):
        warnings.simplefilter("ignore")
        image = Image.open(stream)
        if image.format == "EPS":
            raise ImageError(f"{name} is PostScript, a program that would have to be run: convert it to JPEG or PNG")
        _check_size(image.size, name, max_pixels)
        deep = any(";16" in str(tile[3]) for tile in image.tile) and image.mode in ("RGB", "RGBA", "LA")
        image.load()
        picture = _prepared(image, name, max_pixels)
    return replace(picture, notes=(*picture.notes, "16-bit values scaled to 8 bits")) if deep else picture


@contextmanager
def _damage_named(name: str, size: int | None = None) -> Iterator[None]:
    """Whatever Pillow raises becomes an ImageError that names the picture."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name} is not a picture that Pillow can read ({size} bytes): use JPEG or PNG") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large: {error} Scale it down or raise max_pixels") from error
    except _DAMAGE as error:
        raise ImageError(f"{name} is damaged or cut off: {error}; save or download it again") from error


@contextmanager
def _pillow_allows(max_pixels: int) -> Iterator[None]:
    """Lift Pillow's own limit, which stands for the whole process, only where the caller asked for more."""
    before = Image.MAX_IMAGE_PIXELS
    if before is None or max_pixels <= 2 * before:
        yield
        return
    with _PILLOW_LIMIT:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _check_size(image_wh: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = image_wh
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels: {width}x{height}")
    if width * height > max_pixels:
        raise ImageError(
            f"{name} has {width}x{height} = {width * height:,} pixels, over the limit of {max_pixels:,}: scale it down "
            "or raise max_pixels"
        )


def _prepared(image: Image.Image, name: str, max_pixels: int) -> Picture:
    _check_size(image.size, name, max_pixels)
    notes: list[str] = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        at = image.tell()
        notes.append(f"{f'number {at + 1}' if at else 'first'} of {frames} frames")
    orientation = _orientation(image)
    if orientation > 1:
        image = ImageOps.exif_transpose(image)
        notes.append(f"EXIF orientation {orientation} applied")
    rgb, how = _to_rgb(image, name)
    return Picture(rgb, name, (*notes, *how))


def _orientation(image: Image.Image) -> int:
    # Pixels are as good as ever when the EXIF record beside them is damaged or says something that does not exist.
    try:
        told = image.getexif().get(0x0112)
    except _DAMAGE:
        return 1
    return int(told) if isinstance(told, int) and 1 <= told <= 8 else 1


def _to_rgb(image: Image.Image, name: str) -> tuple[Image.Image, tuple[str, ...]]:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy(), ()
    if image.mode in ("I;16", "I;16L", "I;16B", "I", "F"):
        return _from_deep(image, name)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB"), ("transparency laid on white",)
    note = () if image.mode in ("L", "P", "1") else (f"{image.mode} converted",)
    return image.convert("RGB"), note


def _from_deep(image: Image.Image, name: str) -> tuple[Image.Image, tuple[str, ...]]:
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ImageError(f"{name} holds NaN or infinite values: replace them, or save it as PNG or JPEG")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65535:
        raise ImageError(f"{name} holds values from {low:.4g} to {high:.4g}: scale them to 0 to 255 first")
    top = _top_of(image.mode, high)
    grey = np.clip(values / top * 255.0 + 0.5, 0, 255).astype(np.uint8)
    note = f"{image.mode} values 0 to {top:g} scaled to 8 bits"
    clear = image.info.get("transparency")
    if not isinstance(clear, (int, float)):
        return Image.fromarray(grey).convert("RGB"), (note,)
    grey[values == clear] = 255
    return Image.fromarray(grey).convert("RGB"), (note, "transparency laid on white")


def _top_of(mode: str, high: float) -> float:
    # Only I and F leave open what white is; I;16 says it.
    if mode.startswith("I;16") or high > 255:
        return 65535.0
    return 1.0 if mode == "F" and high <= 1 else 255.0


def _from_array(array: NDArray[Any], max_pixels: int) -> Picture:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"an array of shape {array.shape} is not a picture: expected (H, W) or (H, W, 1, 3 or 4)")
    _check_size((array.shape[1], array.shape[0]), "array", max_pixels)
    pixels, note = _eight_bit(array)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    rgb, how = _to_rgb(Image.fromarray(np.ascontiguousarray(pixels)), "array")
    return Picture(rgb, "array", (*note, *how))


def _eight_bit(array: NDArray[Any]) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    if array.dtype == np.uint8:
        return array, ()
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255), ()
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return (array / 257.0 + 0.5).astype(np.uint8), ("16-bit values scaled to 8 bits",)
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise ImageError("the array holds NaN or infinite values")
        if array.min() < 0 or array.max() > 1:
            raise ImageError(
                f"a float array must lie between 0 and 1, got {array.min():.4g} to {array.max():.4g}: divide it, "
                "or give uint8"
            )
        return (array * 255.0 + 0.5).astype(np.uint8), ()
    raise ImageError(f"an array of {array.dtype} is not a picture: expected uint8, uint16, bool, or floats from 0 to 1")
