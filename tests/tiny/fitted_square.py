"""Tiny models that fit pictures into a square."""

from __future__ import annotations

from typing import Any

from tests.tiny.parts import TEXT, chat, made, tokenizer

TURN = {"user": "{role}: ", "between": "\n\n", "end": "assistant:", "image": "<image>"}
SIZE = {"height": 60, "width": 60}
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 60,
    "patch_size": 10,
}


def deepseek_vl() -> tuple[Any, Any]:
    """DeepSeek-VL."""
    from transformers import (
        DeepseekVLConfig,
        DeepseekVLForConditionalGeneration,
        DeepseekVLImageProcessor,
        DeepseekVLProcessor,
    )

    tok = tokenizer(names={"image_token": "<image>"})
    config = DeepseekVLConfig(
        text_config=TEXT | {"model_type": "llama", "vocab_size": len(tok)},
        vision_config=SIGLIP,
        image_token_id=tok.convert_tokens_to_ids("<image>"),
    )
    processor = DeepseekVLProcessor(
        DeepseekVLImageProcessor(size=SIZE, min_size=10), tok, chat_template=chat(**TURN), num_image_tokens=36
    )
    return made(DeepseekVLForConditionalGeneration, config), processor


def deepseek_vl_hybrid() -> tuple[Any, Any]:
    """DeepSeek-VL with a second tower of high resolution."""
    from transformers import (
        DeepseekVLHybridConfig,
        DeepseekVLHybridForConditionalGeneration,
        DeepseekVLHybridImageProcessor,
        DeepseekVLHybridProcessor,
    )

    tok = tokenizer(names={"image_token": "<image>"})
    config = DeepseekVLHybridConfig(
        text_config=TEXT | {"model_type": "llama", "vocab_size": len(tok)},
        vision_config=SIGLIP,
        high_res_vision_config={
            "model_type": "sam_vision_model",
            "hidden_size": 32,
            "output_channels": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 128,
            "patch_size": 8,
            "window_size": 4,
            "global_attn_indexes": [1],
            "mlp_dim": 48,
        },
        image_token_id=tok.convert_tokens_to_ids("<image>"),
    )
    processor = DeepseekVLHybridProcessor(
        DeepseekVLHybridImageProcessor(size=SIZE, high_res_size={"height": 128, "width": 128}, min_size=10),
        tok,
        chat_template=chat(**TURN),
        num_image_tokens=36,
    )
    return made(DeepseekVLHybridForConditionalGeneration, config), processor


def janus() -> tuple[Any, Any]:
    """Janus, asked for text."""
    from transformers import JanusConfig, JanusForConditionalGeneration, JanusImageProcessor, JanusProcessor

    names = {"image_token": "<image>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
    tok = tokenizer(names=names)
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 60,
        "patch_size": 10,
        "mlp_ratio": 2.0,
        "projection_dim": 64,
        "num_image_tokens": 36,
    }
    vq = {
        "embed_dim": 4,
        "num_embeddings": 8,
        "latent_channels": 8,
        "base_channels": 32,
        "channel_multiplier": [1, 1],
        "num_res_blocks": 1,
        "projection_dim": 64,
        "image_token_embed_dim": 64,
    }
    config = JanusConfig(
        text_config=TEXT | {"model_type": "llama", "vocab_size": len(tok)},
        vision_config=vision,
        vq_config=vq,
        image_token_id=tok.convert_tokens_to_ids("<image>"),
    )
    processor = JanusProcessor(
        JanusImageProcessor(size=SIZE, min_size=10), tok, chat_template=chat(**TURN), num_image_tokens=36
    )
    return made(JanusForConditionalGeneration, config), processor


MODELS = {"deepseek_vl": deepseek_vl, "deepseek_vl_hybrid": deepseek_vl_hybrid, "janus": janus}
