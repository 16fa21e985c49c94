"""One model, asked once, for all tests of exports; and looks made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

import vlmattn as va
from vlmattn.core.images import Picture
from vlmattn.core.layout import ImageLayout, Tile

ANSWER = "a red cup, no cup"


@pytest.fixture(scope="session")
def vlm() -> Any:
    return va.load("scene")


@pytest.fixture(scope="session")
def run(vlm: Any) -> Any:
    """An answer in which a word occurs twice, about a picture of odd size with a hostile name."""
    scene, _ = va.scene.split_item("test", seed=0, index=9)
    picture = Picture(scene.image.resize((201, 133)), "räd cup / 猫 <1>.jpg", ("EXIF orientation 6 applied",))
    return vlm.ask(picture, "Describe the picture.", answer=ANSWER)


@pytest.fixture(scope="session")
def two(vlm: Any) -> Any:
    """An answer about two different pictures of one name."""
    pictures = [Picture(va.scene.split_item("test", 0, n)[0].image, "same.png") for n in (1, 2)]
    return vlm.ask(pictures, "What differs?", answer="red cup")


def made(grid: Any, wh: tuple[int, int] = (40, 30), label: str = "cup", name: str = "hand.png") -> Any:
    """A look whose grid covers the picture evenly."""
    values = np.asarray(grid, dtype=np.float32)
    pixels = np.random.default_rng(1).integers(0, 255, (wh[1], wh[0], 3)).astype(np.uint8)
    layout = ImageLayout(wh, (Tile("base", values.shape, (0.0, 0.0, float(wh[0]), float(wh[1]))),))
    provenance = va.Provenance(model="hand", method="raw", question="What?", answer="cup")
    patch_map = va.PatchMap((values,), layout, provenance, label)
    return va.Look(patch_map, Picture(Image.fromarray(pixels), name))


PEAKED = [[0.0, 0.1, 0.0, 0.0], [0.0, 0.9, 0.8, 0.0], [0.2, 0.0, 0.0, 0.0]]
FLAT = [[0.25, 0.25], [0.25, 0.25]]
