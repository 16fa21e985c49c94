"""Tiny vision-language models for tests: real transformers classes, random weights, real processors, no network.

``tiny(family)`` gives ``(model, processor)``, shared by all tests of a process: do not change either.
``build(...)`` takes the same arguments and makes new ones, free to be changed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessor,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipImageProcessor,
    SiglipVisionConfig,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

from tests.tiny import parts

FAMILIES = ("llava", "vipllava", "llava_next", "llava_onevision")

_PARTS = (
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% elif part['type'] == 'video' %}<video>\n"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}"
)
USER_ASSISTANT = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}"
    + _PARTS
    + " {% else %}{{ message['role'].upper() }}: "
    + _PARTS
    + " {% endif %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
INST = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}[INST] " + _PARTS + " [/INST]{% else %}" + _PARTS + "{% endif %}"
    "{% endfor %}"
)
IM_START = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} " + _PARTS + "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {"llava": USER_ASSISTANT, "vipllava": USER_ASSISTANT, "llava_next": INST, "llava_onevision": IM_START}


def tokenizer(*, bos: bool = True, padding_side: str = "left") -> PreTrainedTokenizerFast:
    """Byte-level BPE without merges: every byte is a token, so an emoji is four. 260 to 266 tokens."""
    names = {"image_token": "<image>", "video_token": "<video>"}
    special = ("<image>", "<video>", "<|im_start|>", "<|im_end|>")
    return parts.tokenizer(*special, bos=bos, names=names, padding_side=padding_side)


def _vision_config(tower: str, image_size: int, patch_size: int) -> Any:
    common = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": image_size,
        "patch_size": patch_size,
    }
    if tower == "clip":
        return CLIPVisionConfig(**common)
    return SiglipVisionConfig(**common, vision_use_head=False)


def _text_config(family: str, vocab_size: int, layers: int, positions: int) -> Any:
    kind = Qwen2Config if family == "llava_onevision" else LlamaConfig
    return kind(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def pinpoints(image_size: int, most: int = 3) -> list[list[int]]:
    """Resolutions (height, width) of 1 × 1 … ``most`` × ``most`` tiles of ``image_size`` pixels."""
    return [[image_size * r, image_size * c] for r in range(1, most + 1) for c in range(1, most + 1)]


def image_processor(family: str, tower: str, image_size: int, **changes: Any) -> Any:
    """The family's usual image processor, scaled down to ``image_size``; ``changes`` go to its constructor."""
    square = {"height": image_size, "width": image_size}
    edge = {"shortest_edge": image_size}
    if family == "llava_next":
        defaults = {"size": edge, "crop_size": square, "image_grid_pinpoints": pinpoints(image_size)}
        return LlavaNextImageProcessor(**(defaults | changes))
    if family == "llava_onevision":
        return LlavaOnevisionImageProcessor(
            **({"size": square, "image_grid_pinpoints": pinpoints(image_size)} | changes)
        )
    if tower == "siglip":
        return SiglipImageProcessor(**({"size": square} | changes))
    kind = LlavaImageProcessor if changes.get("do_pad") else CLIPImageProcessor
    return kind(**({"size": edge, "crop_size": square} | changes))


def _processor(family: str, pixels: Any, text: Any, tower: str, strategy: str, config: Any, aspect: str) -> Any:
    patch_size = config.vision_config.patch_size
    template = TEMPLATES[family]
    if family == "llava_onevision":
        return LlavaOnevisionProcessor(
            pixels,
            text,
            LlavaOnevisionVideoProcessor(size=pixels.size),
            num_image_tokens=(config.vision_config.image_size // patch_size) ** 2,
            vision_feature_select_strategy=strategy,
            vision_aspect_ratio=aspect,
            chat_template=template,
        )
    kind = LlavaNextProcessor if family == "llava_next" else LlavaProcessor
    return kind(
        pixels,
        text,
        patch_size=patch_size,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=1 if tower == "clip" else 0,
        chat_template=template,
    )


def _config(family: str, vision: Any, text: Any, strategy: str, tok: Any, aspect: str, points: Any) -> Any:
    common = {"vision_config": vision, "text_config": text, "image_token_index": tok.convert_tokens_to_ids("<image>")}
    if family == "vipllava":
        return VipLlavaConfig(**common, vision_feature_layer=[-2, -1])
    common |= {"vision_feature_select_strategy": strategy}
    if family == "llava":
        return LlavaConfig(**common, vision_feature_layer=-2)
    if family == "llava_next":
        return LlavaNextConfig(**common, vision_feature_layer=-2, image_grid_pinpoints=points)
    return LlavaOnevisionConfig(
        **common,
        vision_feature_layer=-1,
        image_grid_pinpoints=points,
        vision_aspect_ratio=aspect,
        video_token_index=tok.convert_tokens_to_ids("<video>"),
    )


MODELS = {
    "llava": LlavaForConditionalGeneration,
    "vipllava": VipLlavaForConditionalGeneration,
    "llava_next": LlavaNextForConditionalGeneration,
    "llava_onevision": LlavaOnevisionForConditionalGeneration,
}


def _sharpen(model: Any) -> None:
    """Scale queries, keys and embeddings up, so that attention is far from uniform."""
    with torch.no_grad():
        for name, weight in model.model.language_model.named_parameters():
            if "q_proj.weight" in name or "k_proj.weight" in name:
                weight.mul_(4.5)
            if "embed_tokens" in name:
                weight.mul_(3.0)


def build(
    family: str,
    *,
    tower: str | None = None,
    strategy: str | None = None,
    seed: int = 0,
    image_size: int = 56,
    patch_size: int = 14,
    layers: int = 3,
    positions: int = 4096,
    aspect: str = "anyres_max_4",
    **image_changes: Any,
) -> tuple[Any, Any]:
    """A new (model, processor) of ``family``: eval mode, float32, 3 layers of 64 units, 4 heads on 2 key-value heads.

    ``tower`` is ``clip`` or ``siglip`` (``llava_onevision`` has ``siglip`` by default, the others ``clip``);
    ``strategy`` is ``default`` (first vision token dropped; the default with ``clip``) or ``full``.
    ``image_changes`` go to the image processor: ``do_pad=True`` pads LLaVA's picture to a square.
    """
    tower = tower or ("siglip" if family == "llava_onevision" else "clip")
    strategy = strategy or ("default" if tower == "clip" else "full")
    tok = tokenizer(bos=family != "llava_onevision")
    pixels = image_processor(family, tower, image_size, **image_changes)
    points = getattr(pixels, "image_grid_pinpoints", None)
    vision = _vision_config(tower, image_size, patch_size)
    config = _config(family, vision, _text_config(family, len(tok), layers, positions), strategy, tok, aspect, points)
    processor = _processor(family, pixels, tok, tower, strategy, config, aspect)
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(seed)
        model = MODELS[family](config).eval()
    finally:
        torch.random.set_rng_state(state)
    _sharpen(model)
    return model, processor


@lru_cache(maxsize=32)
def _cached(family: str, options: str) -> tuple[Any, Any]:
    import ast

    return build(family, **ast.literal_eval(options))


def tiny(family: str, **options: Any) -> tuple[Any, Any]:
    """The (model, processor) that :func:`build` makes, built once per process and shared: do not change them."""
    return _cached(family, repr(dict(sorted(options.items()))))
