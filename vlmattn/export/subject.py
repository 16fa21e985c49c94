"""What is exported: maps on their pictures, and the files that those pictures become."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vlmattn.core.errors import SpecError
from vlmattn.core.files import atomic_write_bytes
from vlmattn.core.images import Picture
from vlmattn.core.videos import FILMS, PICTURES
from vlmattn.grid import PatchMap, PixelMap

_LONGEST_NAME = 120


class Mapped(Protocol):
    """A map on its picture; ``run.map(...)`` gives one."""

    @property
    def label(self) -> str:
        """The word or phrase."""
        ...

    @property
    def picture(self) -> Picture:
        """The upright picture."""
        ...

    @property
    def patch_map(self) -> PatchMap:
        """Values on the patch grids."""
        ...

    @property
    def pixels(self) -> PixelMap:
        """Values in pixels of the picture."""
        ...


def is_mapped(one: Any) -> bool:
    """Whether something is a map on its picture."""
    return all(hasattr(type(one), name) or hasattr(one, name) for name in ("label", "picture", "patch_map", "pixels"))


def each(looks: Mapped | Iterable[Mapped]) -> list[Mapped]:
    """The looks one by one; a look at a video gives one for every frame.

    Raises:
        SpecError: nothing to export, or something that is no look.
    """
    given: list[Any] = [looks] if is_mapped(looks) else list(looks) if isinstance(looks, Iterable) else [looks]
    for one in given:
        if not is_mapped(one):
            raise SpecError(f"exports take looks, such as run.map('word'), or a list of them; got {one!r:.80}")
    found: list[Mapped] = []
    for one in given:
        frames: Callable[[], list[Mapped]] | None = getattr(one, "frames", None)
        found += frames() if frames is not None else [one]
    if not found:
        raise SpecError("there is nothing to export: give at least one look, such as run.map('word')")
    return found


def pixels_of(look: Mapped) -> PixelMap:
    """The map in pixels, which are not held any longer than before: those of a photograph take some 60 MB."""
    held = "pixels" in vars(look)
    pixels = look.pixels
    if not held:
        vars(look).pop("pixels", None)
    return pixels


def title_of(look: Mapped) -> str:
    """The word; of a video, with the frame."""
    return f"{look.label}: {look.picture.name}" if look.patch_map.layout.times else look.label


@dataclass(frozen=True, eq=False)
class PictureFile:
    """An upright picture, and the name of the file that it becomes, different from every other beside it."""

    picture: Picture
    file: str

    @property
    def note(self) -> str:
        """What makes its pixels differ from those of the file that was given; empty if nothing does."""
        return "; ".join(self.picture.notes)


def picture_files(looks: Sequence[Mapped]) -> tuple[list[PictureFile], list[int]]:
    """The different pictures of some looks, and for every look the number of its picture."""
    files: list[PictureFile] = []
    taken: set[str] = set()
    numbers: list[int] = []
    for look in looks:
        number = next((n for n, file in enumerate(files) if _same(file.picture, look.picture)), None)
        if number is None:
            number = len(files)
            files.append(PictureFile(look.picture, _free_name(look.picture.name, taken)))
        numbers.append(number)
    return files, numbers


def _same(one: Picture, other: Picture) -> bool:
    if one.image is other.image:
        return True
    return one.name == other.name and one.wh == other.wh and one.image.tobytes() == other.image.tobytes()


def _free_name(name: str, taken: set[str]) -> str:
    # Compared without case: some file systems do not tell it apart.
    ending = next((one for one in (*PICTURES, *FILMS) if name.lower().endswith(one)), "")
    stem = file_name(name[: len(name) - len(ending)])
    number, chosen = 1, f"{stem}.png"
    while chosen.casefold() in taken:
        number += 1
        chosen = f"{stem}-{number}.png"
    taken.add(chosen.casefold())
    return chosen


def file_name(text: str) -> str:
    """A name that any file system takes, as close to ``text`` as that allows; *picture* where nothing is left."""
    kept = "".join("-" if c in '/\\:*?"<>|' or unicodedata.category(c) in ("Cc", "Cs") else c for c in text)
    kept = kept.strip(" .")
    while len(kept.encode("utf-8")) > _LONGEST_NAME:
        kept = kept[:-1].rstrip(" .")
    return kept or "picture"


def write_pictures(place: Callable[[str], Path], files: Sequence[PictureFile]) -> list[Path]:
    """Write the upright pictures, without loss."""
    written = []
    for one in files:
        stream = io.BytesIO()
        one.picture.image.save(stream, "PNG", compress_level=3)
        written.append(atomic_write_bytes(place(one.file), stream.getvalue()))
    return written


@dataclass(frozen=True)
class Written:
    """What an export wrote.

    Attributes:
        files: paths, the most important first. skipped: one line for each map that could not be exported, and why.
    """

    files: tuple[Path, ...]
    skipped: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        """The file to open."""
        return self.files[0]
