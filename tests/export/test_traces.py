"""A saved run loads back equal, gives the same maps without a model, and damaged files give one error."""

from __future__ import annotations

import json
import pickle
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vlmattn as va
from tests import traces
from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.images import Picture
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.export import load_trace, save_trace


def same(one: Any, other: Any, where: str = "") -> None:
    """Equal in every field, arrays with type, shape and NaN."""
    assert type(one) is type(other), where
    if isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), where
        assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f"), where
    elif isinstance(one, tuple) and not hasattr(one, "_fields"):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            same(a, b, f"{where}[{number}]")
    elif hasattr(one, "__dataclass_fields__"):
        for field in fields(one):
            same(getattr(one, field.name), getattr(other, field.name), f"{where}.{field.name}")
    else:
        assert one == other, where


@pytest.fixture(scope="module")
def everything(vlm: Any) -> Any:
    """A run that kept all there is to keep, heads of different numbers in its layers."""
    spec = va.CaptureSpec(
        rows=("prompt", "answer"), heads={0: [0, 2], 1: [1], 3: [0, 1, 2, 3]}, value_norms="projected", head_norms=True,
        hidden=True, hidden_coords=(3, 5), hidden_top=2, received=True, vision="received", dtype="float32",
    )  # fmt: skip
    scene, _ = va.scene.split_item("test", seed=0, index=3)
    return vlm.ask(scene.image, "Is there a red circle?", answer="no red circle", capture=spec)


def test_every_array_and_field_comes_back(everything: Any, tmp_path: Path) -> None:
    trace = everything.trace
    optional = ("value_norm_lhk", "head_norm_lhq", "hidden", "scores", "received_lhn", "vision", "visible_lqk")
    assert all(getattr(trace, name) is not None for name in optional)
    assert np.isnan(trace.attn_lhqk).any()
    held = load_trace(save_trace(tmp_path / "x.safetensors", trace, everything.pictures))
    same(held.trace, trace)
    assert np.array_equal(held.pictures[0].image, everything.pictures[0].image)
    assert (held.pictures[0].name, held.pictures[0].notes) == (
        everything.pictures[0].name,
        everything.pictures[0].notes,
    )
    again = save_trace(tmp_path / "y.safetensors", held.trace, held.pictures)
    assert again.read_bytes() == (tmp_path / "x.safetensors").read_bytes()


def test_odd_layouts_and_provenance_come_back(tmp_path: Path) -> None:
    spans = ((0.0, 13.1), (13.2, 20.0))
    tile = Tile("base", (2, 2), (0.0, 0.0, 40.0, 20.0), row_spans=spans)
    layout = replace(traces.layout(), images=(ImageLayout((40, 20), (tile, traces.layout().images[0].tiles[1]), 3),))
    made = va.Provenance(model="m/ö", revision=None, steps=("a", "b\n\u2028"), seed=7, versions={"x": "1"})
    trace = traces.trace(layout=layout, provenance=made, depth=9, blind=(1,), heads=(("mean",), (0,)))
    held = load_trace(save_trace(tmp_path / "x.safetensors", trace))
    same(held.trace, trace)
    assert held.trace.layout.images[0].views == 3
    assert held.pictures == ()


def test_a_loaded_run_gives_the_same_maps_words_and_grounding(run: Any, tmp_path: Path) -> None:
    run.export(tmp_path / "run.safetensors")
    loaded = va.load_run(tmp_path / "run.safetensors")
    assert (loaded.question, loaded.answer, loaded.words()) == (run.question, run.answer, run.words())
    options: list[dict[str, Any]] = [{}, {"layers": [1]}, {"heads": "pointing"}, {"heads": [0]}, {"normalise": "share"}]
    for given in [*options, {"layers": "vicrop", "rows": "vicrop"}]:
        for what in [None] if "rows" in given else ["red", 0, None, run.words()[2]]:
            one, other = run.map(what, **given), loaded.map(what, **given)
            same(one.patch_map, other.patch_map)
            assert one.peak_xy == other.peak_xy
    assert np.array_equal(run.map("cup").pixels.values, loaded.map("cup").pixels.values)
    assert [w.to_dict() for w in loaded.grounding()] == [w.to_dict() for w in run.grounding()]
    assert loaded.map("cup").overlay().image.tobytes() == run.map("cup").overlay().image.tobytes()
    # A loaded run is saved again as it was.
    loaded.export(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "run.safetensors").read_bytes()


def test_what_needs_the_model_says_so(run: Any, everything: Any, tmp_path: Path) -> None:
    run.export(tmp_path / "run.safetensors")
    loaded = va.load_run(tmp_path / "run.safetensors")
    for method in ("value", "relative", "rollout", "logit_lens", "occlusion"):
        with pytest.raises(SpecError, match="loaded from a file, without its model 'scene'"):
            loaded.map("cup", method=method)
    for call in (loaded.sinks, loaded.tower, loaded.faithfulness, loaded.refine, loaded.detect):
        with pytest.raises(SpecError, match="without its model"):
            call(**({"recipe": "carve"} if call == loaded.refine else {}))
    with pytest.raises(SpecError, match="without its model"):
        loaded.map("cup", sinks="drop")
    # Norms that were kept are in the file.
    everything.export(tmp_path / "all.safetensors")
    kept = va.load_run(tmp_path / "all.safetensors")
    same(kept.map("red", method="value").patch_map, everything.map("red", method="value").patch_map)


def test_pictures_can_be_left_out_and_given_again(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    run.export(path, pictures=False)
    with pytest.raises(FileError, match=r"without its 1 pictures: give them"):
        va.load_run(path)
    with pytest.raises(FileError, match=r"of pictures of \[\(201, 133\)\] pixels, and those given have \[\(20, 20\)\]"):
        va.load_run(path, pictures=[Image.new("RGB", (20, 20))])
    loaded = va.load_run(path, pictures=[run.pictures[0].image])
    same(loaded.map("cup").patch_map, run.map("cup").patch_map)
    with pytest.raises(FileError, match="is of 1 pictures, and 2 were given"):
        save_trace(path, run.trace, [*run.pictures, *run.pictures])


def test_several_pictures_and_steering_are_told(vlm: Any, two: Any, tmp_path: Path) -> None:
    two.export(tmp_path / "two.safetensors")
    loaded = va.load_run(tmp_path / "two.safetensors")
    for image in (0, 1):
        same(loaded.map("red", image=image).patch_map, two.map("red", image=image).patch_map)
        assert np.array_equal(loaded.pictures[image].image, two.pictures[image].image)
    assert not load_trace(tmp_path / "two.safetensors").steered
    with vlm.steer(va.steering.PAI(alpha=0.3, first_layer=1)):
        steered = vlm.ask(two.pictures[0], "What is it?", answer="red")
    steered.export(tmp_path / "steered.safetensors")
    assert load_trace(tmp_path / "steered.safetensors").steered


def test_a_video_comes_back_with_its_frames_and_times(tmp_path: Path) -> None:
    frames = [Picture(Image.new("RGB", (40, 20), (n, 0, 0)), f"f{n}", ("note",)) for n in range(2)]
    video = va.Video(frames, fps=3.0, numbers=[1, 4], total=9, name="film ö.mp4", notes=("2 of 9 frames",))
    shown = traces.layout().images[0]
    tiles = (replace(shown.tiles[0], frames=(0,)), replace(shown.tiles[1], frames=(1,)))
    layout = replace(traces.layout(), images=(ImageLayout((40, 20), tiles, times=video.times),))
    held = load_trace(save_trace(tmp_path / "v.safetensors", traces.trace(layout=layout), [video]))
    (back,) = held.pictures
    assert isinstance(back, va.Video)
    assert (back.times, back.numbers, back.total, back.name, back.notes) == (
        video.times, video.numbers, video.total, video.name, video.notes,
    )  # fmt: skip
    assert np.array_equal(back.pixels, video.pixels)
    assert [frame.name for frame in back.frames] == ["f0", "f1"]
    assert held.trace.layout.images[0].times == video.times


# -- damage ------------------------------------------------------------------------------------------------------------


@pytest.mark.hostile
def test_a_file_cut_off_anywhere_gives_one_error(tmp_path: Path) -> None:
    whole = save_trace(tmp_path / "x.safetensors", traces.trace()).read_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1]:
        (tmp_path / "cut.safetensors").write_bytes(whole[:length])
        with pytest.raises(FileError, match=r"cut\.safetensors"):
            load_trace(tmp_path / "cut.safetensors")


@pytest.mark.hostile
def test_a_byte_changed_anywhere_is_noticed(tmp_path: Path) -> None:
    whole = save_trace(tmp_path / "x.safetensors", traces.trace()).read_bytes()
    rng = np.random.default_rng(0)
    for place in sorted({*rng.integers(0, len(whole), 150).tolist(), 8, len(whole) - 1}):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "bad.safetensors").write_bytes(bytes(damaged))
        with pytest.raises(FileError, match=r"bad\.safetensors"):
            load_trace(tmp_path / "bad.safetensors")


@pytest.mark.hostile
def test_foreign_files_are_refused_and_nothing_is_unpickled(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "evil.safetensors").write_bytes(pickle.dumps(Evil()))
    save_file({"w": np.zeros(3)}, str(tmp_path / "weights.safetensors"))
    save_file({"w": np.zeros(3)}, str(tmp_path / "other.safetensors"), metadata={"vlmattn": "x\n[]"})
    (tmp_path / "folder.safetensors").mkdir()
    messages = {
        "evil": "is not a trace that vlmattn wrote",
        "weights": "weights of a model",
        "other": "holds no trace of vlmattn",
        "folder": "is not a trace",
        "absent": "does not exist",
    }
    for name, message in messages.items():
        with pytest.raises(FileError, match=message):
            load_trace(tmp_path / f"{name}.safetensors")
    assert not (tmp_path / "ran").exists()


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "has format 2; this version reads 1"),
        ({"kind": "something"}, "holds no trace"),
        ({"trace": {}}, "not whole"),
        ({"pictures": [{"name": "x"}]}, "not whole"),
        ({"heads": {"a": {}}}, "not whole"),
    ],
)
def test_a_head_that_is_whole_and_wrong_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    from vlmattn.export.traces import _digest

    path = str(save_trace(tmp_path / "x.safetensors", traces.trace()))
    with safe_open(path, framework="numpy") as file:
        head = json.loads(file.metadata()["vlmattn"].partition("\n")[2]) | change
    arrays, text = load_file(path), json.dumps(head)
    arrays = {name: arrays[name] for name in sorted(arrays)}
    save_file(arrays, path, metadata={"vlmattn": f"{_digest(arrays, text)}\n{text}"})
    with pytest.raises(FileError, match=message):
        load_trace(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_trace(tmp_path / "x.safetensors", traces.trace())
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(FileError, match="No space left"):
        save_trace(path, traces.trace(depth=5))
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["x.bin", "x", "absent/x.safetensors"])
def test_a_place_that_cannot_be_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileError):
        save_trace(tmp_path / name, traces.trace())
