"""Tiny models whose T5 encoder reads a resampler's queries with the prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tokenizers import processors

from tests.tiny.parts import tokenizer
from tests.tiny.resampled import blip_2_with, instructblip_with


def t5(vocabulary: int) -> dict[str, Any]:
    """A tiny T5."""
    return {
        "model_type": "t5",
        "vocab_size": vocabulary,
        "d_model": 64,
        "d_kv": 16,
        "d_ff": 128,
        "num_layers": 3,
        "num_heads": 4,
        "dropout_rate": 0.0,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 20,
        "initializer_factor": 1.0,
        "pad_token_id": 258,
        "eos_token_id": 257,
        "decoder_start_token_id": 258,
        "tie_word_embeddings": False,
    }


def _ended(tok: Any) -> Any:
    """The tokenizer, writing ``</s>`` after every prompt."""
    ending = [("</s>", tok.convert_tokens_to_ids("</s>"))]
    tok.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=ending)
    return tok


def _sharpened(model: Any) -> Any:
    with torch.no_grad():
        for name, weight in model.language_model.named_parameters():
            if "EncDecAttention.q" in name or "EncDecAttention.k" in name:
                weight.mul_(2.0)
    return model


def _with_t5(built: Callable[..., tuple[Any, Any]]) -> tuple[Any, Any]:
    model, processor = built(_ended(tokenizer(bos=False)), t5)
    return _sharpened(model), processor


def blip_2_t5() -> tuple[Any, Any]:
    """BLIP-2 with T5."""
    return _with_t5(blip_2_with)


def instructblip_t5() -> tuple[Any, Any]:
    """InstructBLIP with T5."""
    return _with_t5(instructblip_with)


MODELS = {"blip-2 t5": blip_2_t5, "instructblip t5": instructblip_t5}
