"""What families do of their own: exact boxes, what they refuse, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.tiny import TINY
from vlmattn.adapters import Adapter, adapter_for
from vlmattn.core.errors import ImageError, LayoutError, PromptError, UnsupportedModel
from vlmattn.core.layout import TokenKind

BUILT: dict[str, tuple[Any, Any]] = {}


def adapter(kind: str) -> Adapter:
    if kind not in BUILT:
        BUILT[kind] = TINY[kind]()
    return adapter_for(*BUILT[kind])


def picture(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (90, 120, 30))


@pytest.mark.parametrize(
    ("kind", "image_wh", "tiles"),
    [
        # 100 x 70 becomes 104 x 72, cells of 8 pixels.
        ("pixtral", (100, 70), [("base", (9, 13), (0, 0, 100, 70))]),
        # 100 x 70 becomes 112 x 80, cells of 16 pixels.
        ("mistral3", (100, 70), [("base", (5, 7), (0, 0, 100, 70))]),
        # 100 x 70 becomes 104 x 72: half a cell at the right and at the bottom is cut.
        ("lighton_ocr", (100, 70), [("base", (4, 6), (0, 0, 100 * 96 / 104, 70 * 64 / 72))]),
        # 100 x 50 becomes 60 x 30, with 15 pixels above and below.
        ("deepseek_vl", (100, 50), [("base", (6, 6), (0, -25, 100, 75))]),
        # 128 x 43, with 42 pixels above and 43 below, is 60 x 60 in the end.
        ("deepseek_vl_hybrid", (120, 40), [("base", (6, 6), (0, -42 * 40 / 43, 120, 40 + 43 * 40 / 43))]),
        ("fuyu", (55, 31), [("base", (4, 6), (0, 0, 60, 40))]),
        # 180 x 60 becomes 90 x 30.
        ("fuyu", (180, 60), [("base", (3, 9), (0, 0, 180, 60))]),
        # 112 x 56 becomes 112 x 56 and is cut to its middle.
        ("chameleon", (112, 56), [("base", (7, 7), (28, 0, 84, 56))]),
        ("lfm2_vl", (60, 60), [("base", (4, 4), (0, 0, 60, 60))]),
        (
            "lfm2_vl",
            (300, 150),
            [
                ("crop", (4, 4), (0, 0, 150, 150)),
                ("crop", (4, 4), (150, 0, 300, 150)),
                ("thumbnail", (2, 5), (0, 0, 300, 150)),
            ],
        ),
    ],
)
def test_boxes(kind: str, image_wh: tuple[int, int], tiles: list[tuple[str, tuple[int, int], Any]]) -> None:
    made = adapter(kind).plan(image_wh).layout.tiles
    assert [(t.kind, t.grid_hw) for t in made] == [(k, g) for k, g, _ in tiles]
    assert np.allclose([t.source_box_xyxy for t in made], [box for *_, box in tiles])


@pytest.mark.parametrize(
    ("kind", "change", "match"),
    [
        ("pixtral", lambda m, p: setattr(p, "spatial_merge_size", 2), "disagree on spatial_merge_size"),
        ("pixtral", lambda m, p: setattr(p.image_processor, "do_pad", False), "must have do_pad=True"),
        ("pixtral", lambda m, p: setattr(m.config, "vision_feature_select_strategy", "default"), "no CLS token"),
        (
            "gemma4",
            lambda m, p: setattr(p.image_processor, "pooling_kernel_size", 3),
            "disagree on pooling_kernel_size",
        ),
        ("gemma4", lambda m, p: setattr(p.image_processor, "do_resize", False), "disagree on do_resize"),
        ("janus", lambda m, p: setattr(p, "use_default_system_prompt", True), "use_default_system_prompt to False"),
        ("janus", lambda m, p: setattr(p, "num_image_tokens", 35), "disagree on num_image_tokens"),
        ("deepseek_vl", lambda m, p: setattr(p.image_processor, "do_pad", False), "do_resize and do_pad"),
        ("lfm2_vl", lambda m, p: setattr(p.image_processor, "tile_size", 72), "multiple of the 16 pixels of a cell"),
        ("chameleon", lambda m, p: setattr(p, "image_seq_length", 50), "disagree on image_seq_length"),
        ("emu3", lambda m, p: setattr(p.image_processor, "spatial_factor", 4), "disagree on spatial_factor"),
        ("fuyu", lambda m, p: setattr(p.image_processor, "do_pad", False), "disagree on do_pad"),
    ],
)
def test_processors_that_do_not_fit_are_refused(kind: str, change: Callable[[Any, Any], None], match: str) -> None:
    model, processor = TINY[kind]()
    change(model, processor)
    with pytest.raises(LayoutError, match=match):
        adapter_for(model, processor)


@pytest.mark.parametrize("kind", ["mistral3", "deepseek_vl", "lfm2_vl"])
def test_towers_whose_tokens_are_not_known_are_refused(kind: str) -> None:
    from transformers import CLIPVisionConfig

    model, processor = TINY[kind]()
    model.config.vision_config = CLIPVisionConfig()
    with pytest.raises(UnsupportedModel, match=f"'clip_vision_model' is not supported with '{kind}'"):
        adapter_for(model, processor)


@pytest.mark.parametrize(
    ("kind", "image_wh", "match"),
    [
        ("mistral3", (9, 9), "makes a single image token"),
        ("lighton_ocr", (8, 40), "holds no cell of 16 pixels"),
        ("fuyu", (4000, 20), "cut it into less extreme parts"),
        ("lfm2_vl", (6000, 20), "cannot prepare the pictures"),
    ],
)
def test_pictures_that_cannot_be_prepared(kind: str, image_wh: tuple[int, int], match: str) -> None:
    with pytest.raises(ImageError, match=match):
        adapter(kind).encode([picture(*image_wh)], "What?")


@pytest.mark.parametrize(
    ("pictures", "prompt", "match"),
    [
        (1, "What |SPEAKER|?", "its place is before all words"),
        (2, "|SPEAKER||SPEAKER|What?", "2 pictures, but fuyu takes at most 1"),
        (0, "What?", "fuyu takes exactly one picture per prompt"),
    ],
)
def test_fuyu_takes_one_picture_before_all_words(pictures: int, prompt: str, match: str) -> None:
    with pytest.raises(PromptError, match=match):
        adapter("fuyu").encode([picture(30, 30)] * pictures, prompt, raw=True, text_only=True)


@pytest.mark.parametrize("prompt", ["What?", "<s>user: <image>What? assistant:"])
def test_emu3_writes_the_first_token_once(prompt: str) -> None:
    layout = adapter("emu3").encode([picture(60, 40)], prompt, raw="<image>" in prompt).layouts[0]
    assert (layout.input_ids == adapter("emu3").tokenizer.bos_token_id).sum() == 1
    assert layout.kinds[0] == TokenKind.BOS
    assert layout.text.startswith("<s>user: ")


def test_what_a_processor_appends_has_no_characters_of_the_prompt() -> None:
    layout = adapter("chameleon").encode([picture(60, 40)], "What?").layouts[0]
    assert layout.input_ids[-1] == adapter("chameleon").tokenizer.sep_token_id
    assert layout.char_span[-1].tolist() == [-1, -1]
    assert layout.char_span.max() <= len(layout.text)


def test_layers_that_share_keys_are_made_to_compute_all_rows() -> None:
    assert adapter("gemma4").generation()["logits_to_keep"].tolist() == [-1]
    assert adapter("gemma4_unified").generation() == {}
    assert adapter("pixtral").generation() == {}
