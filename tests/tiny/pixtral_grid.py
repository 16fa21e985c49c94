"""Tiny models with a Pixtral tower."""

from __future__ import annotations

from typing import Any

from tests.tiny.parts import IM_START, TEXT, chat, made, tokenizer

MARKS = ("[IMG]", "[IMG_BREAK]", "[IMG_END]")
INST = {"user": "{% if message['role'] == 'user' %}[INST]{% endif %}", "between": "[/INST]", "image": "[IMG]"}
VISION = {
    "model_type": "pixtral",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 112,
    "patch_size": 8,
}


def _processor(tok: Any, merge: int) -> Any:
    from transformers import PixtralImageProcessor, PixtralProcessor

    images = PixtralImageProcessor(size={"longest_edge": 112}, patch_size={"height": 8, "width": 8})
    return PixtralProcessor(images, tok, patch_size=8, spatial_merge_size=merge, chat_template=chat(**INST))


def pixtral() -> tuple[Any, Any]:
    """Pixtral-12B: LLaVA with a Pixtral tower, patches not merged."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    tok = tokenizer(*MARKS, "[INST]", "[/INST]")
    config = LlavaConfig(
        text_config=TEXT | {"model_type": "mistral", "vocab_size": len(tok), "sliding_window": None},
        vision_config=VISION,
        image_token_index=tok.convert_tokens_to_ids("[IMG]"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    return made(LlavaForConditionalGeneration, config), _processor(tok, 1)


def mistral3() -> tuple[Any, Any]:
    """Mistral Small 3.1."""
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    tok = tokenizer(*MARKS, "[INST]", "[/INST]")
    config = Mistral3Config(
        text_config=TEXT | {"model_type": "mistral", "vocab_size": len(tok), "head_dim": 16, "sliding_window": 64},
        vision_config=VISION,
        image_token_index=tok.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
    )
    return made(Mistral3ForConditionalGeneration, config), _processor(tok, 2)


def mistral_large4() -> tuple[Any, Any]:
    """Mistral Large 4: latent keys and values, an indexer that hides all but the best keys, layers that share keys."""
    from transformers import MistralLarge4Config, MistralLarge4ForConditionalGeneration

    tok = tokenizer(*MARKS, "[INST]", "[/INST]")
    text = TEXT | {
        "model_type": "mistral_large4_text",
        "vocab_size": len(tok),
        "num_key_value_heads": 4,
        "moe_intermediate_size": 32,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 12,
        "index_topk": 48,
        "index_head_dim": 16,
        "index_n_heads": 2,
        "kv_source_layers": [0, 1, 1],
    }
    config = MistralLarge4Config(
        text_config=text,
        vision_config=VISION,
        image_token_index=tok.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
    )
    return made(MistralLarge4ForConditionalGeneration, config), _processor(tok, 2)


def lighton_ocr() -> tuple[Any, Any]:
    """LightOnOCR, whose image processor knows nothing of merged patches: the last row or column may be cut."""
    from transformers import (
        LightOnOcrConfig,
        LightOnOcrForConditionalGeneration,
        LightOnOcrProcessor,
        PixtralImageProcessor,
    )

    names = {"image_token": "<|image_pad|>", "image_break_token": "<|break|>", "image_end_token": "<|end|>"}
    tok = tokenizer("<|im_start|>", "<|im_end|>", bos=False, names=names)
    config = LightOnOcrConfig(
        text_config=TEXT | {"model_type": "qwen3", "vocab_size": len(tok), "head_dim": 16},
        vision_config=VISION,
        image_token_id=tok.convert_tokens_to_ids("<|image_pad|>"),
        spatial_merge_size=2,
    )
    processor = LightOnOcrProcessor(
        PixtralImageProcessor(size={"longest_edge": 112}, patch_size={"height": 8, "width": 8}),
        tok,
        patch_size=8,
        spatial_merge_size=2,
        chat_template=chat(**IM_START, image="<|image_pad|>"),
    )
    return made(LightOnOcrForConditionalGeneration, config), processor


MODELS = {"pixtral": pixtral, "mistral3": mistral3, "mistral_large4": mistral_large4, "lighton_ocr": lighton_ocr}
