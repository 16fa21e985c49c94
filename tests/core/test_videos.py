"""Videos from frames, files and folders, and bad ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from vlmattn import Video, load_video
from vlmattn.core.errors import SpecError, VideoError
from vlmattn.core.videos import sampled

GREY = np.full((8, 12, 3), 90, np.uint8)


def written(path: Path, frames: int = 20, rate: float = 10.0, code: str = "MJPG") -> Path:
    """A film whose frame n has brightness 10 n in its left half."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), rate, (64, 48))
    for number in range(frames):
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[:, :32] = (0, 0, 10 * (number % 25))  # blue, green, red
        writer.write(picture)
    writer.release()
    return path


def test_frames_are_held_with_their_times() -> None:
    video = Video([GREY, GREY, GREY], fps=4.0)
    assert video.times == (0.0, 0.25, 0.5)
    assert video.pixels.shape == (3, 8, 12, 3)
    assert repr(video) == "<Video 'video' 3 frames 12x8, 0 to 0.5 s>"
    later = Video([GREY, GREY], fps=10.0, numbers=[5, 20], total=30)
    assert later.times == (0.5, 2.0)


def test_a_file_is_sampled_evenly_in_time_and_its_frames_are_the_right_ones(tmp_path: Path) -> None:
    path = written(tmp_path / "film.avi")
    video = load_video(path, frames=4)
    assert video.numbers == (2, 7, 12, 17)
    assert np.allclose(video.times, (0.2, 0.7, 1.2, 1.7))
    assert video.wh == (64, 48)
    for number, frame in zip(video.numbers, video.pixels, strict=True):
        assert abs(float(frame[10:40, 5:25, 0].mean()) - 10 * number) < 6  # red, after JPEG
        assert frame[10:40, 5:25, 2].mean() < 12
    assert load_video(path, fps=5.0).numbers == tuple(range(0, 20, 2))
    assert load_video(path, frames=50).numbers == tuple(range(20))
    assert video.notes == ("4 of 20 frames at 10 a second",)


def test_a_folder_of_frames_is_a_video(tmp_path: Path) -> None:
    for number in range(6):
        Image.fromarray(GREY + np.uint8(number)).save(tmp_path / f"{number:03d}.png")
    video = load_video(tmp_path, frames=3, rate=2.0)
    assert video.numbers == (1, 3, 5)
    assert video.times == (0.5, 1.5, 2.5)
    assert [int(frame[0, 0, 0]) for frame in video.pixels] == [91, 93, 95]


@pytest.mark.parametrize(
    ("total", "rate", "frames", "fps", "numbers"),
    [(3, 1.0, 8, None, [0, 1, 2]), (1, 30.0, 1, None, [0]), (5, 2.0, None, 30.0, [0, 1, 2, 3, 4])],
)
def test_what_is_taken(total: int, rate: float, frames: int | None, fps: float | None, numbers: list[int]) -> None:
    assert sampled(total, rate, frames, fps) == numbers


@pytest.mark.parametrize(
    ("frames", "options", "told"),
    [
        ([], {}, "has no frames"),
        ([GREY, GREY[:4]], {}, "frame 1 of video has 12 x 4 pixels, frame 0 has 12 x 8"),
        ([GREY, "nothing.png"], {}, "frame 1 of video: .*does not exist"),
        ("film.mp4", {}, r"load_video\(path, frames=8\)"),
        ([GREY], {"fps": 0}, "fps of video must be a number above 0"),
        ([GREY, GREY], {"numbers": [3, 3]}, "ascending from 0"),
        ([GREY], {"numbers": [3], "total": 2}, "total must be above"),
    ],
)
def test_frames_that_are_no_video_are_told_so(frames: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises(VideoError, match=told):
        Video(frames, **options)


def test_files_that_are_no_video_are_told_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = tmp_path / "words.mp4"
    words.write_text("no video")
    empty = tmp_path / "empty"
    empty.mkdir()
    cut = tmp_path / "cut.avi"
    whole = written(tmp_path / "film.avi", frames=40).read_bytes()
    cut.write_bytes(whole[: len(whole) // 3])
    for path, reason in ((words, "not a video"), (empty, "holds no frames"), (cut, "damaged|not a video")):
        with pytest.raises(VideoError, match=reason):
            load_video(path, frames=4)
    with pytest.raises(VideoError, match="does not exist"):
        load_video(tmp_path / "none.mp4", frames=4)
    with pytest.raises(SpecError, match="leave out rate"):
        load_video(tmp_path / "film.avi", frames=4, rate=2.0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "say how the video is sampled"),
        ({"frames": 2, "fps": 1.0}, "say how the video is sampled"),
        ({"frames": 0}, "at least 1"),
        ({"fps": -1.0}, "fps must be a number above 0"),
    ],
)
def test_how_a_video_is_sampled_must_be_said(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        load_video(tmp_path, **options)


def test_a_video_too_large_for_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmattn.core.videos.MOST_BYTES", 1000)
    with pytest.raises(VideoError, match="take fewer frames"):
        load_video(written(tmp_path / "film.avi"), frames=4)
