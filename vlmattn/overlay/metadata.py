"""Writes pictures with their provenance inside the file, and reads it back."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from vlmattn.core.errors import FileError
from vlmattn.core.files import atomic_write_bytes

_KEY = "vlmattn"
_USER_COMMENT = 0x9286
_EXIF_IFD = 0x8769
_ASCII = b"ASCII\x00\x00\x00"
FORMATS = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG", ".jpeg": "JPEG"}


def save_picture(path: str | Path, image: Image.Image, record: dict[str, Any], *, quality: int = 92) -> Path:
    """Write PNG, WebP or JPEG by the file's ending, with ``record`` as JSON inside, atomically.

    Raises:
        FileError: another ending, or the file cannot be written.
    """
    target = Path(path)
    return atomic_write_bytes(target, encoded(image, record, target.suffix.lower(), quality=quality))


def encoded(image: Image.Image, record: dict[str, Any], suffix: str = ".png", *, quality: int = 92) -> bytes:
    """The file's bytes; the same input gives the same bytes.

    Raises:
        FileError: an ending that is not known.
    """
    kind = FORMATS.get(suffix)
    if kind is None:
        raise FileError(f"cannot write a picture as {suffix or 'a file without ending'}: expected {', '.join(FORMATS)}")
    text = json.dumps(record, ensure_ascii=True, sort_keys=True)
    stream = io.BytesIO()
    if kind == "PNG":
        notes = PngImagePlugin.PngInfo()
        notes.add_text(_KEY, text)
        image.save(stream, kind, pnginfo=notes, compress_level=3)
    else:
        exif = Image.Exif()
        # A JPEG header holds at most 64 KiB.
        exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = _ASCII + text.encode("ascii")[:60_000]
        image.save(stream, kind, quality=quality, exif=exif.tobytes())
    return stream.getvalue()


def read_provenance(path: str | Path) -> dict[str, Any]:
    """What :func:`save_picture` wrote into a picture.

    Raises:
        FileError: no such file, or nothing of ours in it.
    """
    try:
        with Image.open(path) as image:
            text = image.info.get(_KEY) or _from_exif(image)
    except FileNotFoundError:
        raise FileError(f"{path} does not exist") from None
    except OSError as error:
        raise FileError(f"{path} is not a picture: {error}") from error
    if not text:
        raise FileError(f"{path} carries no provenance")
    try:
        record: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise FileError(f"the provenance in {path} is damaged: {error}") from error
    return record


def _from_exif(image: Image.Image) -> str:
    comment = image.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT, b"")
    raw = comment if isinstance(comment, bytes) else str(comment).encode()
    return raw.removeprefix(_ASCII).decode("ascii", "replace")
