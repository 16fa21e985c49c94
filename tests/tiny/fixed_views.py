"""Tiny models whose views become square grids."""

from __future__ import annotations

from typing import Any

from tests.tiny.parts import TEXT, chat, made, tokenizer

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


def _gemma3(**scan: Any) -> tuple[Any, Any]:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3ImageProcessor, Gemma3Processor

    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tok = tokenizer("<start_of_turn>", "<end_of_turn>", names=names)
    turn = {"between": "<end_of_turn>\n", "end": "<start_of_turn>model\n"}
    template = chat("<start_of_turn>{role}\n", image="<start_of_image>", **turn)
    processor = Gemma3Processor(
        Gemma3ImageProcessor(size={"height": 56, "width": 56}),
        tok,
        chat_template=template,
        image_seq_length=4,
    )
    processor.images_kwargs = processor.images_kwargs | scan
    layers = ["sliding_attention", "full_attention", "sliding_attention"]
    config = Gemma3Config(
        text_config=GEMMA
        | {"vocab_size": len(tok), "sliding_window": 40, "layer_types": layers, "query_pre_attn_scalar": 16},
        vision_config=VISION | {"image_size": 56, "patch_size": 14},
        mm_tokens_per_image=4,
        boi_token_index=tok.boi_token_id,
        eoi_token_index=tok.eoi_token_id,
        image_token_index=tok.image_token_id,
    )
    model = made(Gemma3ForConditionalGeneration, config)
    # It starts as zeros, so that pictures would make no difference.
    model.model.multi_modal_projector.mm_input_projection_weight.data.normal_()
    return model, processor


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


MODELS = {"paligemma": paligemma, "paligemma2": paligemma2, "gemma3": gemma3, "gemma3_scanned": gemma3_scanned}
