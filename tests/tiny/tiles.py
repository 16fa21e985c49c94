"""Tiny models that cut pictures into square tiles."""

from __future__ import annotations

from typing import Any

from tests.tiny.parts import IM_START, TEXT, chat, made, tokenizer

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SQUARE = {"height": 56, "width": 56}


def _internvl_names() -> dict[str, str]:
    return {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }


def _cropping(most: int = 6) -> Any:
    from transformers import GotOcr2ImageProcessor

    return GotOcr2ImageProcessor(size=SQUARE, crop_to_patches=True, min_patches=1, max_patches=most)


def internvl() -> tuple[Any, Any]:
    """InternVL3."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLProcessor, InternVLVideoProcessor

    tok = tokenizer("<|im_start|>", "<|im_end|>", bos=False, names=_internvl_names())
    vision = TOWER | {"image_size": [56, 56], "patch_size": [7, 7]}
    config = InternVLConfig(
        text_config=TEXT | {"model_type": "qwen2", "vocab_size": len(tok)},
        vision_config=vision,
        image_token_id=tok.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=16,
    )
    template = chat(**IM_START, image="<IMG_CONTEXT>\n")
    processor = InternVLProcessor(
        _cropping(), tok, InternVLVideoProcessor(size=SQUARE), image_seq_length=16, chat_template=template
    )
    return made(InternVLForConditionalGeneration, config), processor


def qianfan_ocr() -> tuple[Any, Any]:
    """Qianfan-OCR."""
    from transformers import QianfanOCRConfig, QianfanOCRForConditionalGeneration, QianfanOCRProcessor

    tok = tokenizer("<|im_start|>", "<|im_end|>", "<image>", bos=False, names=_internvl_names())
    config = QianfanOCRConfig(
        text_config=TEXT | {"model_type": "qwen3", "vocab_size": len(tok), "head_dim": 16},
        vision_config=TOWER | {"image_size": [56, 56], "patch_size": [14, 14]},
        image_token_id=tok.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    processor = QianfanOCRProcessor(_cropping(), tok, image_seq_length=4, chat_template=chat(**IM_START))
    return made(QianfanOCRForConditionalGeneration, config), processor


COHERE_TURNS = {
    "user": "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
    "between": "<|END_OF_TURN_TOKEN|>",
    "end": "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
}
COHERE_MARKS = ("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>")


def _cohere(vocabulary: int) -> dict[str, Any]:
    return TEXT | {"model_type": "cohere2", "vocab_size": vocabulary, "head_dim": 16, "sliding_window": 2048}


def aya_vision() -> tuple[Any, Any]:
    """Aya Vision."""
    from transformers import AyaVisionConfig, AyaVisionForConditionalGeneration, AyaVisionProcessor

    marks = ("<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "TILE_GLOBAL")
    tok = tokenizer(*COHERE_MARKS, *marks)
    vision = TOWER | {"model_type": "siglip_vision_model", "image_size": 56, "patch_size": 14}
    config = AyaVisionConfig(
        text_config=_cohere(len(tok)),
        vision_config=vision | {"vision_use_head": False},
        image_token_index=tok.convert_tokens_to_ids("<|IMG_PATCH|>"),
    )
    processor = AyaVisionProcessor(
        _cropping(), tok, patch_size=14, img_size=56, downsample_factor=2, chat_template=chat(**COHERE_TURNS)
    )
    return made(AyaVisionForConditionalGeneration, config), processor


def cohere2_vision() -> tuple[Any, Any]:
    """Command A Vision."""
    from transformers import (
        Cohere2VisionConfig,
        Cohere2VisionForConditionalGeneration,
        Cohere2VisionImageProcessor,
        Cohere2VisionProcessor,
    )

    names = {
        "boi_token": "<|START_OF_IMG|>",
        "eoi_token": "<|END_OF_IMG|>",
        "image_token": "<|IMG_PATCH|>",
        "img_line_break_token": "<|IMG_LINE_BREAK|>",
    }
    tok = tokenizer(*COHERE_MARKS, names=names)
    vision = TOWER | {"model_type": "siglip_vision_model", "image_size": 56, "patch_size": 7}
    config = Cohere2VisionConfig(
        text_config=_cohere(len(tok)),
        vision_config=vision | {"vision_use_head": False},
        image_token_id=tok.convert_tokens_to_ids("<|IMG_PATCH|>"),
        alignment_intermediate_size=64,
    )
    images = Cohere2VisionImageProcessor(size=SQUARE, patch_size=4, max_patches=6)
    template = chat(**COHERE_TURNS, image="<|IMG_PATCH|>")
    return made(Cohere2VisionForConditionalGeneration, config), Cohere2VisionProcessor(
        images, tok, chat_template=template
    )


IDEFICS_TURNS = {"user": "<|im_start|>User:", "between": "<end_of_utterance>\n", "end": "Assistant:"}


def _idefics_tokenizer(**names: str) -> Any:
    rows = [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)]
    marks = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", "<|im_start|>")
    return tokenizer(*marks, *rows, bos=False, names=names)


def _idefics_images(cls: type) -> Any:
    return cls(size={"longest_edge": 168}, max_image_size={"longest_edge": 56})


def idefics3() -> tuple[Any, Any]:
    """Idefics3."""
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessor,
        Idefics3Processor,
    )

    tok = _idefics_tokenizer()
    config = Idefics3Config(
        text_config=TEXT | {"model_type": "llama", "vocab_size": len(tok)},
        vision_config=TOWER | {"image_size": 56, "patch_size": 7},
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    processor = Idefics3Processor(
        _idefics_images(Idefics3ImageProcessor), tok, image_seq_len=16, chat_template=chat(**IDEFICS_TURNS)
    )
    return made(Idefics3ForConditionalGeneration, config), processor


def smolvlm() -> tuple[Any, Any]:
    """SmolVLM2. ``num2words`` only spells out how many frames a video has."""
    from transformers import (
        SmolVLMConfig,
        SmolVLMForConditionalGeneration,
        SmolVLMImageProcessor,
        SmolVLMVideoProcessor,
    )
    from transformers.models.smolvlm import processing_smolvlm

    processing_smolvlm.num2words = processing_smolvlm.num2words or str
    tok = _idefics_tokenizer()
    config = SmolVLMConfig(
        text_config=TEXT | {"model_type": "llama", "vocab_size": len(tok)},
        vision_config=TOWER | {"image_size": 56, "patch_size": 7},
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        scale_factor=4,
    )
    processor = processing_smolvlm.SmolVLMProcessor(
        _idefics_images(SmolVLMImageProcessor),
        tok,
        SmolVLMVideoProcessor(size={"longest_edge": 168}, max_image_size={"longest_edge": 56}),
        image_seq_len=4,
        chat_template=chat(**IDEFICS_TURNS),
    )
    return made(SmolVLMForConditionalGeneration, config), processor


def granite_docling() -> tuple[Any, Any]:
    """Granite Docling."""
    from transformers import (
        GraniteDoclingConfig,
        GraniteDoclingForConditionalGeneration,
        GraniteDoclingImageProcessor,
        GraniteDoclingProcessor,
    )

    tok = _idefics_tokenizer(image_token="<image>")
    vision = TOWER | {"image_size": 56, "patch_size": 7, "out_hidden_size": 64, "scale_factor": 4}
    config = GraniteDoclingConfig(
        text_config=TEXT | {"vocab_size": len(tok), "attention_multiplier": 0.25},
        vision_config=vision | {"deepstack_visual_indexes": [0, 1]},
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        pad_token_id=tok.pad_token_id,
    )
    images = GraniteDoclingImageProcessor(size=SQUARE, max_patches=6)
    processor = GraniteDoclingProcessor(images, tok, image_seq_len=4, chat_template=chat(**IDEFICS_TURNS))
    return made(GraniteDoclingForConditionalGeneration, config), processor


def ovis2() -> tuple[Any, Any]:
    """Ovis2."""
    from transformers import Ovis2Config, Ovis2ForConditionalGeneration, Ovis2ImageProcessor, Ovis2Processor

    marks = ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")
    tok = tokenizer("<|im_start|>", "<|im_end|>", "<image>", "<IMG_ATOM>", *marks, bos=False)
    config = Ovis2Config(
        text_config=TEXT | {"model_type": "qwen2", "vocab_size": len(tok)},
        vision_config=TOWER | {"image_size": 56, "patch_size": 7, "hidden_stride": 2, "vocab_size": 96},
        image_token_id=tok.convert_tokens_to_ids("<IMG_ATOM>"),
        visual_indicator_token_ids=tok.convert_tokens_to_ids(list(marks)),
        vocab_size=len(tok),
        hidden_size=64,
    )
    images = Ovis2ImageProcessor(size=SQUARE, crop_to_patches=True, max_patches=6)
    processor = Ovis2Processor(images, tok, image_seq_length=16, chat_template=chat(**IM_START))
    return made(Ovis2ForConditionalGeneration, config), processor


def perception_lm() -> tuple[Any, Any]:
    """Perception LM."""
    from transformers import (
        PerceptionLMConfig,
        PerceptionLMForConditionalGeneration,
        PerceptionLMImageProcessor,
        PerceptionLMProcessor,
        PerceptionLMVideoProcessor,
    )

    names = {"image_token": "<|image|>", "video_token": "<|video|>"}
    tok = tokenizer("<|im_start|>", "<|im_end|>", bos=False, names=names)
    args = {"embed_dim": 32, "img_size": [56, 56], "depth": 2, "num_heads": 2, "ref_feat_shape": [4, 4]}
    config = PerceptionLMConfig(
        text_config=TEXT | {"model_type": "llama", "vocab_size": len(tok)},
        vision_config={
            "model_type": "timm_wrapper",
            "architecture": "vit_pe_lang_large_patch14_448",
            "model_args": args | {"global_pool": "", "use_post_transformer_norm": False, "init_values": 0.1},
            "do_pooling": False,
        },
        image_token_id=tok.convert_tokens_to_ids("<|image|>"),
        video_token_id=tok.convert_tokens_to_ids("<|video|>"),
        projector_pooling_ratio=2,
    )
    images = PerceptionLMImageProcessor(tile_size=56, max_num_tiles=6, size=SQUARE)
    processor = PerceptionLMProcessor(
        PerceptionLMVideoProcessor(size=SQUARE),
        images,
        tok,
        patch_size=14,
        pooling_ratio=2,
        chat_template=chat(**IM_START, image="<|image|>", video="<|video|>"),
    )
    return made(PerceptionLMForConditionalGeneration, config), processor


MODELS = {
    "aya_vision": aya_vision,
    "cohere2_vision": cohere2_vision,
    "granite_docling": granite_docling,
    "idefics3": idefics3,
    "internvl": internvl,
    "ovis2": ovis2,
    "perception_lm": perception_lm,
    "qianfan_ocr": qianfan_ocr,
    "smolvlm": smolvlm,
}
