"""Tiny models with an encoder and a decoder."""

from __future__ import annotations

from typing import Any

from tests.tiny.fixed_views import VISION
from tests.tiny.parts import TEXT, chat, made, tokenizer

BART = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "max_position_embeddings": 1024,
    "dropout": 0.0,
    "pad_token_id": 258,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "decoder_start_token_id": 257,
    "forced_eos_token_id": None,
}


def florence2() -> tuple[Any, Any]:
    """Florence-2, whose tower shrinks 64 pixels to 4 by convolutions that overlap."""
    from transformers import (
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    tok = tokenizer(bos=False, names={"image_token": "<image>"}, padding_side="right")
    tok.bos_token = "<s>"
    images = CLIPImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False)
    images.image_seq_length = 17
    config = Florence2Config(
        text_config=BART | {"model_type": "bart", "vocab_size": len(tok)},
        vision_config={
            "depths": [1, 1],
            "patch_size": [7, 3],
            "patch_stride": [8, 2],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "embed_dim": [16, 32],
            "num_heads": [2, 2],
            "num_groups": [2, 2],
            "window_size": 2,
            "projection_dim": 64,
        },
        image_token_id=tok.convert_tokens_to_ids("<image>"),
    )
    return made(Florence2ForConditionalGeneration, config), Florence2Processor(images, tok)


def t5gemma2() -> tuple[Any, Any]:
    """T5Gemma 2: patches averaged in squares of 2 x 2, a window of 4 tokens in 2 of 3 decoder layers."""
    from transformers import Gemma3ImageProcessor, Gemma3Processor, T5Gemma2Config, T5Gemma2ForConditionalGeneration

    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tok = tokenizer(names=names)
    images = Gemma3ImageProcessor(size={"height": 84, "width": 84})
    layers = ["sliding_attention", "full_attention", "sliding_attention"]
    ids = {"bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 258}
    text = TEXT | ids | {"vocab_size": len(tok), "head_dim": 16, "query_pre_attn_scalar": 16, "layer_types": layers}
    config = T5Gemma2Config(
        encoder={
            "text_config": text | {"sliding_window": 64},
            "vision_config": VISION | {"model_type": "siglip_vision_model", "image_size": 84, "patch_size": 14},
            "mm_tokens_per_image": 9,
            "boi_token_index": tok.boi_token_id,
            "eoi_token_index": tok.eoi_token_id,
            "image_token_index": tok.image_token_id,
        },
        decoder=text | {"sliding_window": 4},
        image_token_index=tok.image_token_id,
        eoi_token_index=tok.eoi_token_id,
    )
    model = made(T5Gemma2ForConditionalGeneration, config)
    # It starts as zeros, so that pictures would make no difference.
    model.get_encoder().multi_modal_projector.mm_input_projection_weight.data.normal_()
    template = chat("", image="<start_of_image>")
    return model, Gemma3Processor(images, tok, chat_template=template, image_seq_length=9)


MODELS = {"florence2": florence2, "t5gemma2": t5gemma2}
