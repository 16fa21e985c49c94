"""Tiny Gemma 3 models."""

from __future__ import annotations

from typing import Any

from tests.tiny.fixed_views import GEMMA, VISION
from tests.tiny.parts import chat, made, tokenizer


def _gemma3(config: Any = None, processor: Any = None, **scan: Any) -> tuple[Any, Any]:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3ImageProcessor, Gemma3Processor

    config, processor = config or Gemma3Config, processor or Gemma3Processor

    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tok = tokenizer("<start_of_turn>", "<end_of_turn>", names=names)
    turn = {"between": "<end_of_turn>\n", "end": "<start_of_turn>model\n"}
    template = chat("<start_of_turn>{role}\n", image="<start_of_image>", **turn)
    made_processor = processor(
        Gemma3ImageProcessor(size={"height": 84, "width": 84}),
        tok,
        chat_template=template,
        image_seq_length=9,
    )
    made_processor.images_kwargs = made_processor.images_kwargs | scan
    layers = ["sliding_attention", "full_attention", "sliding_attention"]
    made_config = config(
        text_config=GEMMA
        | {"vocab_size": len(tok), "sliding_window": 40, "layer_types": layers, "query_pre_attn_scalar": 16},
        vision_config=VISION | {"image_size": 84, "patch_size": 14},
        mm_tokens_per_image=9,
        boi_token_index=tok.boi_token_id,
        eoi_token_index=tok.eoi_token_id,
        image_token_index=tok.image_token_id,
    )
    model = made(Gemma3ForConditionalGeneration, made_config)
    # It starts as zeros, so that pictures would make no difference.
    model.model.multi_modal_projector.mm_input_projection_weight.data.normal_()
    return model, made_processor


def gemma3() -> tuple[Any, Any]:
    """Gemma 3: patches averaged in squares of 2 x 2."""
    return _gemma3()


def gemma3_scanned() -> tuple[Any, Any]:
    """Gemma 3 with pan and scan: up to 3 crops of at least 40 pixels."""
    return _gemma3(
        do_pan_and_scan=True,
        pan_and_scan_min_crop_size=40,
        pan_and_scan_max_num_crops=3,
        pan_and_scan_min_ratio_to_activate=1.2,
    )


def shieldgemma2() -> tuple[Any, Any]:
    """ShieldGemma 2, loaded as a model that writes."""
    from transformers import ShieldGemma2Config, ShieldGemma2Processor

    return _gemma3(ShieldGemma2Config, ShieldGemma2Processor)


MODELS = {"gemma3": gemma3, "gemma3_scanned": gemma3_scanned, "shieldgemma2": shieldgemma2}
