"""Videos as frames with times: those you hold, and those read from a file or a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmattn.core.errors import ImageError, SpecError, VideoError
from vlmattn.core.images import Picture, load_image
from vlmattn.core.optional import cv2

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_BYTES = 4 * 2**30
"""Largest video that is held, in bytes of its frames."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Endings of frames in a folder."""
FILMS = (".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".ts")
"""Endings of files that are read as videos where pictures are taken, too."""
_SHORT = 0.02


@dataclass(frozen=True, eq=False)
class Video:
    """Frames of one size, and when each of them is.

    Attributes:
        frames: pictures of any kind that :func:`vlmattn.load_image` reads; held as a tuple of :class:`Picture`.
        fps: frames per second of the film that they were taken from.
        numbers: which of that film's frames each one is, ascending; default: 0, 1, 2 …
        total: how many frames that film has; default: up to the last one taken.
        name: what it is called. notes: what was done to it, one phrase each.

    Raises:
        VideoError: no frame, frames of different sizes, a time that is none. ImageError: a frame that cannot be read.

    Example:
        >>> import numpy as np
        >>> video = Video([np.zeros((4, 6, 3), np.uint8)] * 3, fps=2.0)
        >>> len(video), video.wh, video.times
        (3, (6, 4), (0.0, 0.5, 1.0))
    """

    frames: Sequence[Any]
    fps: float = 1.0
    numbers: Sequence[int] = ()
    total: int = 0
    name: str = "video"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.frames, (str, bytes, os.PathLike)) or not isinstance(self.frames, (Sequence, np.ndarray)):
            raise VideoError(
                f"the frames of a video must be a list of pictures, got {type(self.frames).__name__}: a file is read "
                "with load_video(path, frames=8)"
            )
        if not len(self.frames):
            raise VideoError(f"{self.name} has no frames: give at least one")
        frames = tuple(_frame(one, number, self.name) for number, one in enumerate(self.frames))
        _check_sizes(frames, self.name)
        object.__setattr__(self, "frames", frames)
        given = len(self.numbers) > 0
        numbers = tuple(int(n) for n in self.numbers) if given else tuple(range(len(frames)))
        object.__setattr__(self, "numbers", numbers)
        object.__setattr__(self, "total", self.total or numbers[-1] + 1)
        self._check_times()

    def _check_times(self) -> None:
        if not isinstance(self.fps, Real) or isinstance(self.fps, bool) or not 0 < float(self.fps) < float("inf"):
            raise VideoError(f"fps of {self.name} must be a number above 0, got {self.fps!r}")
        steps = zip(self.numbers, self.numbers[1:], strict=False)
        if len(self.numbers) != len(self.frames) or self.numbers[0] < 0 or any(b <= a for a, b in steps):
            raise VideoError(
                f"numbers must say which frame of {self.name} each of the {len(self.frames)} is, ascending from 0; got "
                f"{list(self.numbers)[:8]}"
            )
        if self.total <= self.numbers[-1]:
            raise VideoError(f"total must be above the last frame's number {self.numbers[-1]}, got {self.total}")

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def wh(self) -> tuple[int, int]:
        """Width and height of every frame in pixels."""
        size: tuple[int, int] = self.frames[0].wh
        return size

    @property
    def times(self) -> tuple[float, ...]:
        """Seconds from the beginning of the film to each frame."""
        return tuple(number / float(self.fps) for number in self.numbers)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(T, H, W, 3) RGB of all frames."""
        return np.stack([np.asarray(frame.image) for frame in self.frames])

    def __repr__(self) -> str:
        width, height = self.wh
        return f"<Video {self.name!r} {len(self)} frames {width}x{height}, {self.times[0]:g} to {self.times[-1]:g} s>"


def _frame(source: Any, number: int, name: str) -> Picture:
    try:
        return load_image(source)
    except ImageError as error:
        raise VideoError(f"frame {number} of {name}: {error}") from error


def _check_sizes(frames: Sequence[Picture], name: str) -> None:
    for number, frame in enumerate(frames):
        if frame.wh != frames[0].wh:
            (width, height), first = frame.wh, frames[0].wh
            raise VideoError(
                f"frame {number} of {name} has {width} x {height} pixels, frame 0 has {first[0]} x {first[1]}: the "
                "frames of a video must have one size"
            )


Visual = Picture | Video
"""What a question can be about."""


def load_video(
    path: str | os.PathLike[str], *, frames: int | None = None, fps: float | None = None, rate: float | None = None
) -> Video:
    """Frames of a video file, or of a folder of pictures in order of their names.

    Args:
        path: a file that OpenCV reads (MP4, AVI, MOV, MKV, WebM …), or a folder.
        frames: take so many, from the middles of equal stretches of time; all, if there are fewer.
        fps: take so many a second, from the first frame on. One of ``frames`` and ``fps`` must be given.
        rate: frames per second of a folder's pictures; default 1. A file says its own.

    Raises:
        VideoError: no such file, one that is no video or is cut off, or more frames than memory is meant for.
        SpecError: not exactly one of ``frames`` and ``fps``, or no number above 0.
    """
    _check_sampling(frames, fps, rate)
    place = Path(path).expanduser()
    if not str(path) or not place.exists():
        raise VideoError(f"{str(path)!r} does not exist: give the path of a video")
    if place.is_dir():
        return _from_folder(place, frames, fps, float(rate or 1.0))
    if rate is not None:
        raise SpecError(f"{place.name} is a file, which says its own rate: leave out rate={rate!r}")
    return _from_file(place, frames, fps)


def is_video(path: str) -> bool:
    """Whether a path is that of a video file, by its ending, or of a folder of frames."""
    place = Path(path).expanduser()
    return place.suffix.lower() in FILMS or (bool(path) and place.is_dir())


def _check_sampling(frames: Any, fps: Any, rate: Any) -> None:
    if (frames is None) == (fps is None):
        raise SpecError("say how the video is sampled: frames=8 for eight in all, or fps=1.0 for one a second")
    if frames is not None and (not isinstance(frames, Integral) or isinstance(frames, bool) or frames < 1):
        raise SpecError(f"frames must be a whole number, at least 1, got {frames!r}")
    for name, value in (("fps", fps), ("rate", rate)):
        if value is None:
            continue
        if not isinstance(value, Real) or isinstance(value, bool) or not 0 < float(value) < float("inf"):
            raise SpecError(f"{name} must be a number above 0, got {value!r}")


def sampled(total: int, rate: float, frames: int | None, fps: float | None) -> list[int]:
    """Numbers of the frames that are taken of a film of ``total`` frames, ``rate`` a second.

    >>> sampled(10, 25.0, 2, None), sampled(10, 4.0, None, 2.0)
    ([2, 7], [0, 2, 4, 6, 8])
    """
    if frames is not None:
        count = min(frames, total)
        return [int((k + 0.5) * total / count) for k in range(count)]
    step = max(1.0, rate / float(fps or rate))
    return [round(k * step) for k in range(int(np.ceil(total / step))) if round(k * step) < total]


def _from_folder(place: Path, frames: int | None, fps: float | None, rate: float) -> Video:
    found = sorted(p for p in place.iterdir() if p.suffix.lower() in PICTURES)
    if not found:
        raise VideoError(f"{place} holds no frames: expected pictures that end in {', '.join(PICTURES)}")
    numbers = sampled(len(found), rate, frames, fps)
    notes = (_told(numbers, len(found), rate),)
    return Video([found[n] for n in numbers], rate, numbers, len(found), place.name, notes)


def _from_file(place: Path, frames: int | None, fps: float | None) -> Video:
    capture = cv2().VideoCapture(str(place))
    try:
        if not capture.isOpened():
            raise VideoError(f"{place.name} is not a video that OpenCV can read, or it is damaged: save it as MP4")
        rate = float(capture.get(cv2().CAP_PROP_FPS))
        told = int(capture.get(cv2().CAP_PROP_FRAME_COUNT))
        size = [int(capture.get(p)) for p in (cv2().CAP_PROP_FRAME_WIDTH, cv2().CAP_PROP_FRAME_HEIGHT)]
        if not 0 < rate < float("inf"):
            raise VideoError(f"{place.name} does not say how many frames a second it has: save it as MP4")
        total = told if told > 0 else _counted(place)
        numbers = sampled(total, rate, frames, fps)
        _check_bytes(place.name, len(numbers) * size[0] * size[1] * 3)
        taken, seen = _taken(capture, numbers)
    finally:
        capture.release()
    if len(taken) < len(numbers):
        return _shorter(place, total, seen, frames, fps)
    return Video(taken, rate, numbers, total, place.name, (_told(numbers, total, rate),))


def _shorter(place: Path, total: int, seen: int, frames: int | None, fps: float | None) -> Video:
    # Headers of good files are off by a few frames; a file that was cut off is off by many.
    if seen < (1 - _SHORT) * total - 2 or not seen:
        raise VideoError(f"{place.name} is damaged or cut off: it says {total} frames, and {seen} could be read")
    capture = cv2().VideoCapture(str(place))
    try:
        rate = float(capture.get(cv2().CAP_PROP_FPS))
        numbers = sampled(seen, rate, frames, fps)
        taken, _ = _taken(capture, numbers)
    finally:
        capture.release()
    notes = (_told(numbers, seen, rate), f"the file says {total} frames, {seen} could be read")
    return Video(taken, rate, numbers, seen, place.name, notes)


def _taken(capture: Any, numbers: Sequence[int]) -> tuple[list[Image.Image], int]:
    """The frames of these numbers, upright, as far as the file goes; and how many frames were passed."""
    taken: list[Image.Image] = []
    wanted: Iterator[int] = iter(numbers)
    following = next(wanted)
    for number in range(numbers[-1] + 1):
        if not capture.grab():
            return taken, number
        if number < following:
            continue
        good, pixels = capture.retrieve()
        if not good:
            return taken, number
        taken.append(Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1])))
        following = next(wanted, numbers[-1] + 1)
    return taken, numbers[-1] + 1


def _counted(place: Path) -> int:
    capture, count = cv2().VideoCapture(str(place)), 0
    while capture.grab():
        count += 1
    capture.release()
    if not count:
        raise VideoError(f"{place.name} holds no frame that can be read: it is empty or damaged")
    return count


def _check_bytes(name: str, wanted: int) -> None:
    if wanted > MOST_BYTES:
        raise VideoError(
            f"{name} would take {wanted / 2**30:.1f} GiB, over the limit of {MOST_BYTES / 2**30:.0f} GiB: take fewer "
            "frames, or scale it down"
        )


def _told(numbers: Sequence[int], total: int, rate: float) -> str:
    return f"{len(numbers)} of {total} frames at {rate:g} a second"
