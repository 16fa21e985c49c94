"""A tiny LFM2-VL."""

from __future__ import annotations

from typing import Any

from tests.tiny.parts import IM_START, TEXT, chat, made, tokenizer


def lfm2_vl() -> tuple[Any, Any]:
    """LFM2-VL, with convolutions between attention layers."""
    from transformers import Lfm2VlConfig, Lfm2VlForConditionalGeneration, Lfm2VlImageProcessor, Lfm2VlProcessor

    marks = [f"<|img_row_{row}_col_{col}|>" for row in range(1, 5) for col in range(1, 5)]
    names = {
        "image_token": "<image>",
        "image_start_token": "<|image_start|>",
        "image_end_token": "<|image_end|>",
        "image_thumbnail_token": "<|img_thumbnail|>",
    }
    tok = tokenizer("<|im_start|>", "<|im_end|>", *marks, names=names)
    text = TEXT | {
        "model_type": "lfm2",
        "vocab_size": len(tok),
        "layer_types": ["conv", "full_attention", "conv", "full_attention"],
        "num_hidden_layers": 4,
        "block_multiple_of": 8,
    }
    vision = {
        "model_type": "siglip2_vision_model",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 8,
        "num_patches": 16,
    }
    config = Lfm2VlConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        projector_hidden_size=48,
        downsample_factor=2,
    )
    pictures = Lfm2VlImageProcessor(
        encoder_patch_size=8,
        tile_size=64,
        min_tiles=2,
        max_tiles=4,
        min_image_tokens=4,
        max_image_tokens=16,
        max_pixels_tolerance=2.0,
    )
    processor = Lfm2VlProcessor(pictures, tok, chat_template=chat(**IM_START, image="<image>"))
    return made(Lfm2VlForConditionalGeneration, config), processor


MODELS = {"lfm2_vl": lfm2_vl}
