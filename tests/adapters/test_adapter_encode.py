"""What encode gives for every family: inputs that the model takes, and a layout that says what each token is."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from tests.tiny_models import FAMILIES, build, tiny
from vlmattn.adapters import adapter_for
from vlmattn.core.errors import ImageError, LayoutError, ModelError, PromptError
from vlmattn.core.layout import TokenKind

MADE = [
    ("llava", {}),
    ("llava", {"strategy": "full", "tower": "clip"}),
    ("llava", {"tower": "siglip"}),
    ("llava", {"tower": "siglip", "image_size": 60}),
    ("llava", {"do_pad": True}),
    ("vipllava", {}),
    ("llava_next", {}),
    ("llava_next", {"tower": "siglip"}),
    ("llava_onevision", {}),
]
ASTRONAUT = Image.fromarray(data.astronaut()[:300, :450])
SQUARE = Image.new("RGB", (56, 56), (200, 10, 30))


@pytest.mark.parametrize(("family", "options"), MADE)
def test_the_model_answers_what_encode_makes(family: str, options: dict[str, Any]) -> None:
    model, processor = tiny(family, **options)
    encoded = adapter_for(model, processor).encode([ASTRONAUT], "Who is this?")
    layout = encoded.layouts[0]
    with torch.no_grad():
        out = model.generate(**encoded.inputs, max_new_tokens=2, do_sample=False)
    assert out.shape == (1, len(layout) + 2)
    assert out[0, : len(layout)].tolist() == layout.input_ids.tolist()


@pytest.mark.parametrize(("family", "options"), MADE)
def test_ids_are_those_of_the_processor(family: str, options: dict[str, Any]) -> None:
    model, processor = tiny(family, **options)
    encoded = adapter_for(model, processor).encode([ASTRONAUT], "Who is this?")
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Who is this?"}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    own = processor(images=[ASTRONAUT], text=[text], return_tensors="pt")
    assert encoded.inputs["input_ids"].tolist() == own["input_ids"].tolist()
    assert torch.equal(encoded.inputs["pixel_values"], own["pixel_values"])


@pytest.mark.parametrize("family", FAMILIES)
def test_kinds_say_what_each_token_is(family: str) -> None:
    model, processor = tiny(family)
    adapter = adapter_for(model, processor)
    layout = adapter.encode([ASTRONAUT], "Who is this?").layouts[0]
    image = layout.input_ids == model.config.image_token_id
    assert set(layout.kinds[image].tolist()) <= {TokenKind.IMAGE, TokenKind.SEPARATOR}
    assert not np.isin(layout.kinds[~image], [TokenKind.IMAGE, TokenKind.SEPARATOR]).any()
    first = TokenKind.SYSTEM if family == "llava_onevision" else TokenKind.BOS
    assert layout.kinds[0] == first
    assert (layout.kinds == TokenKind.BOS).sum() == (family != "llava_onevision")
    assert (layout.kinds == TokenKind.QUESTION).sum() == len("Who is this?")
    assert layout.text[slice(*layout.question_span)] == "Who is this?"
    assert layout.answer_start == len(layout)
    rows = [t.grid_hw[0] for t in layout.images[0].tiles if t.kind == "tiles"]
    assert (layout.kinds == TokenKind.SEPARATOR).sum() == sum(rows)


def test_a_kept_cls_token_has_no_place() -> None:
    adapter = adapter_for(*tiny("llava", strategy="full", tower="clip"))
    layout = adapter.encode([SQUARE], "?").layouts[0]
    image = np.flatnonzero(layout.input_ids == adapter.image_token_id)
    assert layout.kinds[image[0]] == TokenKind.SEPARATOR
    assert (layout.kinds[image[1:]] == TokenKind.IMAGE).all()
    assert (layout.row[image[1]], layout.col[image[1]]) == (0, 0)


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision"])
def test_a_newline_ends_every_row_of_tiles(family: str) -> None:
    layout = adapter_for(*tiny(family)).encode([ASTRONAUT], "?").layouts[0]
    cols = layout.images[0].tiles[1].grid_hw[1]
    ends = np.flatnonzero(layout.kinds == TokenKind.SEPARATOR)
    assert (layout.col[ends - 1] == cols - 1).all()
    assert (layout.tile[ends - 1] == 1).all()
    assert np.array_equal(layout.row[ends - 1], np.arange(layout.images[0].tiles[1].grid_hw[0]))


def test_each_byte_of_an_emoji_covers_the_whole_character() -> None:
    layout = adapter_for(*tiny("llava")).encode([SQUARE], "a🐱b").layouts[0]
    spans = layout.char_span[layout.kinds == TokenKind.QUESTION].tolist()
    start = layout.question_span[0]
    assert spans == [[start, start + 1], *[[start + 1, start + 2]] * 4, [start + 2, start + 3]]


def test_spans_after_pictures_point_into_the_unexpanded_text() -> None:
    adapter = adapter_for(*tiny("llava_next"))
    chat = [
        {"role": "user", "content": ["before", {"type": "image"}, "middle", {"type": "image"}, "after"]},
    ]
    layout = adapter.encode([ASTRONAUT, SQUARE], chat).layouts[0]
    assert layout.text.count("<image>") == 2
    written = {layout.text[a:b] for a, b in layout.char_span.tolist() if a >= 0}
    for word in ("before", "middle", "after"):
        at = layout.text.index(word)
        for i in range(at, at + len(word)):
            token = np.flatnonzero((layout.char_span == [i, i + 1]).all(axis=1))
            assert len(token) == 1
            assert chr(layout_byte(adapter, layout, int(token[0]))) == layout.text[i]
    assert "<image>" not in written
    assert set(layout.image[layout.kinds == TokenKind.IMAGE].tolist()) == {0, 1}


def layout_byte(adapter: Any, layout: Any, position: int) -> int:
    return ord(adapter.tokenizer.decode([int(layout.input_ids[position])]))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_is_padded_on_the_left_and_gives_the_same_tokens(family: str) -> None:
    model, processor = tiny(family)
    adapter = adapter_for(model, processor)
    long = "What is written on the sign to the left of the door?"
    both = adapter.encode([ASTRONAUT, SQUARE], ["Who?", long])
    alone = [adapter.encode([ASTRONAUT], "Who?"), adapter.encode([SQUARE], long)]
    assert both.batch_size == 2
    assert min(both.pad_left) == 0
    assert max(both.pad_left) > 0
    for i, single in enumerate(alone):
        pad = both.pad_left[i]
        assert both.inputs["input_ids"][i, pad:].tolist() == single.inputs["input_ids"][0].tolist()
        assert both.inputs["attention_mask"][i].tolist() == [0] * pad + [1] * len(single.layouts[0])
        assert both.layouts[i].images == single.layouts[0].images
    with torch.no_grad():
        together = model(**both.inputs).logits[:, -1]
        apart = torch.stack([model(**s.inputs).logits[0, -1] for s in alone])
    assert torch.allclose(together, apart, atol=1e-4)


def test_onevision_drops_tiles_for_several_pictures_of_one_prompt() -> None:
    model, processor = tiny("llava_onevision")
    encoded = adapter_for(model, processor).encode([[ASTRONAUT, SQUARE], [ASTRONAUT]], ["Compare.", "Who?"])
    kinds = [[t.kind for t in p.tiles] for layout in encoded.layouts for p in layout.images]
    assert kinds == [["base"], ["base"], ["base", "tiles"]]
    assert encoded.inputs["batch_num_images"].tolist() == [2, 1]
    assert encoded.layouts[0].images[0].tiles[0].source_box_xyxy == (0.0, -75.0, 450.0, 375.0)
    with torch.no_grad():
        model(**encoded.inputs)


def test_to_moves_all_tensors_and_casts_those_with_fractions() -> None:
    encoded = adapter_for(*tiny("llava_next")).encode([SQUARE], "?")
    moved = encoded.to("cpu", torch.float16)
    assert moved.inputs["pixel_values"].dtype == torch.float16
    assert moved.inputs["input_ids"].dtype == torch.int64
    assert moved.inputs["image_sizes"].dtype == encoded.inputs["image_sizes"].dtype
    assert encoded.inputs["pixel_values"].dtype == torch.float32
    assert moved.layouts is encoded.layouts


def test_a_prompt_without_pictures_only_if_said_so() -> None:
    model, processor = tiny("llava")
    adapter = adapter_for(model, processor)
    with pytest.raises(PromptError, match="no picture"):
        adapter.encode([], "Who?")
    encoded = adapter.encode([], "Who?", text_only=True)
    assert "pixel_values" not in encoded.inputs
    assert encoded.layouts[0].images == ()
    assert "<image>" not in encoded.layouts[0].text
    mixed = adapter.encode([[], [SQUARE]], ["Who?", "Who?"], text_only=True)
    assert [len(layout.images) for layout in mixed.layouts] == [0, 1]


@pytest.mark.parametrize(
    ("images", "error", "match"),
    [
        (SQUARE, ImageError, "list of PIL images"),
        ("a.png", ImageError, "list of PIL images"),
        ([SQUARE.convert("P")], ImageError, "mode RGB, got P"),
        ([SQUARE.convert("RGBA")], ImageError, "mode RGB, got RGBA"),
        ([np.zeros((5, 5, 3), np.uint8)], ImageError, "got ndarray"),
        ([SQUARE, [SQUARE]], ImageError, "mixture"),
        ([[SQUARE], [SQUARE]], PromptError, "1 prompts came with 2 sets"),
    ],
)
def test_bad_pictures(images: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        adapter_for(*tiny("llava")).encode(images, "Who?")


def test_too_many_tokens_names_both_numbers() -> None:
    adapter = adapter_for(*tiny("llava"))
    with pytest.raises(PromptError, match=r"50\d\d tokens \(16 of them from pictures\).* 4096 positions"):
        adapter.encode([SQUARE], "x" * 5000)


def test_a_picture_too_thin_to_prepare_is_refused_before_memory_is_spent() -> None:
    thin = Image.new("RGB", (1, 300_000))
    with pytest.raises(ImageError, match="56 x 16800000"):
        adapter_for(*tiny("llava")).encode([thin], "Who?")


@pytest.mark.parametrize(
    ("family", "attribute", "value", "match"),
    [
        ("llava", "patch_size", None, "disagree on patch_size: the processor says None, the model 14"),
        ("llava", "patch_size", 7, "disagree on patch_size"),
        ("llava", "vision_feature_select_strategy", "full", "disagree on vision_feature_select_strategy"),
        ("llava_next", "vision_feature_select_strategy", "full", "disagree on vision_feature_select_strategy"),
        ("llava_onevision", "vision_aspect_ratio", "anyres_max_9", "disagree on vision_aspect_ratio"),
        ("llava_onevision", "num_image_tokens", 25, "disagree on num_image_tokens"),
    ],
)
def test_a_processor_that_disagrees_with_its_model_is_refused(
    family: str, attribute: str, value: Any, match: str
) -> None:
    model, processor = build(family)
    setattr(processor, attribute, value)
    with pytest.raises(LayoutError, match=match):
        adapter_for(model, processor)


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_wrong_token_counts_name_both_counts(family: str) -> None:
    model, processor = build(family)
    processor.num_additional_image_tokens = 0
    adapter = adapter_for(model, processor)
    expected = len(adapter.plan(SQUARE.size))
    with pytest.raises(LayoutError, match=f"writes {expected - 1} image tokens, the model makes {expected}"):
        adapter.encode([SQUARE], "Who?")


def test_a_crop_of_another_size_than_the_tower_is_refused() -> None:
    model, processor = build("llava", crop_size={"height": 70, "width": 70}, size={"shortest_edge": 70})
    with pytest.raises(LayoutError, match="is prepared as 70 x 70 pixels, but the vision tower takes 56 x 56"):
        adapter_for(model, processor).encode([SQUARE], "Who?")


def test_an_image_processor_that_does_something_else_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = build("llava")
    adapter = adapter_for(model, processor)
    plan = adapter.plan(SQUARE.size)
    monkeypatch.setattr(adapter, "plan", lambda *_: dataclasses.replace(plan, view_hw=(70, 70)))
    with pytest.raises(LayoutError, match=r"views of \(56, 56\) pixels .* settings say \(70, 70\)"):
        adapter.encode([SQUARE], "Who?")


def test_more_pictures_than_a_family_takes() -> None:
    adapter = adapter_for(*build("llava"))
    adapter.spec = dataclasses.replace(adapter.spec, max_images=1)
    assert adapter.max_images == 1
    with pytest.raises(PromptError, match="prompt 1: 2 pictures, but llava takes at most 1"):
        adapter.encode([[SQUARE], [SQUARE, SQUARE]], ["Who?", "Who?"])


def test_pinpoints_that_differ_are_refused() -> None:
    model, processor = build("llava_next")
    processor.image_processor.image_grid_pinpoints = [[56, 56]]
    with pytest.raises(LayoutError, match="disagree on image_grid_pinpoints"):
        adapter_for(model, processor)


def test_another_placeholder_id_is_refused() -> None:
    model, processor = build("llava")
    model.config.image_token_index = 7
    with pytest.raises(LayoutError, match=r"is token 25., but the model expects image_token_id 7"):
        adapter_for(model, processor)


def test_a_tokenizer_without_offsets_is_refused() -> None:
    model, processor = build("llava")

    class Slow:
        is_fast = False
        chat_template = None

    processor.tokenizer = Slow()
    with pytest.raises(ModelError, match="Slow gives no character offsets"):
        adapter_for(model, processor)


def test_describe_holds_plain_values() -> None:
    import json

    described = adapter_for(*tiny("llava_next")).describe()
    assert json.loads(json.dumps(described))["tower"]["patch_size"] == 14
