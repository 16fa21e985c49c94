"""Tiny models that see a picture as a whole and in slices near its own shape."""

from __future__ import annotations

from typing import Any

from tests.tiny.parts import IM_START, TEXT, chat, made, tokenizer

NAMES = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 7,
}
SIZES = {"scale_resolution": 56, "patch_size": 7, "max_slice_nums": 6}


def _tokenizer() -> Any:
    return tokenizer("<|im_start|>", "<|im_end|>", bos=False, names=NAMES)


def _parts(tok: Any, **more: Any) -> dict[str, Any]:
    linear = {
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "layer_types": ["linear_attention", "full_attention", "full_attention"],
    }
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    text = {"model_type": "qwen3_5_text", "vocab_size": len(tok), "head_dim": 16, "rope_parameters": rope}
    return {
        "text_config": TEXT | text | linear,
        "vision_config": VISION,
        "image_token_id": tok.convert_tokens_to_ids("<|image_pad|>"),
        "video_token_id": tok.convert_tokens_to_ids("<|video_pad|>"),
        "insert_layer_id": 0,
        **more,
    }


def _template() -> str:
    return chat(**IM_START, image="<|image_pad|>\n")


def minicpmv4_6() -> tuple[Any, Any]:
    """MiniCPM-V 4.6."""
    from transformers import (
        MiniCPMV4_6Config,
        MiniCPMV4_6ForConditionalGeneration,
        MiniCPMV4_6ImageProcessor,
        MiniCPMV4_6Processor,
    )
    from transformers.models.minicpmv4_6.video_processing_minicpmv4_6 import MiniCPMV4_6VideoProcessor

    tok = _tokenizer()
    processor = MiniCPMV4_6Processor(
        MiniCPMV4_6ImageProcessor(**SIZES), MiniCPMV4_6VideoProcessor(), tok, chat_template=_template()
    )
    return made(MiniCPMV4_6ForConditionalGeneration, MiniCPMV4_6Config(**_parts(tok))), processor


def minicpmv4_7() -> tuple[Any, Any]:
    """MiniCPM-V 4.7."""
    from transformers import (
        MiniCPMV4_6ImageProcessor,
        MiniCPMV4_7Config,
        MiniCPMV4_7ForConditionalGeneration,
        MiniCPMV4_7Processor,
    )
    from transformers.models.minicpmv4_6.video_processing_minicpmv4_6 import MiniCPMV4_6VideoProcessor

    tok = _tokenizer()
    marks = {
        "image_start_id": "<image>",
        "image_end_id": "</image>",
        "slice_start_id": "<slice>",
        "slice_end_id": "</slice>",
        "newline_id": "Ċ",
    }
    ids = {name: tok.convert_tokens_to_ids(mark) for name, mark in marks.items()}
    processor = MiniCPMV4_7Processor(
        MiniCPMV4_6ImageProcessor(**SIZES), MiniCPMV4_6VideoProcessor(), tok, chat_template=_template()
    )
    return made(MiniCPMV4_7ForConditionalGeneration, MiniCPMV4_7Config(**_parts(tok, **ids))), processor


def minicpm_ocr() -> tuple[Any, Any]:
    """MiniCPM-OCR."""
    from transformers import (
        MiniCPMOcrConfig,
        MiniCPMOcrForConditionalGeneration,
        MiniCPMOcrImageProcessor,
        MiniCPMOcrProcessor,
    )
    from transformers.models.minicpm_ocr.video_processing_minicpm_ocr import MiniCPMOcrVideoProcessor

    tok = _tokenizer()
    images = MiniCPMOcrImageProcessor(**SIZES, small_image_upsize="never")
    processor = MiniCPMOcrProcessor(images, MiniCPMOcrVideoProcessor(), tok, chat_template=_template())
    return made(MiniCPMOcrForConditionalGeneration, MiniCPMOcrConfig(**_parts(tok))), processor


MODELS = {"minicpm_ocr": minicpm_ocr, "minicpmv4_6": minicpmv4_6, "minicpmv4_7": minicpmv4_7}
