"""Photographs as they come: rotated by EXIF, grey, with alpha; from the file to the pixel that a token looks at."""

from __future__ import annotations

import io
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_images

import vlmattn as va
from tests.tiny_models import tiny
from vlmattn.adapters.paint import merged_embeddings, unmixed
from vlmattn.cli import main

QUESTION = "Is there a red cup?"
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llava": ("llava", {}),
    "llava padded": ("llava", {"do_pad": True}),
    "llava_next": ("llava_next", {}),
    "llava_onevision": ("llava_onevision", {"image_size": 60, "aspect": "anyres_max_9"}),
}
# What undoes each EXIF orientation, as array operations of our own.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@lru_cache(maxsize=8)
def vlm(name: str) -> va.Vlm:
    if name == "scene":
        return va.load("scene")
    family, options = MODELS[name]
    return va.load(*tiny(family, **options))


def photographs() -> dict[str, np.ndarray]:
    china, flower = load_sample_images().images
    return {"coffee": data.coffee(), "cat": data.chelsea(), "china": china, "flower": flower}


def tagged(pixels: np.ndarray, orientation: int, kind: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, exif=exif)
    return stream.getvalue()


def copies(pixels: np.ndarray) -> dict[str, bytes]:
    """The same photograph as a grey and as an RGBA file."""
    grey, alpha = io.BytesIO(), io.BytesIO()
    Image.fromarray(pixels).convert("L").save(grey, "PNG")
    clear = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    clear[:, : pixels.shape[1] // 2, 3] = 0
    Image.fromarray(clear).save(alpha, "PNG")
    return {"grey": grey.getvalue(), "alpha": alpha.getvalue()}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_the_picture_is_upright_whatever_the_file_says(orientation: int) -> None:
    pixels = data.coffee()[:60, :100]
    picture = va.load_image(tagged(pixels, orientation))
    assert np.array_equal(np.asarray(picture.image), UPRIGHT[orientation](pixels))


@pytest.mark.parametrize("model", ["scene", *MODELS])
@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_a_rotated_file_gives_the_map_of_its_upright_picture(model: str, orientation: int) -> None:
    pixels = np.ascontiguousarray(data.coffee()[:150, :240])
    rotated = vlm(model).ask(tagged(pixels, orientation), QUESTION, answer="yes")
    upright = vlm(model).ask(np.ascontiguousarray(UPRIGHT[orientation](pixels)), QUESTION, answer="yes")
    one, other = rotated.map("cup"), upright.map("cup")
    assert one.pixels.image_wh == ((240, 150) if orientation < 5 else (150, 240))
    assert np.array_equal(one.pixels.values, other.pixels.values)
    assert np.array_equal(one.pixels.seen, other.pixels.seen)
    assert one.peak_xy == other.peak_xy


@pytest.mark.parametrize("model", ["scene", *MODELS])
@pytest.mark.parametrize("photograph", ["coffee", "cat", "china", "flower"])
def test_photographs_and_their_copies(model: str, photograph: str) -> None:
    pixels = photographs()[photograph]
    height, width = pixels.shape[:2]
    looks = {"colour": vlm(model).ask(pixels, QUESTION, answer="yes").map("cup")}
    for name, file in copies(pixels).items():
        looks[name] = vlm(model).ask(file, QUESTION, answer="yes").map("cup")
    for look in looks.values():
        assert look.pixels.values.shape == (height, width)
        x, y = look.peak_xy
        assert look.pixels.seen[int(y), int(x)]
        assert look.overlay().image.size == (width, height)
    values = [look.patch_map.values[0] for look in looks.values()]
    assert not np.allclose(values[0], values[1], rtol=1e-3)  # grey is another picture
    assert not np.allclose(values[0], values[2], rtol=1e-3)  # half of it is clear


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", ["grey", "alpha", "JPEG"])
def test_the_command_line_takes_the_same_files(
    kind: str, orientation: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = data.coffee()[:150, :240]
    shown = pixels[..., 0] if kind == "grey" else pixels
    if kind == "alpha":
        shown = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    file = tmp_path / "photo"
    file.write_bytes(tagged(np.ascontiguousarray(shown), orientation, "JPEG" if kind == "JPEG" else "PNG"))
    with pytest.raises(SystemExit) as done:
        main(["map", str(file), QUESTION, "cup", "--answer", "yes", "-o", str(tmp_path / "m.png"), "--json"])
    assert done.value.code in (0, None)
    told = json.loads(capsys.readouterr().out)
    assert told["image_wh"] == ([240, 150] if orientation == 1 else [150, 240])
    look = vlm("scene").ask(file, QUESTION, answer="yes").map("cup")
    assert told["peak_xy"] == pytest.approx(look.peak_xy)
    assert va.overlay.read_provenance(tmp_path / "m.png")["label"] == told["label"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_from_a_painted_spot_in_a_rotated_file_to_the_pixel(model: str, orientation: int) -> None:
    """A spot in the file changes one token most; the look made of these changes has its peak on the spot."""
    grey = np.full((130, 210, 3), 96, np.uint8)
    spotted = grey.copy()
    spotted[60:72, 96:108] = 255
    upright = UPRIGHT[orientation](spotted)
    ys, xs = np.nonzero(upright[..., 0] == 255)
    spot = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)

    def embedded(pixels: np.ndarray) -> tuple[np.ndarray, Any, Any]:
        pictures = vlm(model)._pictures(tagged(pixels, orientation))
        encoded = vlm(model).encode([pictures], ["?"])
        return merged_embeddings(vlm(model).model, encoded.inputs)[0].numpy(), encoded.layouts[0], pictures[0]

    with unmixed(vlm(model).model):
        before, layout, _ = embedded(grey)
        after, _, picture = embedded(spotted)
    change = np.linalg.norm(after - before, axis=1)
    look = va.Look(va.PatchMap.from_vector(change[layout.image_positions], layout), picture)
    top = int(layout.image_positions[change[layout.image_positions].argmax()])
    box = layout.images[0].tiles[layout.tile[top]].cell_box(int(layout.row[top]), int(layout.col[top]))
    assert look.patch_map.peak().box_xyxy == box
    assert box[0] < spot[2]
    assert spot[0] < box[2]
    assert box[1] < spot[3]
    assert spot[1] < box[3]
    inside = look.pixels.values[spot[1] : spot[3], spot[0] : spot[2]].mean()
    assert inside > 2 * look.pixels.values.mean()
    x, y = look.peak_xy
    assert abs(x - (spot[0] + spot[2]) / 2) < 34
    assert abs(y - (spot[1] + spot[3]) / 2) < 34
