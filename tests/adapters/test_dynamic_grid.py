"""Grids that follow the picture: published sizes by hand, several pictures, padding, and settings that disagree."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import transformers
from PIL import Image
from transformers.models.glm5_next.image_processing_pil_glm5_next import Glm5NextImageProcessorPil

from tests.tiny.dynamic_grid import KINDS, MODELS, build
from vlmattn.adapters import adapter_for
from vlmattn.adapters.paint import merged_embeddings, unmixed
from vlmattn.core.errors import LayoutError

QWEN2_5 = {"size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 16384}}
QWEN3 = {"patch_size": 16, "size": {"shortest_edge": 256 * 256, "longest_edge": 4096 * 4096}}


@pytest.mark.parametrize(
    ("kind", "pixels", "image_wh", "grid_hw"),
    [
        # 640 / 28 = 22.9, 480 / 28 = 17.1; 1999 / 28 = 71.4, 1511 / 28 = 53.96.
        ("qwen2_5_vl", QWEN2_5, (640, 480), (17, 23)),
        ("qwen2_5_vl", QWEN2_5, (1999, 1511), (54, 71)),
        # 1999 x 1511 is 3.01 times 1280 cells of 28 pixels: both sides are divided by 1.735, and rounded down.
        ("qwen2_vl", {}, (1999, 1511), (31, 41)),
        # 640 / 32 = 20, 480 / 32 = 15; 1999 / 32 = 62.5, 1511 / 32 = 47.2.
        ("qwen3_vl", QWEN3, (640, 480), (15, 20)),
        ("qwen3_vl", QWEN3, (1999, 1511), (47, 62)),
        ("glm4v", {}, (640, 480), (17, 23)),
        ("glm4v", {}, (1999, 1511), (54, 71)),
        # Rounded up, and padded.
        ("glm5_next", {}, (640, 480), (18, 23)),
        ("glm5_next", {}, (1999, 1511), (54, 72)),
        # Patches of 14 pixels are not merged.
        ("video_llama_3", {}, (640, 480), (34, 46)),
        ("video_llama_3", {}, (1999, 1511), (62, 82)),
    ],
)
def test_published_settings_give_the_grid_that_is_found_by_hand(
    kind: str, pixels: dict[str, Any], image_wh: tuple[int, int], grid_hw: tuple[int, int]
) -> None:
    plan = adapter_for(*build(replace(KINDS[kind], pixels=pixels))).plan(image_wh)
    assert plan.layout.tiles[0].grid_hw == grid_hw
    assert len(plan) == grid_hw[0] * grid_hw[1]


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "glm4v", "glm5_next", "video_llama_3"])
def test_pictures_of_one_prompt_are_told_apart(kind: str) -> None:
    adapter = adapter_for(*MODELS[kind]())
    sizes = ((180, 120), (100, 260))
    grey = [np.full((h, w, 3), 96, dtype=np.uint8) for w, h in sizes]

    def run(pictures: list[Any]) -> tuple[Any, Any]:
        shown = [Image.fromarray(p) for p in pictures]
        encoded = adapter.encode([shown, shown[1:]], ["What is here?", "And here?"])
        return encoded, merged_embeddings(adapter.model, encoded.inputs).numpy()

    with unmixed(adapter.model):
        encoded, plain = run(grey)
        for number in (0, 1):
            x0, y0, x1, y1 = encoded.layouts[0].images[number].tiles[0].cell_box(1, 2)
            painted = [p.copy() for p in grey]
            painted[number][math.ceil(y0 + 1) : math.floor(y1 - 1), math.ceil(x0 + 1) : math.floor(x1 - 1)] = 255
            change = np.linalg.norm(run(painted)[1] - plain, axis=-1)
            layout = encoded.layouts[0]
            top = int(change[0, encoded.pad_left[0] :].argmax())
            assert (layout.image[top], layout.row[top], layout.col[top]) == (number, 1, 2)
            assert (change[1].max() > 0) == (number == 1)


@pytest.mark.parametrize(
    ("image_wh", "box"),
    [
        ((96, 96), (0.0, 0.0, 112.0, 112.0)),  # padded to 4 x 4 cells of 28 pixels
        ((112, 84), (0.0, 0.0, 112.0, 84.0)),  # whole cells already
        ((20, 10), (0.0, 0.0, 20.0, 10 * 56 / 42)),  # enlarged 4.2 times, to 84 x 42 pixels in 3 x 2 cells
    ],
)
def test_a_padded_view_reaches_beyond_the_picture(
    image_wh: tuple[int, int], box: tuple[float, float, float, float]
) -> None:
    tile = adapter_for(*MODELS["glm5_next"]()).plan(image_wh).layout.tiles[0]
    assert tile.source_box_xyxy == pytest.approx(box)


@pytest.mark.parametrize("cls", [transformers.Glm5NextImageProcessor, Glm5NextImageProcessorPil])
@pytest.mark.parametrize(
    "settings",
    [
        {"min_image_tokens": 4, "max_image_tokens": 24},
        {"min_image_tokens": 16, "max_image_tokens": 100, "patch_expand_factor": 2},
    ],
)
def test_the_padding_is_where_the_processor_puts_it(cls: Any, settings: dict[str, int]) -> None:
    model, processor = MODELS["glm5_next"]()
    processor.image_processor = cls(**settings, do_normalize=False, resample=0)
    adapter = adapter_for(model, processor)
    rng = np.random.default_rng(0)
    for width, height in (2 ** rng.uniform(0, 9, (40, 2))).astype(int).tolist():
        made = processor.image_processor(Image.new("RGB", (width, height), "white"), return_tensors="pt")
        _, rows, cols = made["image_grid_thw"][0].tolist()
        patches = made["pixel_values"].reshape(rows // 2, cols // 2, 2, 2, 3, 2, 14, 14)[..., 0, 0, :, :]
        pixels = patches.permute(0, 2, 4, 1, 3, 5).reshape(rows * 14, cols * 14)
        white_wh = int((pixels[0] > 0.5).sum()), int((pixels[:, 0] > 0.5).sum())
        box = adapter.plan((width, height)).layout.tiles[0].source_box_xyxy
        assert box == pytest.approx((0, 0, width * cols * 14 / white_wh[0], height * rows * 14 / white_wh[1]))


@pytest.mark.parametrize("setting", ["merge_size", "patch_size", "temporal_patch_size"])
def test_a_processor_of_another_model_is_refused(setting: str) -> None:
    model, processor = MODELS["qwen2_5_vl"]()
    setattr(processor.image_processor, setting, 4)
    with pytest.raises(LayoutError, match=rf"disagree on \w*{setting}: the processor says 4, the model \d+"):
        adapter_for(model, processor)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_is_loaded_by_name(kind: str) -> None:
    mapping = transformers.AutoModelForImageTextToText._model_mapping
    config = getattr(transformers, KINDS[kind].config)
    assert config.model_type == kind
    assert mapping[config].__name__ == KINDS[kind].model
