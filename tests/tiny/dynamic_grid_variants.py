"""Tiny models of the families that see a picture as Qwen-VL does: one view whose grid follows the picture."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.tiny.parts import IM_START, TEXT, chat, made, tokenizer

QWEN = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
QWEN_CHAT = chat(
    **IM_START,
    image="<|vision_start|><|image_pad|><|vision_end|>",
    video="<|vision_start|><|video_pad|><|vision_end|>",
)
MROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
WORDS = TEXT | {"head_dim": 16}
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
DEEP = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2}


def _area(cell: int) -> dict[str, int]:
    """A size of 2 to 30 cells."""
    return {"shortest_edge": cell * cell * 2, "longest_edge": cell * cell * 30}


def _qwen_tokenizer() -> Any:
    return tokenizer("<|vision_start|>", "<|vision_end|>", "<|im_start|>", "<|im_end|>", bos=False, names=QWEN)


def _ids(tok: Any, **names: str) -> dict[str, int]:
    """Token ids by the name that a configuration has for them."""
    return {name: tok.convert_tokens_to_ids(token) for name, token in names.items()}


def _qwen_ids(tok: Any) -> dict[str, int]:
    marks = {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    return _ids(tok, image_token_id="<|image_pad|>", video_token_id="<|video_pad|>", **marks)


def _vocabulary(tok: Any) -> dict[str, int]:
    return {"vocab_size": len(tok)}


def ernie4_5_vl_moe() -> tuple[Any, Any]:
    """ERNIE 4.5 VL: experts for words and experts for pictures."""
    marks = {"image_start_token": "<|IMAGE_START|>", "image_end_token": "<|IMAGE_END|>"}
    films = {"video_start_token": "<|VIDEO_START|>", "video_end_token": "<|VIDEO_END|>"}
    names = {"image_token": "<|IMAGE_PLACEHOLDER|>", "video_token": "<|VIDEO_PLACEHOLDER|>", **marks, **films}
    tok = tokenizer(bos=False, names=names)
    text = {"moe_intermediate_size": [32, 16], "moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1}
    rope = {"rope_parameters": MROPE | {"mrope_section": [3, 3, 2]}}
    config = hf.Ernie4_5_VLMoeConfig(
        text_config=TEXT | text | rope | _vocabulary(tok),
        vision_config=DEEP,
        **_ids(tok, **{f"{name}_id": token for name, token in names.items()}),
    )
    video = "<|VIDEO_START|><|VIDEO_PLACEHOLDER|><|VIDEO_END|>"
    image = "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>"
    template = chat("{role}: ", image=image, video=video, between="\n", end="a: ")
    processor = hf.Ernie4_5_VLMoeProcessor(
        hf.Ernie4_5_VLMoeImageProcessor(size=_area(28)),
        tok,
        hf.Ernie4_5_VLMoeVideoProcessor(size=_area(28), draw_on_frames=False),  # the font comes with checkpoints
        chat_template=template,
    )
    return made(hf.Ernie4_5_VLMoeForConditionalGeneration, config), processor


def paddleocr_vl() -> tuple[Any, Any]:
    """PaddleOCR-VL: patches come in raster order, not by cell."""
    marks = ("<|IMAGE_START|>", "<|IMAGE_END|>")
    tok = tokenizer(*marks, bos=False, names={"image_token": "<|IMAGE_PLACEHOLDER|>"})
    config = hf.PaddleOCRVLConfig(
        text_config=WORDS | _vocabulary(tok) | {"rope_parameters": MROPE},
        vision_config=TOWER,
        **_ids(tok, image_token_id="<|IMAGE_PLACEHOLDER|>", vision_start_token_id=marks[0]),
    )
    template = chat("{role}: ", image="<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>", between="\n", end="a: ")
    processor = hf.PaddleOCRVLProcessor(hf.PaddleOCRVLImageProcessor(size=_area(28)), tok, chat_template=template)
    return made(hf.PaddleOCRVLForConditionalGeneration, config), processor


def cohere_compass() -> tuple[Any, Any]:
    """Cohere Compass: visual features enter at several layers."""
    marks = ("<|VISION_START|>", "<|VISION_END|>")
    tok = tokenizer(*marks, "<|IMAGE_PAD|>", "<|VIDEO_PAD|>", bos=False)
    rope = {"rope_parameters": {"full_attention": MROPE}}
    ids = _ids(tok, image_token_id="<|IMAGE_PAD|>", video_token_id="<|VIDEO_PAD|>")
    config = hf.CohereCompassConfig(
        text_config=TEXT | _vocabulary(tok) | rope | {"logit_scale": 1.0},
        vision_config=DEEP | {"out_hidden_size": 64, "patch_size": 16, "deepstack_visual_indexes": [0, 1]},
        **ids,
        **_ids(tok, vision_start_token_id=marks[0], vision_end_token_id=marks[1]),
    )
    template = chat("{role}: ", image=marks[0] + "<|IMAGE_PAD|>" + marks[1], video="<|VIDEO_PAD|>", end="a: ")
    processor = hf.CohereCompassProcessor(
        hf.CohereCompassImageProcessor(size=_area(32), patch_size=16),
        tok,
        hf.CohereCompassVideoProcessor(size=_area(32), patch_size=16),
        chat_template=template,
    )
    return made(hf.CohereCompassForConditionalGeneration, config), processor


def cosmos3_edge() -> tuple[Any, Any]:
    """Cosmos3 Edge."""
    tok = _qwen_tokenizer()
    config = hf.Cosmos3EdgeConfig(
        text_config=WORDS | _vocabulary(tok) | {"rope_parameters": MROPE},
        vision_config=TOWER | {"num_patches": 16},
        projector_hidden_size=64,
        **_qwen_ids(tok),
    )
    processor = hf.Cosmos3EdgeProcessor(
        hf.Cosmos3EdgeImageProcessor(size=_area(32)),
        tok,
        hf.Cosmos3EdgeVideoProcessor(size=_area(32)),
        chat_template=QWEN_CHAT,
    )
    return made(hf.Cosmos3EdgeForConditionalGeneration, config), processor


def cosmos3_omni() -> tuple[Any, Any]:
    """Cosmos3 Omni: Qwen3-VL under another name."""
    tok = _qwen_tokenizer()
    config = hf.Cosmos3OmniConfig(
        text_config=WORDS | _vocabulary(tok) | {"rope_parameters": MROPE},
        vision_config=DEEP | {"out_hidden_size": 64, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        **_qwen_ids(tok),
    )
    processor = hf.Qwen3VLProcessor(
        hf.Qwen2VLImageProcessor(size=_area(32), patch_size=16),
        tok,
        hf.Qwen3VLVideoProcessor(size=_area(32)),
        chat_template=QWEN_CHAT,
    )
    return made(hf.Cosmos3OmniForConditionalGeneration, config), processor


def lfm3_vl() -> tuple[Any, Any]:
    """LFM3-VL: convolutions and attention, sliding and full, in words and picture alike."""
    tok = _qwen_tokenizer()
    types = ["conv", "full_attention", "sliding_attention", "full_attention"]
    text = {"layer_types": types, "num_hidden_layers": 4, "sliding_window": 24, "conv_L_cache": 3}
    vision = {"num_key_value_heads": 1, "layer_types": ["conv", "full_attention"]}
    config = hf.Lfm3VlConfig(
        text_config=WORDS | _vocabulary(tok) | text,
        vision_config=TOWER | vision,
        projector_hidden_size=64,
        **_qwen_ids(tok),
    )
    processor = hf.Lfm3VlProcessor(
        hf.Qwen2VLImageProcessor(size=_area(32), patch_size=16),
        tok,
        hf.Qwen3VLVideoProcessor(size=_area(32)),
        chat_template=QWEN_CHAT,
    )
    return made(hf.Lfm3VlForConditionalGeneration, config), processor


def minimax_m3_vl() -> tuple[Any, Any]:
    """MiniMax M3 VL: a layer that chooses blocks of keys between two that see all."""
    image, video = "]<]image[>[", "]<]video[>["
    tok = tokenizer(image, video, "]<]start of image[>[", "]<]end of image[>[", bos=False)
    sparse = {"index_n_heads": 2, "index_head_dim": 16, "index_block_size": 8, "index_topk_blocks": 2}
    types = {"layer_types": ["full_attention", "minimax_m3_sparse", "full_attention"], "index_local_blocks": 1}
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "dense_intermediate_size": 64}
    rope = {"rotary_dim": 16, "shared_intermediate_size": 32}
    ids = _ids(tok, image_token_index=image, video_token_index=video)
    config = hf.MiniMaxM3VLConfig(
        text_config=WORDS | _vocabulary(tok) | sparse | types | experts | rope,
        vision_config=TOWER | {"hidden_size": 64},
        projector_hidden_size=64,
        **ids,
    )
    processor = hf.MiniMaxM3VLProcessor(
        hf.MiniMaxM3VLImageProcessor(size=_area(28)),
        tok,
        hf.MiniMaxM3VLVideoProcessor(min_pixels=4 * 28 * 28, max_pixels=12 * 28 * 28),
        chat_template=chat("{role}: ", image=image, video=video, between="\n", end="a: "),
    )
    return made(hf.MiniMaxM3SparseForConditionalGeneration, config), processor


MUSE = ("<|image_start|>", "<|image_end|>", "<|vid_frame_separator|>", "<|vid_start|>", "<|vid_end|>")
MUSE_TOWER = TOWER | {"pos_emb_height": 4, "pos_emb_width": 4, "max_position_embeddings": 16}
MUSE_SIZES = {"out_hidden_size": 128, "projector_hidden_size": 64}


def _muse_parts() -> tuple[Any, Any, dict[str, Any], dict[str, int]]:
    tok = tokenizer("<|patch|>", "<|video|>", "<|audio|>", "<|soft_audio_start|>", "<|soft_audio_end|>", *MUSE)
    text = WORDS | _vocabulary(tok) | {"num_hidden_layers": 4, "sliding_window": 24}
    ids = _ids(tok, image_token_id="<|patch|>", video_token_id="<|video|>")
    return tok, hf.MuseGlimmerImageProcessor(max_image_tokens=24), text, ids


def muse_glimmer() -> tuple[Any, Any]:
    """Muse Glimmer: window attention in the tower, sliding windows in the decoder."""
    tok, image_processor, text, ids = _muse_parts()
    config = hf.MuseGlimmerConfig(text_config=text, vision_config=MUSE_TOWER, **MUSE_SIZES, **ids)
    processor = hf.MuseGlimmerProcessor(
        image_processor,
        hf.MuseGlimmerVideoProcessor(),
        tok,
        chat_template=chat("{role}: ", image="<|patch|>", video="<|video|>", between="\n", end="a: "),
    )
    return made(hf.MuseGlimmerForConditionalGeneration, config), processor


def muse_spark() -> tuple[Any, Any]:
    """Muse Spark: Muse Glimmer with experts and ears."""
    tok, image_processor, text, ids = _muse_parts()
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "moe_hidden_size": 32}
    ears = {"patch_sizes": [4, 2], "hidden_sizes": [16, 32], "depths": [1, 1], "num_hidden_layers": 2}
    config = hf.MuseSparkConfig(
        text_config=text | experts,
        vision_config=MUSE_TOWER,
        audio_config=ears | {"out_hidden_size": 64},
        audio_token_id=tok.convert_tokens_to_ids("<|audio|>"),
        **MUSE_SIZES,
        **ids,
    )
    processor = hf.MuseSparkProcessor(
        image_processor,
        hf.MuseGlimmerVideoProcessor(),
        tok,
        hf.MuseSparkFeatureExtractor(samples_per_token=8),
        chat_template=chat("{role}: ", image="<|patch|>", video="<|video|>", between="\n", end="a: "),
    )
    return made(hf.MuseSparkForConditionalGeneration, config), processor


def dots3_note() -> tuple[Any, Any]:
    """Dots 3 Note: compressed keys, layers that choose keys, layers with a window."""
    tok = tokenizer("<|img|>", "<|endofimg|>", "<|imgpad|>", "<|video_pad|>", "<|audio_comp_pad|>", bos=False)
    latent = {"q_lora_rank": 32, "kv_lora_rank": 32, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}
    window = {f"swa_{name}": value for name, value in latent.items()} | {
        "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_head_dim": 16, "sliding_window": 24,
    }  # fmt: skip
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    chosen = {"index_topk": 12, "index_head_dim": 16, "index_n_heads": 2, "shared_experts_intermediate_size": 32}
    text = WORDS | _vocabulary(tok) | latent | window | experts | chosen | {"num_key_value_heads": 4}
    tower = TOWER | {"mlp_layer_types": ["dense", "dense"], "adapter_in_dim": 32, "adapter_out_dim": 64}
    whisper = {"d_model": 32, "encoder_attention_heads": 2, "encoder_layers": 1, "encoder_ffn_dim": 64}
    config = hf.Dots3NoteConfig(
        text_config=text | {"num_hidden_layers": 4},
        vision_config=tower,
        audio_config={"whisper_config": whisper, "adapter_input_size": 32, "adapter_out_dim": 64},
        **_ids(tok, image_token_id="<|imgpad|>", video_token_id="<|video_pad|>", audio_token_id="<|audio_comp_pad|>"),
    )
    processor = hf.Dots3NoteProcessor(
        hf.Qwen2VLImageProcessor(size=_area(28), temporal_patch_size=1),
        tok,
        hf.Qwen3VLVideoProcessor(size=_area(28), patch_size=14, temporal_patch_size=1),
        hf.Dots3NoteFeatureExtractor(),
        chat_template=chat(
            "{role}: ", image="<|img|><|imgpad|><|endofimg|>", video="<|video_pad|>", between="\n", end="a: "
        ),
    )
    return made(hf.Dots3NoteForConditionalGeneration, config), processor


def kimi_k25() -> tuple[Any, Any]:
    """Kimi K2.5: compressed keys; pictures are padded, not stretched."""
    names = {"image_token": "<|media_pad|>", "video_token": "<|kimi_k25_video_placeholder|>"}
    tok = tokenizer("<|media_begin|>", "<|media_content|>", "<|media_end|>", bos=False, names=names)
    latent = {"q_lora_rank": 32, "kv_lora_rank": 32, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_group": 2}
    text = TEXT | _vocabulary(tok) | latent | experts | {"topk_group": 1, "num_key_value_heads": 4}
    config = hf.Kimi_K25Config(
        text_config=text | {"model_type": "deepseek_v3", "first_k_dense_replace": 1},
        vision_config=TOWER | {"pos_emb_height": 8, "pos_emb_width": 8},
        projection_hidden_size=32,
        **_ids(tok, image_token_id=names["image_token"], video_token_id=names["video_token"]),
        **_ids(tok, vision_start_token_id="<|media_begin|>", vision_end_token_id="<|media_end|>"),
    )
    image = "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>"
    processor = hf.Kimi_K25Processor(
        hf.Kimi_K25ImageProcessor(max_patches=100, size={"max_height": 24, "max_width": 24}),
        tok,
        hf.Kimi_K25VideoProcessor(max_patches=100, size={"max_height": 24, "max_width": 24}),
        chat_template=chat("{role}: ", image=image, video=names["video_token"], between="\n", end="a: "),
    )
    return made(hf.Kimi_K25ForConditionalGeneration, config), processor


def hunyuan_vl() -> tuple[Any, Any]:
    """HunYuan-VL: rows end, and the picture begins and ends, with learned tokens."""
    names = {"image_token": "<image>", "image_start_token": "<img>", "image_end_token": "</img>"}
    tok = tokenizer(bos=False, names=names)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2, 2]}
    config = hf.HunYuanVLConfig(
        text_config=WORDS | _vocabulary(tok) | {"rope_parameters": rope},
        vision_config=TOWER | {"out_hidden_size": 64, "max_image_size": 128},
        **_ids(tok, image_token_id="<image>", im_start_id="<img>", im_end_id="</img>"),
    )
    processor = hf.HunYuanVLProcessor(
        hf.HunYuanVLImageProcessor(size=_area(32)),
        tok,
        chat_template=chat("{role}: ", image="<img><image></img>", between="\n", end="a: "),
    )
    return made(hf.HunYuanVLForConditionalGeneration, config), processor


def hy_v4_vl() -> tuple[Any, Any]:
    """Hy4: compressed keys with sinks, of which layers choose some; rows end with a learned token."""
    tok = tokenizer("<img>", "</img>", bos=False, names=QWEN)
    latent = {"q_lora_rank": 32, "kv_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 8, "v_head_dim": 16}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "hc_mult": 2}
    chosen = {"index_topk": 12, "index_head_dim": 32, "index_n_heads": 2, "learnable_sink_init": 0.5}
    config = hf.HYV4VLConfig(
        text_config=TEXT | _vocabulary(tok) | latent | experts | chosen | {"rope_parameters": MROPE},
        vision_config=TOWER | {"out_hidden_size": 64, "max_image_size": 128},
        **_ids(tok, image_token_id=QWEN["image_token"], video_token_id=QWEN["video_token"]),
    )
    processor = hf.HYV4VLProcessor(
        hf.HYV4VLImageProcessor(size=_area(32)),
        tok,
        hf.HYV4VLVideoProcessor(size=_area(32)),
        chat_template=chat("{role}: ", image="<img><|image_pad|></img>", video="<img><|video_pad|></img>", end="a: "),
    )
    return made(hf.HYV4VLForConditionalGeneration, config), processor


def nemotron_h_omni() -> tuple[Any, Any]:
    """Nemotron Omni: state space layers with few attention layers between; RADIO's tower."""
    marks = {"image_token": "<image>", "image_start_token": "<img>", "image_end_token": "</img>"}
    tok = tokenizer("<video>", "<so_embedding>", "<so_start>", "<so_end>", bos=False, names=marks)
    types = ["linear_attention", "full_attention", "mlp", "full_attention"]
    mamba = {"mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 2, "chunk_size": 16}
    tower = {"image_size": 64, "patch_size": 16, "max_img_size": 256, "num_cls_tokens": 1, "num_registers": 2}
    config = hf.NemotronH_Omni_Reasoning_V3_Config(
        text_config=WORDS | mamba | _vocabulary(tok) | {"layer_types": types},
        vision_config=TOWER | tower | {"model_type": "radio", "video_temporal_patch_size": 2},
        projector_hidden_size=64,
        vision_hidden_size=32,
        **_ids(tok, image_token_id="<image>", video_token_id="<video>", audio_token_id="<so_embedding>"),
    )
    processor = hf.NemotronH_Omni_Reasoning_V3Processor(
        hf.NemotronH_Omni_Reasoning_V3ImageProcessor(min_num_patches=24, max_num_patches=96),
        hf.NemotronH_Omni_Reasoning_V3VideoProcessor(),
        tok,
        hf.ParakeetFeatureExtractor(),
        chat_template=chat("{role}: ", image="<image>", between="\n", end="a: "),
    )
    return made(hf.NemotronH_Omni_Reasoning_V3, config), processor


MODELS = {
    "cohere_compass": cohere_compass,
    "cosmos3_edge": cosmos3_edge,
    "cosmos3_omni": cosmos3_omni,
    "dots3_note": dots3_note,
    "ernie4_5_vl_moe": ernie4_5_vl_moe,
    "hunyuan_vl": hunyuan_vl,
    "hy_v4_vl": hy_v4_vl,
    "kimi_k25": kimi_k25,
    "lfm3_vl": lfm3_vl,
    "minimax_m3_vl": minimax_m3_vl,
    "muse_glimmer": muse_glimmer,
    "muse_spark": muse_spark,
    "nemotron_h_omni": nemotron_h_omni,
    "paddleocr_vl": paddleocr_vl,
}
