"""Tiny models whose tower shrinks its grid by convolutions."""

from __future__ import annotations

from typing import Any

from tests.tiny.parts import TEXT, made, tokenizer

VISION = {
    "hidden_size": 32,
    "output_channels": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 128,
    "patch_size": 8,
    "window_size": 4,
    "global_attn_indexes": [1],
    "mlp_dim": 64,
    "initializer_range": 0.02,
}
SPECIAL = ("<|im_start|>", "<|im_end|>", "<img>", "</img>", "<imgpad>")
SQUARE = {"height": 128, "width": 128}


def _text(tok: Any) -> dict[str, Any]:
    return TEXT | {"model_type": "qwen2", "vocab_size": len(tok), "tie_word_embeddings": False}


def _got_ocr2(**images: Any) -> tuple[Any, Any]:
    from transformers import GotOcr2Config, GotOcr2ForConditionalGeneration, GotOcr2ImageProcessor, GotOcr2Processor

    tok = tokenizer(*SPECIAL, bos=False)
    processor = GotOcr2Processor(GotOcr2ImageProcessor(size=SQUARE), tok)
    processor.num_image_tokens = 16
    processor.images_kwargs = processor.images_kwargs | images
    config = GotOcr2Config(
        vision_config=VISION, text_config=_text(tok), image_token_index=tok.convert_tokens_to_ids("<imgpad>")
    )
    return made(GotOcr2ForConditionalGeneration, config), processor


def got_ocr2() -> tuple[Any, Any]:
    """GOT-OCR 2: 16 patches a side become 4 cells."""
    return _got_ocr2()


def got_ocr2_tiled() -> tuple[Any, Any]:
    """GOT-OCR 2 with up to 3 tiles and a thumbnail."""
    return _got_ocr2(crop_to_patches=True, max_patches=3)


def pp_chart2table() -> tuple[Any, Any]:
    """PP-Chart2Table, with the chat template of its kind: it writes a question of its own."""
    from transformers import (
        GotOcr2ForConditionalGeneration,
        PPChart2TableConfig,
        PPChart2TableImageProcessor,
        PPChart2TableProcessor,
    )

    tok = tokenizer(*SPECIAL, bos=False)
    template = "{% for message in messages %}<img>{% for _ in range(16) %}<imgpad>{% endfor %}</img>\nChart{% endfor %}"
    processor = PPChart2TableProcessor(PPChart2TableImageProcessor(size=SQUARE), tok, chat_template=template)
    config = PPChart2TableConfig(
        vision_config=VISION, text_config=_text(tok), image_token_index=tok.convert_tokens_to_ids("<imgpad>")
    )
    return made(GotOcr2ForConditionalGeneration, config), processor


MODELS = {"got_ocr2": got_ocr2, "got_ocr2_tiled": got_ocr2_tiled, "pp_chart2table": pp_chart2table}
