"""Tiny models that look at pictures by cross attention."""

from __future__ import annotations

from typing import Any

import torch

from tests.tiny.parts import TEXT, chat, made, tokenizer

LLAMA_TURNS = {
    "user": "<|start_header_id|>{role}<|end_header_id|>\n\n",
    "between": "<|eot_id|>",
    "end": "<|start_header_id|>assistant<|end_header_id|>\n\n",
}


IDS = {"bos_token_id": "s", "eos_token_id": "/s", "pad_token_id": "pad"}


def mllama() -> tuple[Any, Any]:
    """Llama 3.2 Vision: 2 of 4 layers look at pictures, with their gates open."""
    from transformers import MllamaConfig, MllamaForConditionalGeneration, MllamaImageProcessor, MllamaProcessor

    marks = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>")
    tok = tokenizer(*marks, bos=True, names={"image_token": "<|image|>"})
    image_processor = MllamaImageProcessor(size={"height": 56, "width": 56}, max_image_tiles=4)
    processor = MllamaProcessor(image_processor, tok, chat_template="<s>" + chat(**LLAMA_TURNS, image="<|image|>"))
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        "max_num_tiles": 4,
        "intermediate_layers_indices": [0, 1],
        "vision_output_dim": 96,
        "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
    }
    text = TEXT | {"vocab_size": len(tok), "num_hidden_layers": 4, "cross_attention_layers": [1, 3]}
    text |= {name: tok.convert_tokens_to_ids(f"<{token}>") for name, token in IDS.items()}
    config = MllamaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tok.convert_tokens_to_ids("<|image|>"),
    )
    model = made(MllamaForConditionalGeneration, config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "cross_attn_attn_gate" in name or "cross_attn_mlp_gate" in name:
                weight.fill_(0.7)
            if "cross_attn.q_norm" in name:
                weight.mul_(3.0)
    return model, processor


MODELS = {"mllama": mllama}
