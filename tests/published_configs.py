"""The shapes of published checkpoints, for plans that need no weights: models on the meta device, processors in full.

``published(name)`` gives ``(model, processor)``. The model's tensors have shapes and no values; the processor prepares
real pictures. The tokenizer's words are bytes; its special tokens have the published ids.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from tests.tiny_models import IM_START, INST, MODELS, USER_ASSISTANT, pinpoints

CLIP_L_336 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
SO400M_384 = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}
LLAMA_7B = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32064,
    "max_position_embeddings": 4096,
}
LLAMA_13B = LLAMA_7B | {
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
}
MISTRAL_7B = LLAMA_7B | {
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "sliding_window": None,
}
QWEN2_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152000,
    "max_position_embeddings": 32768,
}
QWEN2_HALF_B = QWEN2_7B | {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
NEXT_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
ONEVISION_PINPOINTS = pinpoints(384, most=6)

PUBLISHED: dict[str, tuple[str, type, dict[str, Any]]] = {
    "llava-1.5-7b": ("llava", LlamaConfig, LLAMA_7B),
    "llava-1.5-13b": ("llava", LlamaConfig, LLAMA_13B),
    "llava-v1.6-mistral-7b": ("llava_next", MistralConfig, MISTRAL_7B),
    "llava-v1.6-vicuna-13b": ("llava_next", LlamaConfig, LLAMA_13B),
    "llava-onevision-qwen2-0.5b": ("llava_onevision", Qwen2Config, QWEN2_HALF_B),
    "llava-onevision-qwen2-7b": ("llava_onevision", Qwen2Config, QWEN2_7B),
}


def config_of(name: str) -> Any:
    """The configuration of a published checkpoint."""
    family, text_kind, text = PUBLISHED[name]
    if family == "llava_onevision":
        return LlavaOnevisionConfig(
            vision_config=SiglipVisionConfig(**SO400M_384),
            text_config=text_kind(**text),
            image_token_index=151646,
            video_token_index=151647,
            image_grid_pinpoints=ONEVISION_PINPOINTS,
            vision_aspect_ratio="anyres_max_9",
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
        )
    common = {
        "vision_config": CLIPVisionConfig(**CLIP_L_336),
        "text_config": text_kind(**text),
        "image_token_index": 32000,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }
    if family == "llava_next":
        return LlavaNextConfig(**common, image_grid_pinpoints=NEXT_PINPOINTS)
    return LlavaConfig(**common)


def _tokenizer(image_token_id: int, *, bos: bool) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<s>", "</s>", *alphabet]
    words += [f"<filler {i}>" for i in range(image_token_id - len(words))]
    core = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in ("<s>", "</s>", "<image>", "<video>")]
    )
    if bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>" if bos else None,
        eos_token="</s>",
        pad_token="</s>",
        padding_side="left",
        extra_special_tokens={"image_token": "<image>", "video_token": "<video>"},
    )


@lru_cache(maxsize=6)
def processor_of(name: str) -> Any:
    """The processor of a published checkpoint, with bytes for words."""
    family, config = PUBLISHED[name][0], config_of(name)
    tokens = _tokenizer(config.image_token_id, bos=family != "llava_onevision")
    if family == "llava_onevision":
        return LlavaOnevisionProcessor(
            LlavaOnevisionImageProcessor(size={"height": 384, "width": 384}, image_grid_pinpoints=ONEVISION_PINPOINTS),
            tokens,
            LlavaOnevisionVideoProcessor(),
            num_image_tokens=729,
            vision_feature_select_strategy="full",
            vision_aspect_ratio="anyres_max_9",
            chat_template=IM_START,
        )
    sizes = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
    common = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    if family == "llava_next":
        pixels = LlavaNextImageProcessor(**sizes, image_grid_pinpoints=NEXT_PINPOINTS)
        return LlavaNextProcessor(pixels, tokens, **common, chat_template=INST)
    return LlavaProcessor(CLIPImageProcessor(**sizes), tokens, **common, chat_template=USER_ASSISTANT)


@lru_cache(maxsize=6)
def published(name: str) -> tuple[Any, Any]:
    """(model on the meta device, processor) of a published checkpoint: do not change either."""
    with torch.device("meta"):
        model = MODELS[PUBLISHED[name][0]](config_of(name)).eval()
    return model, processor_of(name)
