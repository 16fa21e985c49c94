"""Tiny models whose grid follows the picture: the Qwen and GLM lines, and those built like them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.tiny.parts import IM_START, TEXT, chat, made, tokenizer

NAMES = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
MROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
PIXELS = {"shortest_edge": 28 * 28 * 2, "longest_edge": 28 * 28 * 30}
WIDE = {"shortest_edge": 32 * 32 * 2, "longest_edge": 32 * 32 * 30}
FRAMES = {"shortest_edge": 28 * 28 * 2 * 2, "longest_edge": 28 * 28 * 30 * 2}
"""GLM counts the pixels of two frames."""


@dataclass(frozen=True)
class Line:
    """What the checkpoints of one line share: special tokens, configuration entries for them, and a chat template."""

    special: tuple[str, ...]
    names: dict[str, str]
    ids: dict[str, str]
    template: str


@dataclass(frozen=True)
class Kind:
    """One model type, as names of transformers classes and settings that differ from the line's."""

    line: Line
    model: str
    config: str
    processor: str
    image_processor: str
    video_processor: str
    vision: dict[str, Any]
    text: dict[str, Any] = field(default_factory=dict)
    pixels: dict[str, Any] = field(default_factory=lambda: {"size": PIXELS})
    more: dict[str, Any] = field(default_factory=dict)
    audio: bool = False
    films: dict[str, Any] = field(default_factory=dict)


def build(kind: Kind) -> tuple[Any, Any]:
    """A model and a processor of ``kind``."""
    import transformers

    line = kind.line
    tok = tokenizer(*line.special, bos=False, names=line.names)
    config = getattr(transformers, kind.config)(
        text_config=TEXT | {"vocab_size": len(tok), "rope_parameters": MROPE} | kind.text,
        vision_config=kind.vision,
        **{name: tok.convert_tokens_to_ids(token) for name, token in line.ids.items()},
        **kind.more,
    )
    parts = {
        "image_processor": getattr(transformers, kind.image_processor)(**kind.pixels),
        "tokenizer": tok,
        "video_processor": getattr(transformers, kind.video_processor)(**(kind.films or kind.pixels)),
    }
    if kind.audio:
        parts["feature_extractor"] = transformers.WhisperFeatureExtractor(feature_size=16)
    processor = getattr(transformers, kind.processor)(**parts, chat_template=line.template)
    return made(getattr(transformers, kind.model), config), processor


QWEN = Line(
    special=("<|vision_start|>", "<|vision_end|>", "<|im_start|>", "<|im_end|>"),
    names=NAMES,
    ids={
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    },
    template=chat(
        **IM_START,
        image="<|vision_start|><|image_pad|><|vision_end|>",
        video="<|vision_start|><|video_pad|><|vision_end|>",
    ),
)
OMNI_NAMES = {
    "image_token": "<|IMAGE|>",
    "video_token": "<|VIDEO|>",
    "audio_token": "<|AUDIO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
OMNI = Line(
    special=("<|im_start|>", "<|im_end|>"),
    names=OMNI_NAMES,
    ids={
        "image_token_id": "<|IMAGE|>",
        "video_token_id": "<|VIDEO|>",
        "audio_token_id": "<|AUDIO|>",
        "audio_start_token_id": "<|audio_bos|>",
        "vision_start_token_id": "<|vision_bos|>",
    },
    template=chat(
        **IM_START, image="<|vision_bos|><|IMAGE|><|vision_eos|>", video="<|vision_bos|><|VIDEO|><|vision_eos|>"
    ),
)
GLM = Line(
    special=(
        *("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"),
        *("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"),
    ),
    names={"image_token": "<|image|>", "video_token": "<|video|>"},
    ids={
        "image_token_id": "<|image|>",
        "video_token_id": "<|video|>",
        "image_start_token_id": "<|begin_of_image|>",
        "image_end_token_id": "<|end_of_image|>",
        "video_start_token_id": "<|begin_of_video|>",
        "video_end_token_id": "<|end_of_video|>",
    },
    template="[gMASK]<sop>"
    + chat(
        "<|{role}|>\n",
        image="<|begin_of_image|><|image|><|end_of_image|>",
        video="<|begin_of_video|><|video|><|end_of_video|>",
        end="<|assistant|>\n",
    ),
)
EXAONE = Line(
    special=("<vision>", "</vision>", "[|user|]", "[|assistant|]", "[|endofturn|]"),
    names=NAMES,
    ids={"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"},
    template=chat(
        "[|{role}|]\n",
        image="<vision><|image_pad|></vision>",
        video="<vision><|video_pad|></vision>",
        between="[|endofturn|]\n",
        end="[|assistant|]\n",
    ),
)
PLAIN = Line(
    special=("<|im_start|>", "<|im_end|>"),
    names=NAMES,
    ids={"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"},
    template=chat(**IM_START, image="<|image_pad|>\n", video="<|video_pad|>\n"),
)

TOWER = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64}
WINDOWED = TOWER | {"window_size": 56, "fullatt_block_indexes": [1]}
LEARNED = TOWER | {"num_position_embeddings": 64}
DEEPSTACK = LEARNED | {"deepstack_visual_indexes": [0, 1]}
GLM_TOWER = TOWER | {"image_size": 112}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
HEADS = {"head_dim": 16}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
HALF = {"head_dim": 32, "rope_parameters": MROPE | {"partial_rotary_factor": 0.5}}
LINEAR = {
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}
INDEXED = {
    "eos_token_id": 257,  # </s>, which ends the n-grams
    "hc_count": 2,
    "hc_lowrank": 8,
    "ple_layer_ids": [1],
    "heads_per_ngram": 2,
    "ngram_vocab_size_base": 500,
    "make_ngram_vocab_size_divisible_by": 8,
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 16,
    "indexer_compress_ratio": 4,
}
LATENT = {
    "initializer_range": 0.1,
    "num_key_value_heads": 4,
    "q_lora_rank": 32,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "index_topk": 16,
    "index_kpool": 4,
    "index_head_dim": 16,
    "index_n_heads": 2,
    "linear_head_dim": 16,
    "linear_num_heads": 4,
    "hc_mult": 2,
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "mlp_layer_types": ["dense", "dense", "sparse", "sparse"],
}
AUDIO = {
    "d_model": 32,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "num_mel_bins": 16,
    "output_dim": 64,
}

_QWEN2 = ("Qwen2VLImageProcessor", "Qwen2VLVideoProcessor")
_QWEN3 = ("Qwen3VLProcessor", "Qwen2VLImageProcessor", "Qwen3VLVideoProcessor")


def _of(line: Line, stem: str, *classes: str, config: str = "", **settings: Any) -> Kind:
    return Kind(line, f"{stem}ForConditionalGeneration", config or f"{stem}Config", *classes, **settings)


KINDS = {
    "qwen2_vl": _of(
        *(QWEN, "Qwen2VL", "Qwen2VLProcessor", *_QWEN2),
        vision={"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2},
    ),
    "qwen2_5_vl": _of(QWEN, "Qwen2_5_VL", "Qwen2_5_VLProcessor", *_QWEN2, vision=WINDOWED),
    "qwen3_vl": _of(*(QWEN, "Qwen3VL", *_QWEN3), vision=DEEPSTACK, text=HEADS, pixels={"size": WIDE, "patch_size": 16}),
    "qwen3_vl_moe": _of(
        *(QWEN, "Qwen3VLMoe", *_QWEN3),
        vision=DEEPSTACK,
        text=HEADS | EXPERTS,
        pixels={"size": WIDE, "patch_size": 16},
    ),
    "qwen3_5": _of(
        *(QWEN, "Qwen3_5", *_QWEN3), vision=LEARNED, text=HALF | LINEAR, pixels={"size": WIDE, "patch_size": 16}
    ),
    "qwen3_5_moe": _of(
        *(QWEN, "Qwen3_5Moe", *_QWEN3),
        vision=LEARNED,
        text=HALF | LINEAR | EXPERTS | {"shared_expert_intermediate_size": 32},
        pixels={"size": WIDE, "patch_size": 16},
    ),
    "qwen4_exp": _of(
        *(QWEN, "Qwen4Exp", *_QWEN3),
        vision=LEARNED,
        text=HALF | LINEAR | EXPERTS | {"shared_expert_intermediate_size": 32} | INDEXED,
        pixels={"size": WIDE, "patch_size": 16},
    ),
    "glm4v": _of(
        *(GLM, "Glm4v", "Glm4vProcessor", "Glm4vImageProcessor", "Glm4vVideoProcessor"),
        vision=GLM_TOWER,
        pixels={"size": FRAMES},
    ),
    "glm4v_moe": _of(
        *(GLM, "Glm4vMoe", "Glm4vProcessor", "Glm4vImageProcessor", "Glm4vVideoProcessor"),
        vision=GLM_TOWER,
        text=ROUTED | {"head_dim": 16, "rope_parameters": MROPE | {"partial_rotary_factor": 1.0}},
        pixels={"size": FRAMES},
    ),
    "glm46v": _of(
        *(GLM, "Glm46V", "Glm46VProcessor", "Glm46VImageProcessor", "Glm46VVideoProcessor"),
        vision=GLM_TOWER,
        pixels={"size": FRAMES},
    ),
    "glmga": _of(
        *(GLM, "Glm46V", "Glm46VProcessor", "GlmgaImageProcessor", "GlmgaVideoProcessor"),
        config="GlmgaConfig",
        vision=GLM_TOWER,
        pixels={"size": {"shortest_edge": 56 * 56 * 2, "longest_edge": 56 * 56 * 30}, "patch_expand_factor": 2},
    ),
    "glm_ocr": _of(
        *(GLM, "GlmOcr", "Glm46VProcessor", "Glm46VImageProcessor", "Glm46VVideoProcessor"),
        vision=GLM_TOWER,
        text=HEADS,
        pixels={"size": FRAMES},
    ),
    "glm5_next": _of(
        *(GLM, "Glm5Next", "Glm5NextProcessor", "Glm5NextImageProcessor", "Glm5NextVideoProcessor"),
        vision=GLM_TOWER | {"projection_intermediate_size": 64},
        text=ROUTED | LATENT | {"rope_parameters": None},
        pixels={"min_image_tokens": 4, "max_image_tokens": 24},
        films={"min_image_tokens": 8, "max_image_tokens": 48},
    ),
    "exaone4_5": _of(
        *(EXAONE, "Exaone4_5_", "Exaone4_5_Processor", *_QWEN2),
        vision=WINDOWED | {"num_key_value_heads": 1},
        text={
            "model_type": "exaone4",
            "sliding_window": 24,
            "sliding_window_pattern": 2,
            "rope_parameters": ROPE,
        },
    ),
    "hyperclovax_vision_v2": _of(
        *(PLAIN, "HyperCLOVAXVisionV2", "HyperCLOVAXVisionV2Processor", *_QWEN2),
        vision=WINDOWED,
        text={"rope_parameters": ROPE},
    ),
    "video_llama_3": _of(
        *(PLAIN, "VideoLlama3", "VideoLlama3Processor", "VideoLlama3ImageProcessor", "VideoLlama3VideoProcessor"),
        vision={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 14,
        },
        text={"rope_parameters": ROPE},
        pixels={"size": {"shortest_edge": 14 * 14 * 4, "longest_edge": 14 * 14 * 80}},
        films={"size": {"shortest_edge": 14 * 14 * 4, "longest_edge": 14 * 14 * 240}},
    ),
    "qwen2_5_omni_thinker": _of(
        *(OMNI, "Qwen2_5OmniThinker", "Qwen2_5OmniProcessor", *_QWEN2),
        vision=WINDOWED,
        more={"audio_config": AUDIO},
        audio=True,
    ),
    "qwen3_omni_moe_thinker": _of(
        *(OMNI, "Qwen3OmniMoeThinker", "Qwen3OmniMoeProcessor", *_QWEN2),
        vision=DEEPSTACK,
        text=HEADS | EXPERTS,
        pixels={"size": WIDE, "patch_size": 16},
        more={"audio_config": AUDIO | {"downsample_hidden_size": 8}},
        audio=True,
    ),
}

MODELS: dict[str, Callable[[], tuple[Any, Any]]] = {name: partial(build, kind) for name, kind in KINDS.items()}
