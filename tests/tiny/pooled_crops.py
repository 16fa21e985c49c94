"""Tiny models that pool patches of overlapping crops."""

from __future__ import annotations

from typing import Any

from tests.tiny.parts import IM_START, TEXT, chat, made, tokenizer


def molmo2() -> tuple[Any, Any]:
    """Molmo 2: 9 patches of a side, so that the last cell of a grid holds fewer."""
    from transformers import (
        Molmo2Config,
        Molmo2ForConditionalGeneration,
        Molmo2ImageProcessor,
        Molmo2Processor,
        Molmo2VideoProcessor,
    )

    marks = ("<im_patch>", "<im_col>", "<im_start>", "<low_res_im_start>", "<im_end>", "<im_low>")
    frames = ("<frame_start>", "<frame_end>", "<|image|>", "<|video|>")
    tok = tokenizer("<|im_start|>", "<|im_end|>", *marks, *frames, bos=False)
    tower = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    text = {"vocab_size": len(tok), "additional_vocab_size": 8, "head_dim": 16}
    named = {
        "image_start_token_id": "<im_start>",
        "low_res_image_start_token_id": "<low_res_im_start>",
        "image_end_token_id": "<im_end>",
        "image_patch_id": "<im_patch>",
        "frame_start_token_id": "<frame_start>",
        "frame_end_token_id": "<frame_end>",
    }
    config = Molmo2Config(
        text_config=TEXT | text,
        vision_config=tower
        | {"intermediate_size": 64, "num_hidden_layers": 2, "image_size": [63, 63], "patch_size": 7},
        adapter_config=tower | {"vision_feature_layer": [1, 0], "intermediate_size": 64, "text_hidden_size": 64},
        **{name: tok.convert_tokens_to_ids(mark) for name, mark in named.items()},
    )
    images = Molmo2ImageProcessor(
        size={"height": 63, "width": 63}, patch_size=7, max_crops=6, overlap_margins=[2, 2], pooling_size=[2, 2]
    )
    films = Molmo2VideoProcessor(size={"height": 63, "width": 63}, patch_size=7, pooling_size=[3, 3])
    template = chat(**IM_START, image="<|image|>", video="<|video|>")
    processor = Molmo2Processor(images, films, tok, chat_template=template)
    return made(Molmo2ForConditionalGeneration, config), processor


MODELS = {"molmo2": molmo2}
