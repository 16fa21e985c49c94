"""Tiny models whose vision tower halves its grid with convolutions."""

from __future__ import annotations

from typing import Any

import torch

from tests.tiny.parts import IM_START, TEXT, chat, made, tokenizer


def centred(model: Any) -> Any:
    """Convolutions that look at their middle most: random ones look anywhere in what they see."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
                module.weight[:, :, 1, 1].mul_(16.0)
    return model


def step3p7() -> tuple[Any, Any]:
    """Step 3.7."""
    from transformers import Step3p7Config, Step3p7ForConditionalGeneration, Step3p7ImageProcessor, Step3p7Processor

    marks = ("<im_patch>", "<im_start>", "<im_end>", "<patch_start>", "<patch_end>", "<patch_newline>")
    tok = tokenizer("<|im_start|>", "<|im_end|>", *marks, bos=False)
    text = TEXT | {"vocab_size": len(tok), "head_dim": 16, "n_routed_experts": 4, "num_experts_per_tok": 2}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = Step3p7Config(
        text_config=text
        | {
            "moe_intermediate_size": 32,
            "share_expert_dim": 32,
            "mlp_layer_types": ["dense", "sparse", "dense"],
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "sliding_window": 64,
        },
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 112,
            "patch_size": 7,
            "mlp_ratio": 2.0,
        },
        image_token_id=tok.convert_tokens_to_ids("<im_patch>"),
    )
    images = Step3p7ImageProcessor(
        size={"height": 112, "width": 112}, patch_size=56, max_image_size=448, vision_patch_size=7
    )
    processor = Step3p7Processor(images, tok, chat_template=chat(**IM_START, image="<im_patch>"))
    return centred(made(Step3p7ForConditionalGeneration, config)), processor


def unlimited_ocr() -> tuple[Any, Any]:
    """Unlimited-OCR."""
    from transformers import (
        UnlimitedOcrConfig,
        UnlimitedOcrForConditionalGeneration,
        UnlimitedOcrImageProcessor,
        UnlimitedOcrProcessor,
    )

    tok = tokenizer("<|User|>", "<|Assistant|>", names={"image_token": "<image>"})
    sam = {
        "hidden_size": 32,
        "output_channels": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 128,
        "patch_size": 8,
        "mlp_dim": 64,
        "window_size": 4,
        "global_attn_indexes": [1],
        "downsample_channels": [24, 32],
        "initializer_range": 0.02,
    }
    encoder = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    text = TEXT | {"vocab_size": len(tok), "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1}
    config = UnlimitedOcrConfig(
        text_config=text | {"moe_intermediate_size": 32, "sliding_window": 4, "num_key_value_heads": 4},
        vision_config={"sam_config": sam, "encoder_config": encoder},
        image_token_id=tok.convert_tokens_to_ids("<image>"),
    )
    images = UnlimitedOcrImageProcessor(size={"height": 128, "width": 128}, tile_size=64, max_patches=6)
    template = chat("<|User|>", end="<|Assistant|>")
    processor = UnlimitedOcrProcessor(images, tok, patch_size=8, downsample_ratio=4, chat_template=template)
    return centred(made(UnlimitedOcrForConditionalGeneration, config)), processor


MODELS = {"step3p7": step3p7, "unlimited_ocr": unlimited_ocr}
