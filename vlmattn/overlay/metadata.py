"""Writes pictures with their provenance inside the file, and reads it back."""

from __future__ import annotations

import base64
import io
import json
import warnings
import zlib
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from vlmattn.core.errors import FileError
from vlmattn.core.files import as_path, atomic_write_bytes

_KEY = "vlmattn"
_USER_COMMENT = 0x9286
_EXIF_IFD = 0x8769
_ASCII = b"ASCII\x00\x00\x00"
_PACKED = "zlib:"
_MOST_UNPACKED = 2**26
_MOST_IN_EXIF = 60_000  # a JPEG header segment holds at most 64 KiB
FORMATS = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG", ".jpeg": "JPEG"}


def save_picture(path: str | Path, image: Image.Image, record: dict[str, Any], *, quality: int = 92) -> Path:
    """Write PNG, WebP or JPEG by the file's ending, with ``record`` as JSON inside, atomically.

    Raises:
        FileError: another ending, or the file cannot be written.
    """
    target = as_path(path)
    return atomic_write_bytes(target, encoded(image, record, target.suffix.lower(), quality=quality))


def encoded(image: Image.Image, record: dict[str, Any], suffix: str = ".png", *, quality: int = 92) -> bytes:
    """The file's bytes; the same input gives the same bytes.

    Raises:
        FileError: an ending that is not known, or a picture or record too large for that format.
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
        exif = comment_exif(text)
        try:
            image.save(stream, kind, quality=quality, exif=exif)
        except (OSError, ValueError, TypeError) as error:
            raise FileError(f"a picture of {image.width}x{image.height} cannot be {kind}: {error}; use .png") from error
    return stream.getvalue()


def comment_exif(text: str) -> bytes:
    """An EXIF record with ``text``, which is ASCII, as its user comment; packed where it is long.

    Raises:
        FileError: too long even so.
    """
    exif = Image.Exif()
    exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = _ASCII + _fitting(text).encode("ascii")
    return exif.tobytes()


def _fitting(text: str) -> str:
    if len(text) <= _MOST_IN_EXIF:
        return text
    packed = _PACKED + base64.b64encode(zlib.compress(text.encode("ascii"), 9)).decode("ascii")
    if len(packed) > _MOST_IN_EXIF:
        raise FileError(f"the provenance has {len(text):,} characters, too many for this format: save as .png")
    return packed


def read_provenance(path: str | Path) -> dict[str, Any]:
    """What :func:`save_picture` wrote into a picture.

    Raises:
        FileError: no such file, or nothing of ours in it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(as_path(path)) as image:
                text = image.info.get(_KEY) or _from_exif(image)
    except FileNotFoundError:
        raise FileError(f"{path} does not exist") from None
    except (OSError, ValueError, SyntaxError, AttributeError, Image.DecompressionBombError) as error:
        raise FileError(f"{path} is not a picture: {error}") from error
    if not text:
        raise FileError(f"{path} carries no provenance")
    try:
        if text.startswith(_PACKED):
            packed = base64.b64decode(text.removeprefix(_PACKED))
            text = zlib.decompressobj().decompress(packed, _MOST_UNPACKED).decode("ascii")
        record = json.loads(text)
    except (ValueError, RecursionError, zlib.error) as error:
        raise FileError(f"the provenance in {path} is damaged: {error}") from error
    if not isinstance(record, dict):
        raise FileError(f"the provenance in {path} is not vlmattn's: it is a {type(record).__name__}")
    return record


def _from_exif(image: Image.Image) -> str:
    comment = image.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT, b"")
    raw = comment if isinstance(comment, bytes) else str(comment).encode()
    return raw.removeprefix(_ASCII).decode("ascii", "replace")
