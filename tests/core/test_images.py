"""Pictures from every source, and one clear error for every broken one."""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from vlmattn.core import images
from vlmattn.core.errors import ImageError
from vlmattn.core.images import load_image

RNG = np.random.default_rng(7)
PIXELS = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def png(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, options.pop("kind", "PNG"), **options)
    return stream.getvalue()


def claimed_png(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its few bytes do not hold."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")


def deep_rgb_png() -> bytes:
    """16 bits for each of three channels; Pillow cannot write this kind, only read it."""
    rows = b"".join(b"\0" + b"\x80\x00" * 9 for _ in range(2))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_every_source_gives_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(Image.fromarray(PIXELS)))
    with path.open("rb") as file:
        sources = [path, str(path), path.read_bytes(), bytearray(path.read_bytes()), memoryview(path.read_bytes())]
        for source in [*sources, file, Image.fromarray(PIXELS), PIXELS, PIXELS.astype(np.uint16) * 257, PIXELS / 255.0]:
            picture = load_image(source)
            assert picture.wh == (9, 6)
            assert picture.image.mode == "RGB"
            assert np.array_equal(np.asarray(picture.image), PIXELS)
    assert load_image(picture) is picture
    path.unlink()  # nothing holds the file


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(PIXELS)
    picture = load_image(png(stored, exif=exif.tobytes()))
    turned = stored.copy()
    turned.getexif()[0x0112] = orientation
    assert np.array_equal(np.asarray(picture.image), np.asarray(ImageOps.exif_transpose(turned)))
    assert picture.wh == ((9, 6) if orientation < 5 else (6, 9))
    assert picture.notes == (() if orientation == 1 else (f"EXIF orientation {orientation} applied",))


def rgba(alpha: int) -> Image.Image:
    return Image.new("RGBA", (2, 2), (200, 0, 0, alpha))


@pytest.mark.parametrize(
    ("content", "colour", "note"),
    [
        (png(rgba(0)), (255, 255, 255), "transparency laid on white"),
        (png(rgba(255)), (200, 0, 0), "transparency laid on white"),
        (png(Image.new("LA", (2, 2), (9, 0))), (255, 255, 255), "transparency laid on white"),
        (png(Image.new("P", (2, 2), 0), transparency=0), (255, 255, 255), "transparency laid on white"),
        (png(Image.new("RGB", (2, 2), (1, 2, 3)).quantize(4)), (1, 2, 3), ""),
        (png(Image.new("L", (2, 2), 77)), (77, 77, 77), ""),
        (png(Image.new("1", (2, 2), 1)), (255, 255, 255), ""),
        (png(Image.new("CMYK", (2, 2), (0, 0, 0, 0)), kind="JPEG"), (255, 255, 255), "CMYK converted"),
        (png(Image.fromarray(np.full((2, 2), 65535, np.uint16))), (255, 255, 255), "scaled to 8 bits"),
        (png(Image.fromarray(np.full((2, 2), 200, np.uint16))), (1, 1, 1), "0 to 65535 scaled to 8 bits"),
        (deep_rgb_png(), (128, 128, 128), "16-bit values scaled to 8 bits"),
        (png(Image.fromarray(np.full((2, 2), 0.5, np.float32)), kind="TIFF"), (128, 128, 128), "scaled to 8 bits"),
        (
            png(Image.new("RGB", (2, 2), (250, 0, 0)), kind="GIF", save_all=True, append_images=[rgba(255)] * 2),
            (250, 0, 0),
            "first of 2 frames",
        ),
    ],
)
def test_every_mode_becomes_rgb_and_says_how(content: bytes, colour: tuple[int, int, int], note: str) -> None:
    picture = load_image(content)
    assert picture.image.mode == "RGB"
    assert picture.image.getpixel((0, 0)) == colour
    assert note in "; ".join(picture.notes)
    assert bool(note) == bool(picture.notes)


@pytest.mark.parametrize("wh", [(1, 1), (1, 10000), (10000, 1)])
def test_extreme_shapes_are_read(wh: tuple[int, int]) -> None:
    assert load_image(png(Image.new("RGB", wh))).wh == wh


@pytest.mark.parametrize(
    ("shape", "dtype"), [((4, 5), np.uint8), ((4, 5, 1), np.uint8), ((4, 5, 4), np.uint8), ((4, 5), bool)]
)
def test_arrays_of_every_allowed_shape(shape: tuple[int, ...], dtype: type) -> None:
    assert load_image(np.ones(shape, dtype)).wh == (5, 4)


def test_a_given_picture_keeps_its_frame() -> None:
    frames = [Image.new("RGB", (2, 2), (i * 50, 0, 0)) for i in range(1, 4)]
    held = Image.open(io.BytesIO(png(frames[0], kind="GIF", save_all=True, append_images=frames[1:])))
    held.seek(1)
    assert load_image(held).notes[0] == "number 2 of 3 frames"
    assert held.tell() == 1


JPEG = png(Image.fromarray(RNG.integers(0, 256, (200, 200, 3), dtype=np.uint8)), kind="JPEG")


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("no/such/file.png", "does not exist"),
        (".", "is a folder"),
        ("", "path of the picture is empty"),
        ("a" * 5000, "cannot be read"),
        ("~nobody-of-that-name/a.png", "cannot be read"),
        ("a\0b", "cannot be read"),
        ("/dev/zero", "is a device"),
        ("https://example.org/a.png", "download"),
        ("HTTPS://example.org/a.png", "download"),
        ("s3://bucket/a.png", "download"),
        ("data:image/png;base64,AAAA", "download"),
        (b"", "is empty"),
        (b"hello", "not a picture"),
        (JPEG[: len(JPEG) // 2], "damaged or cut off"),
        (png(Image.fromarray(PIXELS))[:60], "damaged or cut off"),
        (claimed_png(30000, 30000), "raise max_pixels"),
        (claimed_png(15000, 11935), "raise max_pixels"),
        (Image.open(io.BytesIO(JPEG[: len(JPEG) // 2])), "damaged or cut off"),
        (io.StringIO("text"), "binary mode"),
        (np.zeros((0, 5), np.uint8), "no pixels"),
        (np.zeros(5, np.uint8), "shape"),
        (np.zeros((2, 2, 2), np.uint8), "shape"),
        (np.zeros((2, 2), np.int64), "int64"),
        (np.array([[np.nan]]), "NaN"),
        (np.array([[1.5]]), "between 0 and 1"),
        (np.array([[-0.5]]), "between 0 and 1"),
        (Image.fromarray(np.full((2, 2), np.nan, np.float32)), "NaN"),
        (Image.fromarray(np.full((2, 2), -3, np.int32)), "scale them"),
        (None, "NoneType"),
        (3, "int"),
    ],
)
def test_each_bad_picture_gets_one_clear_error(source: Any, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        load_image(source)


@pytest.mark.hostile
def test_a_closed_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "shut.png"
    path.write_bytes(b"x")
    with path.open("rb") as file:
        pass
    with pytest.raises(ImageError, match=r"shut\.png cannot be read"):
        load_image(file)


@pytest.mark.hostile
def test_the_limit_can_be_lowered_and_raised_and_pillow_is_left_as_it_was() -> None:
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match="over the limit of 10"):
        load_image(PIXELS, max_pixels=10)
    with pytest.raises(ImageError, match="damaged or cut off"):  # past the limit, and then found to hold nothing
        load_image(claimed_png(30000, 30000), max_pixels=10**9)
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.hostile
def test_a_torch_tensor_is_told_what_to_be() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(ImageError, match="torch tensor of shape"):
        load_image(torch.zeros(3, 4, 4))


@pytest.mark.hostile
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_flipped_bytes_give_a_picture_or_an_image_error(kind: str) -> None:
    rng = np.random.default_rng(3)
    content = png(Image.fromarray(PIXELS), kind=kind)
    for _ in range(60):
        broken = bytearray(content)
        for at in rng.integers(0, len(broken), 3):
            broken[at] = int(rng.integers(0, 256))
        try:
            load_image(bytes(broken), max_pixels=10**6)
        except ImageError:
            continue


@pytest.mark.hostile
def test_a_pipe_that_nobody_writes_to_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(images, "PIPE_PATIENCE", 0.05)
    with pytest.raises(ImageError, match="pipe that nothing was written to"):
        load_image(tmp_path / "pipe")


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    def write() -> None:
        with (tmp_path / "pipe").open("wb") as file:
            for first in range(0, len(JPEG), 1000):
                file.write(JPEG[first : first + 1000])
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    assert load_image(tmp_path / "pipe").wh == load_image(JPEG).wh
    writer.join()


@pytest.mark.hostile
@pytest.mark.parametrize("values", [np.full((2, 2), np.nan, np.float32), np.full((2, 2), 1e9, np.float32)])
def test_values_that_are_no_picture_name_the_file(tmp_path: Path, values: Any) -> None:
    Image.fromarray(values).save(tmp_path / "depth.tiff")
    with pytest.raises(ImageError, match=r"depth\.tiff holds"):
        load_image(tmp_path / "depth.tiff")
