"""Tiny relatives of LLaVA and LLaVA-NeXT."""

from __future__ import annotations

from typing import Any

from tests.tiny.parts import TEXT, made, tokenizer

NAMES = {"image_token": "<image>", "video_token": "<video>"}
CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "projection_dim": 32,
    "image_size": 56,
    "patch_size": 14,
}
SIZE = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]


def video_llava() -> tuple[Any, Any]:
    """Video-LLaVA."""
    from transformers import (
        VideoLlavaConfig,
        VideoLlavaForConditionalGeneration,
        VideoLlavaImageProcessor,
        VideoLlavaProcessor,
        VideoLlavaVideoProcessor,
    )

    tok = tokenizer(names=NAMES)
    processor = VideoLlavaProcessor(
        VideoLlavaImageProcessor(**SIZE), VideoLlavaVideoProcessor(**SIZE), tok, patch_size=14
    )
    config = VideoLlavaConfig(
        vision_config=CLIP,
        text_config=TEXT | {"model_type": "llama", "vocab_size": len(tok)},
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        video_token_index=tok.convert_tokens_to_ids("<video>"),
    )
    return made(VideoLlavaForConditionalGeneration, config), processor


def llava_next_video() -> tuple[Any, Any]:
    """LLaVA-NeXT-Video."""
    from transformers import (
        LlavaNextImageProcessor,
        LlavaNextVideoConfig,
        LlavaNextVideoForConditionalGeneration,
        LlavaNextVideoProcessor,
        LlavaNextVideoVideoProcessor,
    )

    tok = tokenizer(names=NAMES)
    processor = LlavaNextVideoProcessor(
        LlavaNextVideoVideoProcessor(**SIZE),
        LlavaNextImageProcessor(**SIZE, image_grid_pinpoints=PINPOINTS),
        tok,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    config = LlavaNextVideoConfig(
        vision_config=CLIP,
        text_config=TEXT | {"model_type": "llama", "vocab_size": len(tok)},
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        video_token_index=tok.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=PINPOINTS,
    )
    return made(LlavaNextVideoForConditionalGeneration, config), processor


def granite4_vision() -> tuple[Any, Any]:
    """Granite 4 Vision: windows of 4 patches become 2 cells a side."""
    from transformers import (
        Granite4VisionConfig,
        Granite4VisionForConditionalGeneration,
        Granite4VisionProcessor,
        LlavaNextImageProcessor,
    )

    tok = tokenizer(names={"image_token": "<image>"})
    pinpoints = [[2 * h, 2 * w] for h, w in PINPOINTS]
    size = {"size": {"shortest_edge": 112}, "crop_size": {"height": 112, "width": 112}}
    processor = Granite4VisionProcessor(
        LlavaNextImageProcessor(**size, image_grid_pinpoints=pinpoints),
        tok,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        downsample_rate="2/4",
    )
    config = Granite4VisionConfig(
        vision_config=CLIP | {"hidden_size": 64, "image_size": 112},
        text_config=TEXT | {"vocab_size": len(tok), "num_hidden_layers": 5},
        qformer_config={"model_type": "blip_2_qformer", "num_hidden_layers": 1, "intermediate_size": 64},
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
        downsample_rate="2/4",
        deepstack_layer_map=[[-2, 0]],
        spatial_target_layers=[1, 2, 3, 4],
    )
    return made(Granite4VisionForConditionalGeneration, config), processor


MODELS = {"video_llava": video_llava, "llava_next_video": llava_next_video, "granite4_vision": granite4_vision}
