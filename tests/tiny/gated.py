"""Tiny models whose gated cross attention looks at patches, or at a perceiver's latents beside the prompt."""

from __future__ import annotations

from typing import Any

import torch

from tests.tiny.parts import made, tokenizer


def _idefics(*, resamples: bool, every: int = 2, norms: bool = True) -> tuple[Any, Any]:
    from transformers import IdeficsConfig, IdeficsForVisionText2Text, IdeficsImageProcessor, IdeficsProcessor

    tok = tokenizer("<fake_token_around_image>", "<image>", "<end_of_utterance>", bos=False)
    tok.bos_token = "<s>"
    processor = IdeficsProcessor(IdeficsImageProcessor(image_size=56), tok)
    config = IdeficsConfig(
        vocab_size=len(tok) - 3,
        additional_vocab_size=3,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=2048,
        cross_layer_interval=every,
        qk_layer_norms=norms,
        alpha_initializer="ones",
        use_resampler=resamples,
        freeze_text_layers=False,
        freeze_vision_layers=False,
        bos_token_id=tok.bos_token_id,
        eos_token_id=tok.eos_token_id,
        pad_token_id=tok.pad_token_id,
        vision_config={
            "embed_dim": 32,
            "image_size": 56,
            "patch_size": 14,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        perceiver_config={
            "use_resampler": resamples,
            "resampler_n_latents": 5,
            "resampler_depth": 2,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
            "qk_layer_norms_perceiver": norms,
        },
    )
    model = made(IdeficsForVisionText2Text, config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "cross_attn.q_layer_norm" in name or ("perceiver_resampler" in name and "q_layer_norm.weight" in name):
                weight.mul_(3.0)
            elif not norms and name.endswith("q_proj.weight") and ("cross_attn" in name or "perceiver" in name):
                weight.mul_(8.0)
    return model, processor


def idefics() -> tuple[Any, Any]:
    """IDEFICS: 4 layers, before 2 of which cross attention looks at 5 latents per picture."""
    return _idefics(resamples=True)


def idefics_plain() -> tuple[Any, Any]:
    """The same without norms of queries and keys, as transformers has it unless told."""
    return _idefics(resamples=True, norms=False)


def idefics_patches() -> tuple[Any, Any]:
    """IDEFICS without its perceiver: cross attention, before every layer, looks at the patches."""
    return _idefics(resamples=False, every=1)


MODELS = {"idefics": idefics, "idefics patches": idefics_patches}
