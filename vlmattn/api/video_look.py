"""One map on the frames of a video."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmattn.api.look import Look
from vlmattn.api.peaks import peak_of
from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.files import as_path, atomic_write_text
from vlmattn.core.images import Picture
from vlmattn.core.videos import Video
from vlmattn.grid import FrameMass, PatchMap, frame_mass
from vlmattn.overlay.preview import Bundle, bundle

if TYPE_CHECKING:
    from vlmattn.overlay import Sheet


class VideoLook(Look):
    """Where the model looked for one word, phrase or answer, on every frame of a video.

    Each frame has a map of its own, unless the vision tower merges frames: then those have one in common, and
    ``patch_map.frames`` says which. What is about one place in pixels (``pixels``, ``overlay``, ``box_xyxy``) belongs
    to a frame: :meth:`frame`.

    Attributes:
        patch_map: values on the grids of all frames. video: its frames. picture: the first of them.
    """

    def __init__(self, patch_map: PatchMap, video: Video) -> None:
        super().__init__(patch_map, named_frame(video, 0))
        self.video = video

    def frame(self, number: int) -> Look:
        """The map on one frame, in that frame's pixels.

        Raises:
            SpecError: no such frame.
        """
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(self.video):
            raise SpecError(f"frame {number!r} does not exist: the video has 0 to {len(self.video) - 1}")
        one = self.patch_map.frame(number)
        told = _told(one, number, self.video)
        return Look(replace(one, provenance=one.provenance.then(told)), named_frame(self.video, number))

    def frames(self) -> list[Look]:
        """The map on every frame, in order. Frames that share a grid have the same values."""
        return [self.frame(number) for number in range(len(self.video))]

    @property
    def frame_mass(self) -> FrameMass:
        """How much of the map lies on each frame, over time; see :func:`vlmattn.grid.frame_mass`."""
        return frame_mass(self.patch_map)

    @property
    def peak_frame(self) -> int:
        """The frame with the highest cell; of several that share its grid, the first. Raises MapError if flat."""
        return self.patch_map.layout.tiles[self.patch_map.peak().tile].frames[0]

    @property
    def peak_xy(self) -> tuple[float, float]:
        """The highest point of the frame :attr:`peak_frame`, in its pixels. Raises MapError if the map is flat."""
        return peak_of(self.patch_map.frame(self.peak_frame))

    def sheet(self, *, columns: int = 4, **options: Any) -> Sheet:
        """All frames on one contact sheet, with one shared scale; see :func:`vlmattn.overlay.contact_sheet`.

        Args:
            columns: frames in a row.
        """
        from vlmattn.overlay import contact_sheet

        if columns < 1:
            raise SpecError(f"columns must be at least 1, got {columns}")
        looks = self.frames()
        titles = [f"frame {n}, {time:g} s" for n, time in enumerate(self.video.times)]
        cells = [(title, look.picture.image, look.pixels) for title, look in zip(titles, looks, strict=True)]
        rows = [cells[first : first + columns] for first in range(0, len(cells), columns)]
        return contact_sheet(rows, **{"title": self.label, **options})

    def to_dict(self) -> dict[str, Any]:
        """What each group of frames got, the frame and point of the peak, and provenance, as plain values."""
        try:
            peak: dict[str, Any] = {"peak_frame": self.peak_frame, "peak_xy": list(self.peak_xy)}
        except MapError:
            peak = {"peak_frame": None, "peak_xy": None}
        told = {"label": self.label, "image_wh": list(self.video.wh), "flat": self.patch_map.is_flat}
        return told | self.frame_mass.to_dict() | peak | {"provenance": self.patch_map.provenance.to_dict()}

    def save(self, path: str | Path, **options: Any) -> Path:
        """Write the sheet of all frames (``.png``, ``.webp``, ``.jpg``) or the summary (``.json``).

        Raises:
            SpecError: ``.npz``, which holds the pixels of one frame.
        """
        target = as_path(path)
        if target.suffix.lower() == ".npz":
            raise SpecError("arrays are of one frame: write look.frame(0).save(...), or give frame=")
        if target.suffix.lower() == ".json":
            atomic_write_text(target, json.dumps(self.to_dict(), ensure_ascii=False, indent=2) + "\n")
        else:
            self.sheet(**options).save(target)
        return target

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:
        return bundle(self.sheet().image, repr(self))

    def __repr__(self) -> str:
        return f"<VideoLook at {self.video.name!r} for {self.label!r}: {self.patch_map!r}>"


def look_at(patch_map: PatchMap, seen: Picture | Video, frame: int | None = None) -> Look:
    """The map on a picture, on a video, or on one frame of it.

    Raises:
        SpecError: no such frame, or a frame of a picture.
    """
    if isinstance(seen, Video):
        whole = VideoLook(patch_map, seen)
        return whole if frame is None else whole.frame(frame)
    if frame is not None:
        raise SpecError(f"{seen.name} is a picture, which has no frames: leave out frame={frame!r}")
    return Look(patch_map, seen)


def named_frame(video: Video, number: int) -> Picture:
    """One frame, with a name that says of which video and when."""
    frame: Picture = video.frames[number]
    return replace(frame, name=f"{video.name}, frame {number} ({video.times[number]:g} s)")


def _told(patch_map: PatchMap, number: int, video: Video) -> str:
    others = [frame for group in patch_map.frames for frame in group if frame != number]
    shared = f", on one grid with {_listed(others)}: they cannot be told apart" if others else ""
    return f"frame {number} at {video.times[number]:g} s{shared}"


def _listed(frames: Sequence[int]) -> str:
    return f"frame{'s' if len(frames) > 1 else ''} {', '.join(map(str, frames))}"
