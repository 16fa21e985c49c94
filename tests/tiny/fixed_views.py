"""Tiny models whose views become square grids."""

from __future__ import annotations

from typing import Any

from tests.tiny.parts import TEXT, made, tokenizer

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vision_use_head": False,
}
GEMMA = TEXT | {"head_dim": 16, "bos_token_id": None}


def _paligemma(text: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import (
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessor,
    )

    image_processor = SiglipImageProcessor(size={"height": 60, "width": 60})
    image_processor.image_seq_length = 16
    tok = tokenizer(bos=False, names={"image_token": "<image>"})
    tok.bos_token = "<s>"
    processor = PaliGemmaProcessor(image_processor, tok)
    config = PaliGemmaConfig(
        text_config=text | {"vocab_size": len(tok)},
        vision_config=VISION | {"model_type": "siglip_vision_model", "image_size": 60, "patch_size": 14},
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        projection_dim=64,
        vocab_size=len(tok),
    )
    return made(PaliGemmaForConditionalGeneration, config), processor


def paligemma() -> tuple[Any, Any]:
    """PaliGemma, whose tower leaves 4 of 60 pixels out."""
    return _paligemma(GEMMA | {"model_type": "gemma"})


def paligemma2() -> tuple[Any, Any]:
    """PaliGemma 2: the text model is Gemma 2, with soft caps and a sliding window."""
    gemma2 = {"model_type": "gemma2", "sliding_window": 24, "attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 16}
    return _paligemma(GEMMA | gemma2)


MODELS = {"paligemma": paligemma, "paligemma2": paligemma2}
