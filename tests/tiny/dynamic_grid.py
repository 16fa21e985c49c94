"""Tiny models whose grid follows the picture."""

from __future__ import annotations

from typing import Any

from tests.tiny.parts import IM_START, TEXT, chat, made, tokenizer

NAMES = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
MROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
PIXELS = {"shortest_edge": 28 * 28 * 2, "longest_edge": 28 * 28 * 30}


def qwen2_vl() -> tuple[Any, Any]:
    """Qwen2-VL."""
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    tok = tokenizer("<|vision_start|>", "<|vision_end|>", "<|im_start|>", "<|im_end|>", bos=False, names=NAMES)
    ids = {
        "image_token_id": tok.convert_tokens_to_ids("<|image_pad|>"),
        "video_token_id": tok.convert_tokens_to_ids("<|video_pad|>"),
        "vision_start_token_id": tok.convert_tokens_to_ids("<|vision_start|>"),
        "vision_end_token_id": tok.convert_tokens_to_ids("<|vision_end|>"),
    }
    config = Qwen2VLConfig(
        text_config=TEXT | {"vocab_size": len(tok), "rope_parameters": MROPE},
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2},
        **ids,
    )
    template = chat(**IM_START, image="<|vision_start|><|image_pad|><|vision_end|>")
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(size=PIXELS), tok, Qwen2VLVideoProcessor(size=PIXELS), chat_template=template
    )
    return made(Qwen2VLForConditionalGeneration, config), processor


MODELS = {"qwen2_vl": qwen2_vl}
