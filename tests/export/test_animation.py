"""Animations are read back with Pillow and PyAV: frames, times, sizes, and one scale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.export.conftest import FLAT, PEAKED, made
from vlmattn.core.errors import FileError, MapError, SpecError
from vlmattn.export import animate
from vlmattn.overlay import read_provenance


def frames_of(path: Path) -> tuple[list[np.ndarray], list[int]]:
    with Image.open(path) as image:
        found, times = [], []
        for number in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(number)
            image.load()
            times.append(image.info["duration"])
            found.append(np.asarray(image.convert("RGB")))
    return found, times


def film(path: Path) -> tuple[list[np.ndarray], float, dict[str, str]]:
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        told = dict(container.metadata)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return frames, float(container.streams.video[0].average_rate), told


def test_a_frame_for_every_token_of_the_answer(run: Any, tmp_path: Path) -> None:
    looks = run.token_maps()
    for name, duration in (("a.webp", 250), ("a.gif", 250)):
        run.export(tmp_path / name, format="animation", fps=4)
        frames, times = frames_of(tmp_path / name)
        assert len(frames) == len(looks) > 5
        assert times == [duration] * len(looks)
        assert len({one.shape for one in frames}) == 1
    record = read_provenance(tmp_path / "a.webp")
    assert record["titles"] == [look.label for look in looks]
    highest = max(float(look.pixels.values.max()) for look in looks)
    assert record["scale"] == [0.0, pytest.approx(highest)]


def test_over_layers(run: Any, tmp_path: Path) -> None:
    run.export(tmp_path / "l.webp", "cup", format="animation", over="layers", layers=[0, 2, 3])
    frames, _ = frames_of(tmp_path / "l.webp")
    assert len(frames) == 3
    titles = [f"cup (answer, 1 of 2), layer {n}" for n in (0, 2, 3)]
    assert read_provenance(tmp_path / "l.webp")["titles"] == titles
    with pytest.raises(SpecError, match="over layers is of one word, got 2"):
        run.export(tmp_path / "l.gif", ["red", "cup"], over="layers")
    with pytest.raises(SpecError, match="leave out the words"):
        run.export(tmp_path / "l.gif", "red", over="tokens")


@pytest.mark.parametrize("wh", [(40, 30), (41, 31), (1, 1), (3, 200), (97, 7)])
def test_mp4_of_pictures_of_any_size(wh: tuple[int, int], tmp_path: Path) -> None:
    pytest.importorskip("av")
    made_of = animate([made([[n / 3, 0.0]] if wh[0] > 1 else [[n / 3]], wh) for n in range(4)], fps=5)
    frames, rate, told = film(made_of.save(tmp_path / "f.mp4"))
    width, height = made_of.frames[0].size
    assert len(frames) == 4
    assert rate == 5.0
    assert frames[0].shape == (height + height % 2, width + width % 2, 3)
    assert json.loads(told["comment"])["titles"] == ["cup"] * 4
    for frame, ours in zip(frames, made_of.frames, strict=True):
        assert np.abs(frame[:height, :width].astype(float) - np.asarray(ours)).mean() < 10
    content = (tmp_path / "f.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # can be played while it loads


def test_equal_frames_are_kept_apart(tmp_path: Path) -> None:
    for ending in ("gif", "webp"):
        path = animate([made(PEAKED)] * 5, fps=10).save(tmp_path / f"e.{ending}")
        frames, times = frames_of(path)
        assert len(frames) == 5
        assert times == [100] * 5


def test_all_frames_share_one_scale() -> None:
    low = made(np.array(PEAKED) / 100, (400, 300))
    alone = np.asarray(animate(low).frames[0], dtype=float)
    shared = np.asarray(animate([low, made(PEAKED, (400, 300))]).frames[0], dtype=float)
    plain = np.asarray(low.picture.image, dtype=float)
    top, left = (shared.shape[0] - 300, (shared.shape[1] - 400) // 2)
    places = [slice(y, y + 300) for y in range(top + 1)]
    near = min(np.abs(shared[place, left : left + 400] - plain).mean() for place in places)
    far = min(np.abs(alone[place, left : left + 400] - plain).mean() for place in places)
    assert near < 0.5 * far


def test_frames_and_titles_of_any_length_are_of_one_size() -> None:
    looks = [made(PEAKED, label=label) for label in ("a", "b " * 200, "猫\x00", "$")]
    assert len({frame.size for frame in animate([*looks, made(FLAT, label="flat")]).frames}) == 1


def test_large_pictures_are_bounded(tmp_path: Path) -> None:
    path = animate([made(PEAKED, (4000, 3000)), made(FLAT, (4000, 3000))], max_side=320).save(tmp_path / "x.gif")
    frames, _ = frames_of(path)
    assert frames[0].shape[1] <= 480
    assert path.stat().st_size < 600_000
    tall = animate(made(np.array(PEAKED).T, (300, 3000)), max_side=400)
    assert tall.frames[0].height < 800


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0}, "fps must be a number from 0.1 to 50"),
        ({"fps": float("nan")}, "fps must be"),
        ({"max_side": 3}, "max_side must be a whole number"),
        ({"titles": ["a", "b"]}, "2 titles for 1 frames"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        animate(made(PEAKED), **options)


def test_pictures_of_different_sizes_and_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"of one size, got 40 x 30, 41 x 30"):
        animate([made(PEAKED), made(PEAKED, (41, 30))])
    with pytest.raises(FileError, match=r"cannot write an animation as \.avi"):
        animate(made(PEAKED)).save(tmp_path / "x.avi")
    with pytest.raises(SpecError, match="at most 2000 frames"):
        animate([made(PEAKED)] * 2001)


def test_an_answer_without_words_says_so(vlm: Any, run: Any, tmp_path: Path) -> None:
    silent = vlm.ask(run.pictures[0], "What?", answer="...")
    with pytest.raises(MapError, match="the answer has no word"):
        silent.export(tmp_path / "x.pdf")
