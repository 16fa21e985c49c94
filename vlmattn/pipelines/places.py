"""Files on this machine, and at addresses that fsspec knows (``s3://…``, ``gs://…``, ``memory://…``)."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from vlmattn.core.errors import FileError, ImageError, VlmattnError
from vlmattn.core.files import atomic_write_bytes, make_folder
from vlmattn.core.images import Picture, load_image

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(?:://|::)")
_FILE = "file://"
_MOST_BYTES = 2**29


def is_address(place: str) -> bool:
    """Whether a place is for fsspec; anything else, ``file://`` too, is a path of this machine."""
    return _ADDRESS.match(place) is not None and not place.startswith(_FILE)


def local(place: str) -> str:
    """The path of a place on this machine."""
    return place.removeprefix(_FILE)


@contextmanager
def opened(place: str) -> Iterator[BinaryIO]:
    """A file to read.

    Raises:
        FileError: it is not there, cannot be read, or a library for its kind of address is not installed.
    """
    with _told(place):
        file: Any = _fsspec(place, "rb") if is_address(place) else Path(local(place)).expanduser().open("rb")
    with _told(place), file as stream:
        yield stream


def read_picture(image: str | bytes, name: str, folder: str = "") -> Picture:
    """The picture at a path (relative ones to ``folder``) or address, or of its content.

    Raises:
        ImageError: it cannot be read; says which and why.
    """
    if isinstance(image, str) and not is_address(image):
        image = local(image)
        joined = image if not folder or os.path.isabs(image) or image.startswith("~") else place_in(folder, image)
        if not is_address(joined):
            return load_image(joined)
        image = joined
    if isinstance(image, str):
        try:
            with opened(image) as file:
                content = file.read(_MOST_BYTES + 1)
        except FileError as error:
            raise ImageError(str(error)) from error
        if len(content) > _MOST_BYTES:
            raise ImageError(f"{image[:200]} has over {_MOST_BYTES >> 20} MiB: no picture that can be read is so large")
    else:
        content = image
    stream: Any = io.BytesIO(content)
    stream.name = name or "picture"
    return load_image(stream)


def place_in(folder: str, name: str) -> str:
    """The path or address of a name in a folder."""
    return f"{folder.rstrip('/')}/{name}" if is_address(folder) else os.path.join(local(folder), name)


def absolute(place: str) -> str:
    """The place as other folders see it; addresses stay as they are."""
    return place if is_address(place) else os.path.abspath(os.path.expanduser(local(place)))


def folder_of(place: str) -> str:
    """The folder that a file is in."""
    return place.rpartition("/")[0] if is_address(place) else os.path.dirname(local(place))


def write(place: str, content: bytes) -> None:
    """Write a file whole or not at all; folders of this machine are made.

    Raises:
        FileError: it cannot be written.
    """
    if not is_address(place):
        make_folder(os.path.dirname(local(place)) or ".")
        atomic_write_bytes(local(place), content)
        return
    with _told(place):
        import fsspec

        system, path = fsspec.core.url_to_fs(place)
        system.makedirs(path.rpartition("/")[0] or "/", exist_ok=True)
        system.pipe_file(path, content)


def exists(place: str) -> bool:
    """Whether a file is there."""
    if not is_address(place):
        return os.path.isfile(local(place))
    with _told(place):
        import fsspec

        system, path = fsspec.core.url_to_fs(place)
        return bool(system.exists(path))


def _fsspec(place: str, mode: str) -> Any:
    import fsspec

    return fsspec.open(place, mode)


@contextmanager
def _told(place: str) -> Iterator[None]:
    """Whatever goes wrong becomes a FileError that names the place."""
    try:
        yield
    except VlmattnError:
        raise
    except FileNotFoundError:
        raise FileError(f"{place} does not exist") from None
    except ImportError as error:
        raise FileError(f"{place[:200]} needs a library that is not installed: {error}") from error
    except (OSError, ValueError) as error:
        raise FileError(f"{place[:200]} cannot be read or written: {_reason(error)}") from error
    except Exception as error:
        # What a store's own library raises is known to it alone.
        if not is_address(place):
            raise
        raise FileError(f"{place[:200]} cannot be read or written: {type(error).__name__}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:300]
