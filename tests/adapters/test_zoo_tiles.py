"""Families that see tiles: grids and boxes at the sizes of published checkpoints, and in corner cases, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from skimage import data

from tests.tiny import TINY
from vlmattn.adapters import adapter_for, check_config
from vlmattn.adapters.registry import _FAMILIES
from vlmattn.api.vlm import Vlm
from vlmattn.core.errors import ImageError, LayoutError, UnsupportedModel
from vlmattn.core.layout import ImageLayout

VGA, PHOTO = (640, 480), (1999, 1511)
CROPS = {"crop_to_patches": True, "min_patches": 1, "max_patches": 12}


def square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def times(count: int, side: int) -> list[tuple[int, int]]:
    return [(side, side)] * count


# Settings of the image processor, of the processor and of vision_config; grids of a VGA picture and of a photograph.
PUBLISHED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], list[Any], list[Any]]] = {
    "aya_vision": (
        CROPS | {"size": square(364)},
        {"patch_size": 14, "img_size": 364, "downsample_factor": 2},
        {"image_size": 364},
        times(13, 13),
        times(13, 13),
    ),
    "cohere2_vision": ({}, {}, {"image_size": 512, "patch_size": 16}, times(3, 16), times(13, 16)),
    "granite_docling": ({}, {"image_seq_len": 64}, {"image_size": 512, "patch_size": 16}, times(13, 8), times(13, 8)),
    "idefics3": ({}, {"image_seq_len": 169}, {"image_size": 364, "patch_size": 14}, times(13, 13), times(17, 13)),
    "internvl": (
        CROPS | {"size": square(448)},
        {"image_seq_length": 256},
        {"image_size": (448, 448), "patch_size": (14, 14)},
        times(13, 16),
        times(13, 16),
    ),
    "llama4": ({}, {"patch_size": 14}, {"image_size": 336, "patch_size": 14}, times(5, 12), times(17, 12)),
    "minicpm_ocr": ({}, {}, {"patch_size": 14}, [(14, 18), (20, 13), (20, 13)], [(14, 18)] * 10),
    "minicpmv4_6": ({}, {}, {"patch_size": 14}, [(7, 9), (10, 7), (10, 7)], [(7, 9)] * 10),
    "molmo2": ({}, {}, {"image_size": [378, 378], "patch_size": 14}, [(14, 14), (23, 23)], [(14, 14), (23, 33)]),
    "ovis2": (
        CROPS | {"size": square(448), "max_patches": 9},
        {"image_seq_length": 256},
        {"image_size": 448, "patch_size": 14},
        times(5, 16),
        times(10, 16),
    ),
    "smolvlm": (
        {"size": {"longest_edge": 1536}, "max_image_size": {"longest_edge": 512}},
        {"image_seq_len": 64},
        {"image_size": 512, "patch_size": 16},
        times(10, 8),
        times(10, 8),
    ),
    "step3p7": ({}, {}, {"image_size": 728, "patch_size": 14}, times(1, 13), [*times(12, 9), (13, 13)]),
}


def published(name: str) -> Any:
    """The adapter of a family with the sizes of a published checkpoint."""
    images, told, vision, _, _ = PUBLISHED[name]
    model, tiny = TINY[name]()
    for key, value in vision.items():
        setattr(model.config.vision_config, key, value)
    model.config.get_text_config().max_position_embeddings = 32768
    parts = {"image_processor": type(tiny.image_processor)(**images), "tokenizer": tiny.tokenizer}
    if hasattr(tiny, "video_processor"):
        parts["video_processor"] = tiny.video_processor
    processor = type(tiny)(**parts, **told, chat_template=tiny.chat_template)
    spec, cls = _FAMILIES[check_config(model.config).name]
    return cls(spec, SimpleNamespace(config=model.config), processor)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_sizes(name: str) -> None:
    # Encoding itself compares the tokens that the processor writes with the grids.
    adapter = published(name)
    for size, grids in zip((VGA, PHOTO), PUBLISHED[name][3:], strict=True):
        layout = adapter.encode([Image.new("RGB", size)], "What?").layouts[0].images[0]
        assert [tile.grid_hw for tile in layout.tiles] == grids


def plan(name: str, size: tuple[int, int]) -> ImageLayout:
    layout: ImageLayout = adapter_for(*TINY[name]()).plan(size).layout
    return layout


def test_llama4_pads_at_the_right_and_bottom() -> None:
    # 100 x 80 grows by no more than fits 112 x 112: not at all. Two tiles of 56 pixels a side.
    layout = plan("llama4", (100, 80))
    boxes = [tile.source_box_xyxy for tile in layout.tiles]
    assert boxes == [(0, 0, 56, 56), (56, 0, 112, 56), (0, 56, 56, 112), (56, 56, 112, 112), (0, 0, 100, 80)]


def test_step_has_no_place_for_windows_of_padding() -> None:
    # 10 x 300 is padded to 300 x 300, stretched to 6 x 6 windows: only those on the left hold some of it.
    layout = plan("step3p7", (10, 300))
    assert (layout.views, len(layout.tiles)) == (37, 7)
    assert [tile.source_box_xyxy for tile in layout.tiles[:2]] == [(0, 0, 50, 50), (0, 50, 50, 100)]
    assert layout.tiles[-1].source_box_xyxy == (0, 0, 300, 300)


def test_molmo_pools_what_is_left_over_alone() -> None:
    # 9 patches of 7 pixels in cells of two: the last holds one patch.
    tile = plan("molmo2", (63, 126)).tiles[0]
    assert (tile.grid_hw, tile.source_box_xyxy) == ((5, 5), (0, 0, 63, 126))
    assert tile.col_spans == ((0, 14), (14, 28), (28, 42), (42, 56), (56, 63))
    assert tile.row_spans == ((0, 28), (28, 56), (56, 84), (84, 112), (112, 126))


def test_unlimited_joins_its_tiles_and_pads_the_whole() -> None:
    # Tiles of 64 pixels with two cells: middles of what they see at 4 and 36 pixels.
    tiles, whole = plan("unlimited_ocr", (128, 64)).tiles
    assert (tiles.kind, tiles.grid_hw) == ("tiles", (2, 4))
    assert tiles.col_spans == ((0, 20), (20, 64), (64, 84), (84, 128))
    assert whole.source_box_xyxy == (0, -32, 128, 96)
    with pytest.raises(ImageError, match="too thin"):
        plan("unlimited_ocr", (8000, 20))


def test_sizes_that_are_chosen_by_content_are_refused() -> None:
    model, processor = TINY["minicpm_ocr"]()
    processor.image_processor.small_image_upsize = "adaptive"
    with pytest.raises(UnsupportedModel, match="set it to 'always' or 'never'"):
        adapter_for(model, processor)


def test_another_size_than_the_tower_takes_is_refused() -> None:
    model, processor = TINY["internvl"]()
    processor.image_processor.size = square(112)
    with pytest.raises(LayoutError, match="112 x 112 pixels, but the vision tower takes 56 x 56"):
        adapter_for(model, processor)


def test_a_release_that_cannot_run_llama4_says_so_and_the_way_out_works() -> None:
    model, processor = TINY["llama4"]()
    hooks = model.language_model._forward_hooks
    hooks.clear()
    with pytest.raises(UnsupportedModel, match=r"cannot run Llama 4 itself: .* Install a version that can, or") as told:
        adapter_for(model, processor)
    assert "\n" not in str(told.value)
    eval(str(told.value).rpartition("handed over: ")[2], {"model": model})
    assert Vlm(model, processor, name="llama4").ask(data.coffee()[:60, :90], "What?", max_new_tokens=2).trace.layers
