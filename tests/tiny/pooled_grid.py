"""Tiny models of the Gemma 4 kind."""

from __future__ import annotations

from typing import Any

from tests.tiny.parts import TEXT, chat, made, tokenizer

NAMES = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}
IDS = {
    "image_token_id": "<|image|>",
    "boi_token_id": "<|image>",
    "eoi_token_id": "<image|>",
    "audio_token_id": "<|audio|>",
    "boa_token_id": "<|audio>",
    "eoa_token_index": "<audio|>",
    "video_token_id": "<|video|>",
}
TURN = {
    "user": "<|turn>{role}\n",
    "between": "<turn|>\n",
    "end": "<|turn>model\n",
    "image": "<|image|>",
    "video": "<|video|>",
}
PICTURES = {"patch_size": 4, "pooling_kernel_size": 2, "max_soft_tokens": 70}
GEMMA = TEXT | {
    "head_dim": 16,
    "global_head_dim": 24,
    "sliding_window": 32,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    "num_hidden_layers": 4,
    "use_bidirectional_attention": "vision",
    "pad_token_id": 0,
}


def _tokenizer() -> Any:
    return tokenizer("<|turn>", "<turn|>", "<|video|>", names=NAMES)


def _ids(tok: Any) -> dict[str, int]:
    return {name: tok.convert_tokens_to_ids(token) for name, token in IDS.items()}


def gemma4() -> tuple[Any, Any]:
    """Gemma 4, with embeddings per layer and layers that read the keys of earlier ones."""
    from transformers import (
        Gemma4AudioFeatureExtractor,
        Gemma4Config,
        Gemma4ForConditionalGeneration,
        Gemma4ImageProcessor,
        Gemma4Processor,
        Gemma4VideoProcessor,
    )

    tok = _tokenizer()
    text = GEMMA | {
        "vocab_size": len(tok),
        "vocab_size_per_layer_input": len(tok),
        "hidden_size_per_layer_input": 8,
        "num_kv_shared_layers": 2,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "patch_size": 4,
        "pooling_kernel_size": 2,
        "position_embedding_size": 256,
    }
    config = Gemma4Config(text_config=text, vision_config=vision, **_ids(tok))
    processor = Gemma4Processor(
        Gemma4AudioFeatureExtractor(),
        Gemma4ImageProcessor(**PICTURES),
        tok,
        Gemma4VideoProcessor(**PICTURES),
        chat_template=chat(**TURN),
    )
    return made(Gemma4ForConditionalGeneration, config), processor


def gemma4_unified() -> tuple[Any, Any]:
    """Gemma 4 without a vision tower."""
    from transformers import (
        Gemma4UnifiedAudioFeatureExtractor,
        Gemma4UnifiedConfig,
        Gemma4UnifiedForConditionalGeneration,
        Gemma4UnifiedImageProcessor,
        Gemma4UnifiedProcessor,
        Gemma4UnifiedVideoProcessor,
    )

    tok = _tokenizer()
    vision = {
        "patch_size": 4,
        "pooling_kernel_size": 2,
        "mm_embed_dim": 32,
        "mm_posemb_size": 80,
        "output_proj_dims": 32,
    }
    config = Gemma4UnifiedConfig(
        text_config=GEMMA | {"vocab_size": len(tok)}, vision_config=vision, audio_config=None, **_ids(tok)
    )
    processor = Gemma4UnifiedProcessor(
        Gemma4UnifiedAudioFeatureExtractor(),
        Gemma4UnifiedImageProcessor(**PICTURES),
        tok,
        Gemma4UnifiedVideoProcessor(**PICTURES),
        chat_template=chat(**TURN),
    )
    return made(Gemma4UnifiedForConditionalGeneration, config), processor


MODELS = {"gemma4": gemma4, "gemma4_unified": gemma4_unified}
