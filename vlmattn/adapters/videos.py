"""Videos: what a family makes of them, and how a processor is given one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters.plan import ImagePlan, nowhere, places
from vlmattn.core.errors import LayoutError, PromptError, SpecError, UnsupportedModel
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.core.videos import Video

if TYPE_CHECKING:
    from vlmattn.adapters.adapter import Adapter
    from vlmattn.adapters.spec import FamilySpec


NOT_DECLARED = "where the tokens of its frames lie is not declared"
"""Why a model that takes videos is given none."""


@dataclass(frozen=True)
class VideoSpec:
    """What a family makes of videos.

    Attributes:
        processors: class names of video processors whose geometry is known.
        geometry: the rule that places the tokens of a frame, for the reader.
        merged: frames that share one grid in the family's checkpoints. What the video processor says counts; this is
            for the reader.
        equal: whether all videos that are run together must have the same number of frames, because the model takes
            them as one array.
        beside_pictures: whether a prompt may have videos and pictures.
        most_frames: most frames per video; None for no limit but the context length. most_videos: the same of videos
            per prompt.
    """

    processors: tuple[str, ...]
    geometry: str
    merged: int = 1
    equal: bool = False
    beside_pictures: bool = True
    most_frames: int | None = None
    most_videos: int | None = None

    def __post_init__(self) -> None:
        if not self.processors or self.merged < 1:
            raise SpecError(f"videos need a processor and merged >= 1, got {self.processors}, {self.merged}")

    def __str__(self) -> str:
        merged = "a grid per frame" if self.merged == 1 else f"{self.merged} frames share a grid"
        alone = "" if self.beside_pictures else "; not beside pictures"
        one = "" if self.most_videos is None else f"; at most {self.most_videos} per prompt"
        return f"{merged}; {self.geometry}{alone}{one}"


def kinds_of(group: Sequence[Any]) -> tuple[str, ...]:
    """``video`` or ``image`` for each of them."""
    return tuple("video" if isinstance(one, Video) else "image" for one in group)


def pictures_of(group: Sequence[Any]) -> list[Any]:
    """Those that are no videos."""
    return [one for one in group if not isinstance(one, Video)]


def videos_of(group: Sequence[Any]) -> list[Video]:
    """Those that are videos."""
    return [one for one in group if isinstance(one, Video)]


def as_given(
    groups: Sequence[Sequence[Any]],
    stills: Sequence[Sequence[ImagePlan]],
    read: Callable[[Video, int], ImagePlan],
) -> list[list[ImagePlan]]:
    """The plans of all pictures and videos of each prompt, in the order in which they were given.

    Args:
        stills: plans of its pictures alone. read: the plan of a video, by its number in the batch.
    """
    number = count()
    plans = []
    for group, own in zip(groups, stills, strict=True):
        queue = iter(own)
        plans.append([read(one, next(number)) if isinstance(one, Video) else next(queue) for one in group])
    return plans


def size_of(one: Any) -> tuple[int, int]:
    """Width and height of a picture, or of a video's frames."""
    size: tuple[int, int] = one.wh if isinstance(one, Video) else one.size
    return size


def may_run_together(spec: FamilySpec, groups: Sequence[Sequence[Any]]) -> bool:
    """Whether prompts with these pictures and videos may be run in one padded batch."""
    if not spec.runs_together([len(group) for group in groups]):
        return False
    clips = [clip for group in groups for clip in videos_of(group)]
    if not clips or spec.videos is None:
        return True
    if not spec.videos.beside_pictures and any(pictures_of(group) for group in groups):
        return False
    return not spec.videos.equal or len({len(clip) for clip in clips}) == 1


def check_videos(adapter: Adapter, group: Sequence[Any], where: str = "") -> None:
    """Refuse videos that a model cannot be given, before anything is prepared.

    Raises:
        UnsupportedModel: its family takes none. LayoutError: its processor has no video processor that is known.
        PromptError: too many frames, videos of different length, or pictures beside them where that cannot be.
    """
    clips, spec = videos_of(group), adapter.spec
    if not clips:
        return
    if spec.videos is None:
        raise UnsupportedModel(f"{spec.name} takes no videos: {spec.no_videos}; give single frames as pictures")
    maker = getattr(adapter.processor, "video_processor", None)
    if type(maker).__name__ not in spec.videos.processors:
        got = "none" if maker is None else type(maker).__name__
        raise LayoutError(
            f"{spec.name} needs a video processor of {' or '.join(spec.videos.processors)} for videos, got {got}: load "
            "the processor of the checkpoint"
        )
    if spec.videos.most_videos is not None and len(clips) > spec.videos.most_videos:
        raise PromptError(f"{where}{len(clips)} videos, but {spec.name} takes at most {spec.videos.most_videos}")
    most = spec.videos.most_frames
    for number, clip in enumerate(clips):
        if most is not None and len(clip) > most:
            raise PromptError(
                f"{where}video {number} has {len(clip)} frames, but {spec.name} takes at most {most}: sample fewer"
            )
    if spec.videos.equal and len({len(clip) for clip in clips}) > 1:
        raise PromptError(
            f"{where}the videos have {', '.join(str(len(clip)) for clip in clips)} frames, but {spec.name} takes videos"
            " of equal length only: sample them alike"
        )
    if not spec.videos.beside_pictures and len(clips) < len(group):
        raise PromptError(f"{where}{spec.name} takes pictures or videos in a prompt, not both: ask of each alone")


def video_options(clips: Sequence[Video]) -> dict[str, Any]:
    """What a processor is called with so that it takes these frames as they are, and knows their times."""
    told = [
        {
            "total_num_frames": clip.total,
            "fps": float(clip.fps),
            "duration": clip.total / float(clip.fps),
            "frames_indices": list(clip.numbers),
            "width": clip.wh[0],
            "height": clip.wh[1],
        }
        for clip in clips
    ]
    how = {"do_sample_frames": False, "input_data_format": "channels_last", "return_metadata": True}
    return {
        "videos": [clip.pixels for clip in clips],
        "videos_kwargs": {**how, "return_tensors": "pt", "video_metadata": told},
    }


def groups_of_frames(frames: int, merged: int) -> list[tuple[int, ...]]:
    """Frames that share a grid; the last group may hold fewer, as its last frame is repeated.

    >>> groups_of_frames(3, 2)
    [(0, 1), (2,)]
    """
    return [tuple(range(first, min(first + merged, frames))) for first in range(0, frames, merged)]


def plan_frames(
    clip: Video,
    groups: Sequence[tuple[int, ...]],
    tiles: Sequence[Tile],
    parts: Sequence[NDArray[np.int32]],
    view_hw: tuple[int, int],
) -> ImagePlan:
    """The same tiles for every group of frames, one group after the other.

    Args:
        groups: frames that share them, in order. tiles: of one group. parts: (T, 3) places of a group's tokens, with
            tiles counted from 0. view_hw: pixels that the vision tower gets of a frame.
    """
    made = [replace(tile, frames=group) for group in groups for tile in tiles]
    place = [moved(part, number * len(tiles)) for number in range(len(groups)) for part in parts]
    layout = ImageLayout(clip.wh, tuple(made), None, clip.times)
    return ImagePlan(layout, places(place), view_hw, len(groups))


def moved(place: NDArray[np.int32], tiles: int) -> NDArray[np.int32]:
    """Places with their tiles counted ``tiles`` higher; tokens without a place stay without."""
    out = place.copy()
    out[out[:, 0] >= 0, 0] += tiles
    return out


def ended(plan: ImagePlan, tokens: int) -> ImagePlan:
    """With so many tokens without a place at the end."""
    return replace(plan, place=places([plan.place, nowhere(tokens)]))


def without(plan: ImagePlan, kept: NDArray[np.bool_]) -> ImagePlan:
    """The plan of a video whose model drops some cells before its language model: their tokens go, they are lost.

    Args:
        kept: (T,) one entry per token of the plan. Raises LayoutError for another number.
    """
    if kept.shape != (len(plan),):
        raise LayoutError(f"{len(plan)} tokens of a video were expected, and {kept.shape} are told kept or dropped")
    gone = plan.place[~kept]
    tiles = tuple(
        replace(tile, lost=tuple((int(row), int(col)) for at, row, col in gone if at == index))
        for index, tile in enumerate(plan.layout.tiles)
    )
    return replace(plan, layout=replace(plan.layout, tiles=tiles), place=plan.place[kept])


def grid_of(outputs: Mapping[str, Any], number: int) -> tuple[int, int, int]:
    """Slices, rows and columns of patches of video ``number``, as ``video_grid_thw`` says."""
    frames, rows, cols = (int(n) for n in np.asarray(outputs["video_grid_thw"][number]))
    return frames, rows, cols
