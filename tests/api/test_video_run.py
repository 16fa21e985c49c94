"""A question about a video, as users ask it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from tests.tiny import TINY
from vlmattn import Video
from vlmattn.api import Look, Run, VideoLook
from vlmattn.api.vlm import Vlm
from vlmattn.core.errors import MapError, SpecError
from vlmattn.overlay import read_provenance

PHOTO = data.coffee()


@pytest.fixture(scope="module")
def run() -> Run:
    video = Video([PHOTO[:64, 30 * n : 30 * n + 96] for n in range(3)], fps=2.0, name="walk.mp4")
    vlm = Vlm(*TINY["qwen2_vl"](), name="qwen2_vl")
    return vlm.ask([PHOTO[:90, :120], video], "What is red?", answer="a red spoon")


def test_a_frame_is_a_look_in_its_own_pixels(run: Run) -> None:
    look = run.map("spoon", image=1, frame=2)
    assert type(look) is Look
    assert look.picture.name == "walk.mp4, frame 2 (1 s)"
    assert (np.asarray(look.picture.image) == PHOTO[:64, 60:156]).all()
    assert look.pixels.values.shape == (64, 96)
    assert look.overlay().image.size[0] >= 96
    assert "spoon" in repr(look)


def test_a_video_is_a_look_with_a_map_per_frame(run: Run) -> None:
    look = run.map("spoon", image=1)
    assert isinstance(look, VideoLook)
    assert [one.picture.name for one in look.frames()] == [f"walk.mp4, frame {n} ({n / 2:g} s)" for n in range(3)]
    whole = look.patch_map
    best = max(range(len(whole.values)), key=lambda n: float(whole.values[n].max()))
    assert look.peak_frame == whole.layout.tiles[best].frames[0]
    assert look.peak_xy == look.frame(look.peak_frame).peak_xy
    with pytest.raises(MapError, match=r"2 grids in time: choose a frame"):
        look.overlay()


def test_frames_share_one_scale_on_a_sheet(run: Run, tmp_path: Path) -> None:
    look = run.map("spoon", image=1)
    assert isinstance(look, VideoLook)
    sheet = look.sheet(columns=2)
    values = [float(np.max(one.pixels.values)) for one in look.frames()]
    assert sheet.record["scale"][1] <= max(values) * 1.0001
    assert [len(row) for row in sheet.record["cells"]] == [2, 1]
    path = look.save(tmp_path / "frames.png")
    assert read_provenance(path)
    told = json.loads(look.save(tmp_path / "frames.json").read_text())
    assert told["frames"] == [[0, 1], [2]]
    assert told["times"] == [0.0, 0.5, 1.0]
    assert np.isclose(sum(told["mass"]), look.patch_map.total)
    with pytest.raises(SpecError, match=r"arrays are of one frame"):
        look.save(tmp_path / "frames.npz")
    assert look.frame(0).save(tmp_path / "frame.npz").exists()


def test_grounding_tells_which_frames_are_looked_at(run: Run) -> None:
    for word in run.grounding():
        assert word.frame_shares[0] == ()
        assert len(word.frame_shares[1]) == 3
        assert np.isclose(sum(word.frame_shares[1]), word.image_shares[1], atol=2e-3)  # rows are kept in half precision
    told = run.to_dict()
    assert told["pictures"][1]["times"] == [0.0, 0.5, 1.0]
    assert "frame_shares" in told["words"][0]["pictures"][1]
    assert "frame_shares" not in told["words"][0]["pictures"][0]


def test_methods_that_run_once_more_see_the_same_video(run: Run) -> None:
    for method in ("value", "relative"):
        assert run.map("spoon", image=1, method=method).patch_map.frames == ((0, 1), (2,))


@pytest.mark.parametrize(
    ("image", "frame", "told"),
    [(1, 3, "frame 3 does not exist: the video has 0 to 2"), (0, 0, "is a picture, which has no frames")],
)
def test_frames_that_do_not_exist_are_named(run: Run, image: int, frame: int, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        run.map("spoon", image=image, frame=frame)


def test_the_tower_is_looked_at_for_pictures_only(run: Run) -> None:
    with pytest.raises(SpecError, match="kept for pictures only"):
        run.vision_map(image=1)
