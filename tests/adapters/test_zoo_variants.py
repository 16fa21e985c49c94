"""The relatives of Qwen-VL, and Inkling: what the processor makes by itself, where padding lies, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import TINY, cut_patches, dynamic_grid_variants
from vlmattn.adapters.registry import adapter_for
from vlmattn.core.errors import ImageError, LayoutError
from vlmattn.core.layout import TokenKind

KINDS = sorted({**cut_patches.MODELS, **dynamic_grid_variants.MODELS})


def noise(width: int, height: int) -> Any:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def built(kind: str) -> tuple[Any, Any]:
    model, processor = TINY[kind]()
    return adapter_for(model, processor), processor


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_two_pictures_are_prepared_as_the_processor_does_by_itself(kind: str) -> None:
    adapter, processor = built(kind)
    pictures = [noise(120, 60), noise(70, 150)]
    encoded = adapter.encode(pictures, "What is new?")
    layout = encoded.layouts[0]
    own = processor(images=pictures, text=[layout.text], return_tensors="pt")
    for name, value in encoded.inputs.items():
        # One prompt without padding; token types that are made on demand are not in the plain call.
        assert name not in own or torch.equal(own[name], value), name
    assert set(own) <= set(encoded.inputs)
    assert [adapter.plan(p.size, 2).layout for p in pictures] == list(layout.images)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_without_pictures_may_stand_beside_one_with(kind: str) -> None:
    adapter, _ = built(kind)
    encoded = adapter.encode([[], [noise(60, 90)]], ["Hello?", "And what is on this one?"], text_only=True)
    assert [len(layout.images) for layout in encoded.layouts] == [0, 1]


@pytest.mark.parametrize(
    ("kind", "image_wh", "grid_hw", "box"),
    [
        # Never enlarged; whole cells of 28 pixels.
        ("kimi_k25", (50, 30), (2, 2), (0.0, 0.0, 56.0, 56.0)),
        ("kimi_k25", (56, 28), (1, 2), (0.0, 0.0, 56.0, 28.0)),
        # At most 24 patches of 14 pixels along a side: 672 x 28 becomes 336 x 14, and 14 rows of padding are 28 before.
        ("kimi_k25", (672, 28), (1, 12), (0.0, 0.0, 672.0, 56.0)),
        # Three quarters, cut into squares of 20; one column more than fit.
        ("inkling_mm_model", (80, 40), (2, 4), (0.0, 0.0, 80 * 80 / 60, 40 * 40 / 30)),
        ("inkling_mm_model", (72, 48), (2, 3), (0.0, 0.0, 72 * 60 / 54, 48 * 40 / 36)),
        ("inkling2", (80, 41), (3, 4), (0.0, 0.0, 80.0, 60.0)),
    ],
)
def test_padding_lies_beyond_the_picture(kind: str, image_wh: Any, grid_hw: Any, box: Any) -> None:
    tile = built(kind)[0].plan(image_wh).layout.tiles[0]
    assert tile.grid_hw == grid_hw
    assert tile.source_box_xyxy == pytest.approx(box, abs=1e-9)


@pytest.mark.parametrize(("kind", "edges"), [("hunyuan_vl", 1), ("hy_v4_vl", 0)])
def test_rows_end_with_a_token_without_a_place(kind: str, edges: int) -> None:
    layout = built(kind)[0].encode([noise(130, 90)], "What?").layouts[0]
    (rows, cols), mine = layout.images[0].tiles[0].grid_hw, layout.image == 0
    want = [-1] * edges + [*range(cols), -1] * rows + [-1] * edges
    assert layout.col[mine].tolist() == want
    assert ((layout.kinds[mine] == TokenKind.SEPARATOR) == (layout.col[mine] < 0)).all()


@pytest.mark.parametrize(
    ("kind", "part", "name", "value"),
    [
        ("paddleocr_vl", "image_processor", "merge_size", 1),
        ("cosmos3_edge", "image_processor", "patch_size", 14),
        ("dots3_note", "image_processor", "temporal_patch_size", 2),
        ("kimi_k25", "image_processor", "merge_size", 4),
        ("hunyuan_vl", "processor", "cat_extra_token", False),
        ("hunyuan_vl", "image_processor", "spatial_patch_size", 2),
        ("nemotron_h_omni", "image_processor", "downsample_ratio", 0.25),
        ("inkling2", "image_processor", "size", {"height": 40, "width": 40}),
    ],
)
def test_a_processor_of_other_settings_is_refused(kind: str, part: str, name: str, value: Any) -> None:
    model, processor = TINY[kind]()
    setattr(processor if part == "processor" else processor.image_processor, name, value)
    with pytest.raises(LayoutError, match=f"disagree on (spatial_)?{name}"):
        adapter_for(model, processor)


@pytest.mark.parametrize(("kind", "image_wh"), [("nemotron_h_omni", (8000, 50)), ("hunyuan_vl", (1, 300))])
def test_shapes_that_cannot_be_prepared_are_refused(kind: str, image_wh: tuple[int, int]) -> None:
    adapter, _ = built(kind)
    with pytest.raises(ImageError, match="cannot prepare the pictures"):
        adapter.plan(image_wh)


def test_a_picture_that_is_scaled_to_nothing_is_refused() -> None:
    adapter, processor = built("inkling_mm_model")
    processor.image_processor.rescale_image_frac = 0.1
    with pytest.raises(ImageError, match="would make 30 x 0 pixels"):
        adapter.plan((300, 4))
