"""Tiny models whose encoder reads nothing but the picture."""

from __future__ import annotations

from typing import Any

from tests.tiny.encoder_decoder import BART
from tests.tiny.parts import made, tokenizer


def donut() -> tuple[Any, Any]:
    """Donut: windows of 2 x 2 patches in 2 stages, the second of 8 pixels a patch; pages of 96 x 64 pixels."""
    from transformers import (
        DonutImageProcessor,
        DonutProcessor,
        DonutSwinConfig,
        MBartConfig,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
    )

    tok = tokenizer("<s_docvqa>", "<s_question>", "</s_question>", "<s_answer>", bos=False, padding_side="right")
    images = DonutImageProcessor(size={"height": 96, "width": 64})
    vision = {"embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 2, "patch_size": 4}
    text = BART | {"encoder_layers": 3, "vocab_size": len(tok), "is_decoder": True, "add_cross_attention": True}
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        DonutSwinConfig(image_size=[96, 64], **vision), MBartConfig(**text)
    )
    config.decoder_start_token_id = tok.convert_tokens_to_ids("<s_docvqa>")
    config.pad_token_id = tok.pad_token_id
    return made(VisionEncoderDecoderModel, config), DonutProcessor(images, tok)


MODELS = {"vision-encoder-decoder": donut}
