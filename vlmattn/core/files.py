"""Files and folders appear whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from vlmattn.core.errors import FileError

_PARTIAL = ".part"
_UMASK = threading.Lock()


def as_path(path: Any) -> Path:
    """A path from text or a path; ``~`` stays as it is.

    Raises:
        FileError: something else, or empty text.
    """
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise FileError(f"a file's path must be text or a path, and not empty; got {path!r}")
    return Path(path)


def check_can_write(path: str | Path) -> None:
    """Refuse a file that :func:`atomic_write_bytes` could not write, before there is anything to write.

    Raises:
        FileError: a folder of that name, or no folder there that can be written to.
    """
    target = as_path(path)
    if target.is_dir():
        raise FileError(f"cannot write {str(target)!r}: it is a folder")
    _try_folder(target, target.parent)


def check_can_hold(folder: str | Path) -> None:
    """Refuse a folder that :func:`make_folder` could not make, or that files could not be written to.

    Raises:
        FileError: it, or something above it, is a file or cannot be written to.
    """
    target = as_path(folder)
    _try_folder(target, next((p for p in (target, *target.parents) if os.path.lexists(p)), Path()))


def _try_folder(target: Path, folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        raise FileError(f"cannot write {str(target)!r}: {getattr(error, 'strerror', None) or error}") from error


def make_folder(path: str | Path) -> Path:
    """The folder, made with those above it where it is not there.

    Raises:
        FileError: it is a file, or cannot be made.
    """
    target = as_path(path)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise FileError(
            f"cannot make the folder {str(target)!r}: {getattr(error, 'strerror', None) or error}"
        ) from error
    return target


@contextmanager
def filled_folder(path: str | Path) -> Iterator[Callable[[str], Path]]:
    """A folder to write into: gives the path of each name in it. What was new is taken away again if writing fails.

    Raises:
        FileError: it cannot be made.
    """
    target = as_path(path)
    made = [folder for folder in (target, *target.parents) if not folder.exists()]
    new: list[Path] = []

    def place(name: str) -> Path:
        if not (target / name).exists():
            new.append(target / name)
        return target / name

    try:
        make_folder(target)
        yield place
    except BaseException:
        for file in new:
            file.unlink(missing_ok=True)
        for folder in made:
            with suppress(OSError):  # not made, or somebody else has put something there
                folder.rmdir()
        raise


def atomic_write_bytes(path: str | Path, content: bytes) -> Path:
    """Write ``content`` next to ``path`` and move it there; a killed run leaves the old file or none.

    Raises:
        FileError: the folder does not exist or cannot be written, or the name cannot be that of a file.
    """
    with atomic_file(path) as file:
        file.write(content)
    return as_path(path)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write piece by piece, which takes the place of ``path`` once it is whole; see
    :func:`remove_partial_files`.

    Raises:
        FileError: as :func:`atomic_write_bytes`.
    """
    target = as_path(path)
    try:
        # The name beside it is cut, so that any name that a file may have can be written.
        handle, name = tempfile.mkstemp(prefix=f".{target.name[:40]}.", suffix=_PARTIAL, dir=target.parent)
    except (OSError, ValueError) as error:
        raise FileError(f"cannot write {str(target)!r}: {getattr(error, 'strerror', None) or error}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, target)
    except OSError as error:
        raise FileError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        Path(name).unlink(missing_ok=True)


def remove_partial_files(folder: str | Path) -> None:
    """Take away what killed runs left half written in a folder and those below it; nobody may be writing there."""
    for path in Path(folder).rglob(f".*{_PARTIAL}"):
        path.unlink(missing_ok=True)


def safe_name(text: str, most: int = 40) -> str:
    """Text as a part of a file's name: letters and digits of any script, ``-`` for others, at most so many bytes."""
    return "".join(c if c.isalnum() else "-" for c in text).encode()[:most].decode(errors="ignore")


def atomic_write_text(path: str | Path, text: str) -> Path:
    """:func:`atomic_write_bytes` of UTF-8 text.

    Raises:
        FileError: as there, or the text holds half a surrogate pair, which UTF-8 cannot say.
    """
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FileError(f"cannot write {path}: the text is not Unicode: {error}") from error
    return atomic_write_bytes(path, content)


def write_json(path: str | Path, value: Any) -> Path:
    """Write indented JSON with sorted keys and a final newline, atomically."""
    return atomic_write_text(path, json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n")


def _umask() -> int:
    # It can only be read by setting it: two threads at once would leave it at 0.
    with _UMASK:
        current = os.umask(0)
        os.umask(current)
    return current


def replace_folder(fresh: Path, folder: Path) -> None:
    """Put a finished folder in the place of another, there until then; a killed run leaves one of them whole."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)
