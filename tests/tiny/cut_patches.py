"""Tiny models that cut a picture into patches as it is, and a hybrid that shares nothing with the others."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.tiny.parts import TEXT, chat, made, tokenizer

IMAGE = "<|unused_200054|>"
TEMPLATE = chat("{role}: ", image=f"<|content_image|>{IMAGE}", between="\n", end="a: ")
WORDS = TEXT | {
    "num_hidden_layers": 4,
    "head_dim": 16,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2,
    "swa_head_dim": 16,
    "sliding_window_size": 24,
    "rel_extent": 32,
    "d_rel": 8,
    "layer_types": ["hybrid_sliding", "hybrid", "hybrid_sliding", "hybrid"],
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
}


def _tokenizer() -> Any:
    return tokenizer("<|content_image|>", "<|content_audio_input|>", "<|unused_200053|>", IMAGE, bos=False)


def _words(tok: Any) -> dict[str, Any]:
    return WORDS | {"vocab_size": len(tok), "unpadded_vocab_size": len(tok)}


def inkling_mm_model() -> tuple[Any, Any]:
    """Inkling: a tower without attention; relative positions as a bias."""
    tok = _tokenizer()
    config = hf.InklingConfig(
        text_config=_words(tok) | {"n_shared_experts": 1, "logits_mup_width_multiplier": 1.0},
        vision_config={"patch_size": 20, "hidden_size": 32, "num_hidden_layers": 3},
        audio_config={"n_mel_bins": 8, "mel_vocab_size": 8},
        image_token_id=tok.convert_tokens_to_ids(IMAGE),
        audio_token_id=tok.convert_tokens_to_ids("<|unused_200053|>"),
        image_bos_token_id=tok.convert_tokens_to_ids("<|content_image|>"),
    )
    image_processor = hf.InklingImageProcessor(
        size={"height": 20, "width": 20}, rescale_image_frac=0.75, rescale_image_max_upscaled_long_edge=None
    )
    extractor = hf.InklingFeatureExtractor()
    processor = hf.InklingProcessor(extractor, image_processor, tok, chat_template=TEMPLATE)
    return made(hf.InklingForConditionalGeneration, config), processor


def _inkling2_tower() -> dict[str, Any]:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 10}
    return sizes | {"posemb_grid_size": 8, "projection_hidden_dim": 64, "text_hidden_size": 64}


def inkling2() -> tuple[Any, Any]:
    """Inkling 2: sinks that every query makes for itself, besides a bias for relative positions."""
    tok = _tokenizer()
    config = hf.Inkling2Config(
        text_config=_words(tok) | {"n_layers_per_attn_res_block": 2},
        vision_config=_inkling2_tower(),
        image_token_id=tok.convert_tokens_to_ids(IMAGE),
    )
    image_processor = hf.Inkling2ImageProcessor(size={"height": 20, "width": 20})
    processor = hf.Inkling2Processor(image_processor, tok, chat_template=TEMPLATE)
    return made(hf.Inkling2ForConditionalGeneration, config), processor


MODELS = {"inkling2": inkling2, "inkling_mm_model": inkling_mm_model}
