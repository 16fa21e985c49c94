"""Tiny models whose T5 encoder reads a resampler's queries with the prompt."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import processors

from tests.tiny.parts import made, tokenizer
from tests.tiny.resampled import QFORMER, VISION, queries_drawn


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
    return queries_drawn(model)


def blip_2_t5() -> tuple[Any, Any]:
    """BLIP-2 with T5."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessor

    tok = _ended(tokenizer(bos=False))
    processor = Blip2Processor(BlipImageProcessor(size={"height": 56, "width": 56}), tok, num_query_tokens=6)
    config = Blip2Config(
        vision_config=dict(VISION),
        qformer_config=dict(QFORMER),
        text_config=t5(len(tok)),
        num_query_tokens=6,
        image_token_index=tok.convert_tokens_to_ids("<image>"),
    )
    return _sharpened(made(Blip2ForConditionalGeneration, config)), processor


def instructblip_t5() -> tuple[Any, Any]:
    """InstructBLIP with T5."""
    from transformers import (
        BlipImageProcessor,
        InstructBlipConfig,
        InstructBlipForConditionalGeneration,
        InstructBlipProcessor,
    )

    tok, reader = _ended(tokenizer(bos=False)), tokenizer(padding_side="right")
    images = BlipImageProcessor(size={"height": 56, "width": 56})
    processor = InstructBlipProcessor(images, tok, reader, num_query_tokens=6)
    config = InstructBlipConfig(
        vision_config=dict(VISION),
        qformer_config=dict(QFORMER),
        text_config=t5(len(tok)),
        num_query_tokens=6,
        image_token_index=tok.convert_tokens_to_ids("<image>"),
    )
    return _sharpened(made(InstructBlipForConditionalGeneration, config)), processor


MODELS = {"blip-2 t5": blip_2_t5, "instructblip t5": instructblip_t5}
