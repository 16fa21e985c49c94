"""Videos: measure which tokens a frame has, and prove that prompts with videos keep the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters.paint import grey_picture, paintable, unmixed
from vlmattn.adapters.several import merged_states, slack_of
from vlmattn.adapters.videos import may_run_together
from vlmattn.core.layout import ImageLayout, TokenKind, TokenLayout
from vlmattn.core.videos import Video

if TYPE_CHECKING:
    from vlmattn.adapters.adapter import Adapter

Clips = Sequence[tuple[tuple[int, int], int]]
CLIPS: Clips = (((96, 96), 3), ((150, 90), 4), ((70, 130), 5))
"""Width and height, and number of frames, of the videos that an adapter is proved on."""
_QUESTIONS = ("What?", "What is there to be seen in these pictures, and where?")
_FPS = 2.0


def takes_videos(adapter: Adapter) -> bool:
    """Whether the family takes videos and its processor can prepare them."""
    spec = adapter.spec.videos
    maker = getattr(adapter.processor, "video_processor", None)
    return spec is not None and type(maker).__name__ in spec.processors


def noise_video(
    wh: tuple[int, int], frames: int, spot: tuple[int, int, int, int] | None = None, at: int = 0, seed: int = 0
) -> Video:
    """Frames of noise, no two alike, with a white spot (x0, y0, x1, y1) on frame ``at`` if one is given."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 192, (frames, wh[1], wh[0], 3), dtype=np.uint8)
    if spot is not None:
        pixels[at, spot[1] : spot[3], spot[0] : spot[2]] = 255
    return Video(list(pixels), _FPS)


def clip_faults(adapter: Adapter, wh: tuple[int, int], frames: int) -> list[str]:
    """The model must take the input and fill every token; every frame must have a grid, and every cell a token."""
    video = noise_video(wh, frames)
    encoded = adapter.encode([video], _QUESTIONS[1])
    layout = encoded.layouts[0]
    try:
        merged = merged_states(adapter, encoded)
    except (ValueError, RuntimeError) as error:
        return [f"the model refuses the input: {error}"]
    faults = [] if merged.shape[1] == len(layout) else [f"the model sees {merged.shape[1]} tokens, not {len(layout)}"]
    groups = layout.images[0].slices
    if [frame for group in groups for frame in group] != list(range(frames)):
        faults.append(f"{frames} frames are held in groups {groups}")
    if layout.images[0].times != video.times:
        faults.append(f"the frames' times are {video.times}, the layout says {layout.images[0].times}")
    start, end = layout.question_span
    if layout.text[start:end] != _QUESTIONS[1]:
        faults.append(f"question_span covers {layout.text[start:end]!r}")
    return faults + cell_faults(layout)


def cell_faults(layout: TokenLayout) -> list[str]:
    """Cells that do not have exactly one token (none, if it was lost)."""
    faults = []
    for number, picture in enumerate(layout.images):
        for index, tile in enumerate(picture.tiles):
            mine = (layout.image == number) & (layout.tile == index)
            count = np.zeros(tile.grid_hw, dtype=int)
            np.add.at(count, (layout.row[mine], layout.col[mine]), 1)
            wrong = int((count != tile.held).sum())
            if wrong:
                faults.append(f"tile {index}: {wrong} cells do not have exactly one token (none, if lost)")
    placed = (layout.kinds == TokenKind.IMAGE) != (layout.tile >= 0)
    return [*faults, "kinds and places disagree"] if placed.any() else faults


def frame_faults(adapter: Adapter, wh: tuple[int, int], frames: int, rng: np.random.Generator) -> tuple[list[str], int]:
    """Paint cells of every frame, one at a time: (what was found in the wrong place, spots painted).

    The token that changes most must be the painted cell's, of the grid that stands for the painted frame, and no token
    of another grid may change.
    """
    faults: list[str] = []
    painted = 0
    with unmixed(adapter.model):
        encoded = adapter.encode([noise_video(wh, frames)], "?")
        layout = encoded.layouts[0]
        plain = merged_states(adapter, encoded)[0]
        for frame, tile, row, col in _chosen(layout.images[0], frames, rng):
            spot = paintable(layout.images[0], tile, row, col)
            if spot is None:
                continue
            painted += 1
            other = adapter.encode([noise_video(wh, frames, spot, frame)], "?")
            if other.layouts[0].input_ids.tolist() != layout.input_ids.tolist():
                faults.append(f"painting {spot} of frame {frame} changed the prompt")
                continue
            change = np.linalg.norm(merged_states(adapter, other)[0] - plain, axis=1)
            faults += _strayed(adapter, layout, change, (tile, row, col), frame)
    return faults, painted


def _chosen(picture: ImageLayout, frames: int, rng: np.random.Generator) -> list[tuple[int, int, int, int]]:
    """(frame, tile, row, column) of a corner and of random cells of every grid of every frame."""
    chosen = set()
    for frame in range(frames):
        for index in picture.of_frame(frame):
            tile = picture.tiles[index]
            rows, cols = tile.grid_hw
            cells = {(rows - 1, cols - 1)} | {(int(rng.integers(rows)), int(rng.integers(cols))) for _ in range(2)}
            chosen |= {(frame, index, *cell) for cell in cells - set(tile.lost)}
    return sorted(chosen)


def _strayed(
    adapter: Adapter, layout: TokenLayout, change: NDArray[np.floating], cell: tuple[int, int, int], frame: int
) -> list[str]:
    mine = np.flatnonzero(layout.tile == cell[0])
    top = mine[int(change[mine].argmax())]
    found = (cell[0], int(layout.row[top]), int(layout.col[top]))
    faults = [] if found == cell else [f"painting cell {cell} of frame {frame} changed cell {found} most"]
    with_it = np.isin(layout.tile, layout.images[0].of_frame(frame))
    others = float(change[~with_it].max(initial=0.0))
    if others > slack_of(adapter) * change.max():
        faults.append(f"painting frame {frame} changed tokens that do not stand for it, by {others:.2g}")
    return faults


def mixed_faults(adapter: Adapter) -> list[str]:
    """Prompts with two videos, or a picture and a video: painting one must leave the other's tokens alone."""
    first, second = noise_video((96, 96), 4, seed=1), noise_video((110, 80), 4, seed=2)
    spec = adapter.spec.videos
    beside = spec is not None and spec.beside_pictures
    faults: list[str] = []
    if spec is not None and (spec.most_videos is None or spec.most_videos > 1):
        faults += _apart(adapter, [first, second], noise_video((110, 80), 4, seed=3), 1)
    if beside:
        picture = grey_picture((100, 70), own_scale=adapter.own_scale)
        faults += _apart(adapter, [picture, first], noise_video((96, 96), 4, seed=3), 1)
        faults += _apart(adapter, [first, picture], noise_video((96, 96), 4, seed=3), 0)
    return faults


def _apart(adapter: Adapter, group: list[Any], other: Video, number: int) -> list[str]:
    changed = [*group[:number], other, *group[number + 1 :]]
    with unmixed(adapter.model):
        encoded = adapter.encode(group, "?")
        layout = encoded.layouts[0]
        change = np.linalg.norm(
            merged_states(adapter, adapter.encode(changed, "?"))[0] - merged_states(adapter, encoded)[0], axis=1
        )
    placed = (layout.image == number) & (layout.kinds == TokenKind.IMAGE)
    strays = change[layout.image != number].max(initial=0.0)
    faults = cell_faults(layout)
    if strays > slack_of(adapter) * change.max():
        faults.append(f"another video in place {number} changed tokens that are not its own, by {strays:.2g}")
    still = int((change[placed] <= slack_of(adapter) * change.max()).sum())
    return [*faults, f"{still} tokens of the video in place {number} did not change with it"] if still else faults


def video_batch_faults(adapter: Adapter) -> list[str]:
    """Batches of two prompts, with videos of different shape, or a video and a picture: each must be alone's.

    Only those that may be run together, videos of equal length where the model takes no others.
    """
    first, picture = noise_video((96, 96), 4, seed=1), grey_picture((100, 70), own_scale=adapter.own_scale)
    others: list[Any] = [noise_video((150, 90), 2, seed=2), noise_video((150, 90), 4, seed=2), picture]
    allowed = [[[first], [other]] for other in others if may_run_together(adapter.spec, [[first], [other]])]
    return [fault for groups in allowed for fault in _batch_faults(adapter, groups)]


def _batch_faults(adapter: Adapter, groups: Sequence[Sequence[Any]]) -> list[str]:
    """A batch of two prompts must be each prompt alone behind its padding."""
    both = adapter.encode(groups, list(_QUESTIONS))
    merged = merged_states(adapter, both)
    faults = []
    for index, (group, question) in enumerate(zip(groups, _QUESTIONS, strict=True)):
        alone, pad = adapter.encode(group, question), both.pad_left[index]
        if both.inputs["input_ids"][index, pad:].tolist() != alone.inputs["input_ids"][0].tolist():
            faults.append(f"prompt {index} of the batch is not the prompt alone after {pad} padding tokens")
            continue
        apart = np.abs(merged[index][pad:] - merged_states(adapter, alone)[0]).max()
        if not apart <= 10 * slack_of(adapter) * np.abs(merged[index][pad:]).max():
            faults.append(f"prompt {index} of the batch gets other tokens of its video than alone, by {apart:.2g}")
    return faults
