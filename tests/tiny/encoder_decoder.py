"""Tiny models with an encoder and a decoder."""

from __future__ import annotations

from typing import Any

from tests.tiny.parts import made, tokenizer

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


MODELS = {"florence2": florence2}
