"""Tiny models that see pictures through the queries of a resampler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.tiny.parts import TEXT, chat, made, tokenizer

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
    "initializer_range": 0.1,
}
QFORMER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "encoder_hidden_size": 32,
    "vocab_size": 300,
    "initializer_range": 0.1,
}


def opt(vocabulary: int) -> dict[str, Any]:
    """A tiny OPT."""
    return {
        "model_type": "opt",
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "word_embed_proj_dim": 64,
        "ffn_dim": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 1024,
        "dropout": 0.0,
        "bos_token_id": 256,
        "eos_token_id": 257,
        "pad_token_id": 258,
    }


def queries_drawn(model: Any) -> Any:
    """The model with queries that differ, and cross attention sharp enough to tell patches apart."""
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        model.query_tokens.copy_(torch.randn(model.query_tokens.shape, generator=generator))
        for name, weight in model.named_parameters():
            if "crossattention" in name and name.endswith(("query.weight", "key.weight")):
                weight.mul_(4.0)
    return model


def blip_2_with(tok: Any, text_of: Callable[[int], dict[str, Any]]) -> tuple[Any, Any]:
    """BLIP-2 with a language model: 4 layers of a Q-Former, 2 of them with cross attention."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessor

    processor = Blip2Processor(BlipImageProcessor(size={"height": 56, "width": 56}), tok, num_query_tokens=6)
    config = Blip2Config(
        vision_config=dict(VISION),
        qformer_config=dict(QFORMER),
        text_config=text_of(len(tok)),  # the processor has added its tokens
        num_query_tokens=6,
        image_token_index=tok.convert_tokens_to_ids("<image>"),
    )
    return queries_drawn(made(Blip2ForConditionalGeneration, config)), processor


def blip_2() -> tuple[Any, Any]:
    """BLIP-2 with OPT."""
    return blip_2_with(tokenizer(), opt)


def instructblip_with(tok: Any, text_of: Callable[[int], dict[str, Any]]) -> tuple[Any, Any]:
    """InstructBLIP with a language model."""
    from transformers import (
        BlipImageProcessor,
        InstructBlipConfig,
        InstructBlipForConditionalGeneration,
        InstructBlipProcessor,
    )

    reader, images = tokenizer(padding_side="right"), BlipImageProcessor(size={"height": 56, "width": 56})
    processor = InstructBlipProcessor(images, tok, reader, num_query_tokens=6)
    config = InstructBlipConfig(
        vision_config=dict(VISION),
        qformer_config=dict(QFORMER),
        text_config=text_of(len(tok)),  # the processor has added its tokens
        num_query_tokens=6,
        image_token_index=tok.convert_tokens_to_ids("<image>"),
    )
    return queries_drawn(made(InstructBlipForConditionalGeneration, config)), processor


def instructblip() -> tuple[Any, Any]:
    """InstructBLIP with a Llama decoder."""
    return instructblip_with(tokenizer(), lambda words: TEXT | {"model_type": "llama", "vocab_size": words})


def _idefics2(*, splits: bool) -> tuple[Any, Any]:
    from transformers import (
        Idefics2Config,
        Idefics2ForConditionalGeneration,
        Idefics2ImageProcessor,
        Idefics2Processor,
    )

    tok = tokenizer("<end_of_utterance>")
    images = Idefics2ImageProcessor(size={"shortest_edge": 40, "longest_edge": 70}, do_image_splitting=splits)
    processor = Idefics2Processor(images, tok, image_seq_len=5, chat_template=chat(**IDEFICS_TURNS))
    config = Idefics2Config(
        vision_config=VISION | {"image_size": 70, "initializer_range": 0.1},
        perceiver_config={
            "hidden_size": 64,
            "resampler_n_latents": 5,
            "resampler_depth": 2,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
            "num_key_value_heads": 1,
        },
        text_config=TEXT | {"model_type": "mistral", "vocab_size": len(tok)},
        image_token_id=tok.convert_tokens_to_ids("<image>"),
    )
    model = made(Idefics2ForConditionalGeneration, config)
    with torch.no_grad():
        resampler = model.model.connector.perceiver_resampler
        resampler.latents.copy_(torch.randn(resampler.latents.shape, generator=torch.Generator().manual_seed(1)))
        for layer in resampler.layers:
            layer.self_attn.q_proj.weight.mul_(12.0)
            layer.self_attn.k_proj.weight.mul_(12.0)
    return model, processor


def kosmos_text(vocabulary: int) -> dict[str, Any]:
    """The language model of a tiny KOSMOS."""
    return {
        "vocab_size": vocabulary,
        "max_position_embeddings": 1024,
        "embed_dim": 64,
        "layers": 3,
        "ffn_dim": 128,
        "attention_heads": 4,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "bos_token_id": 256,
        "eos_token_id": 257,
        "pad_token_id": 258,
    }


def reading_sharply(model: Any) -> Any:
    """A tiny KOSMOS whose queries tell patches apart."""
    with torch.no_grad():
        reader = model.image_to_text_projection
        reader.dense.weight.mul_(80.0)
        reader.x_attn.q_proj.weight.mul_(12.0)
        reader.x_attn.k_proj.weight.mul_(12.0)
    return model


def kosmos_2() -> tuple[Any, Any]:
    """KOSMOS-2: 5 queries of one layer of attention."""
    from transformers import CLIPImageProcessor, Kosmos2Config, Kosmos2ForConditionalGeneration, Kosmos2Processor

    tok = tokenizer("<unk>")
    tok.unk_token = "<unk>"
    images = CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    processor = Kosmos2Processor(images, tok, num_patch_index_tokens=4)
    processor.num_image_tokens, processor.first_image_token_id = 5, 60
    config = Kosmos2Config(
        text_config=kosmos_text(len(tok)),
        vision_config=VISION | {"initializer_range": 0.1},
        latent_query_num=5,
    )
    return reading_sharply(made(Kosmos2ForConditionalGeneration, config)), processor


def kosmos_2_5() -> tuple[Any, Any]:
    """KOSMOS-2.5: up to 24 patches of 8 pixels, 5 queries of one layer of attention."""
    from transformers import (
        Kosmos2_5Config,
        Kosmos2_5ForConditionalGeneration,
        Kosmos2_5ImageProcessor,
        Kosmos2_5Processor,
    )

    names = {"boi_token": "<image>", "eoi_token": "</image>", "image_token": "<s>"}
    tok = tokenizer("<md>", bos=False, names=names)
    tok.bos_token = "<s>"
    images = Kosmos2_5ImageProcessor(patch_size={"height": 8, "width": 8}, max_patches=24)
    processor = Kosmos2_5Processor(images, tok, num_image_tokens=5)
    processor.images_kwargs = processor.images_kwargs | {"max_patches": 24}
    vision = {
        "hidden_size": 32,
        "patch_embed_hidden_size": 192,
        "intermediate_size": 64,
        "head_dim": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_num_patches": 25,
    }
    config = Kosmos2_5Config(text_config=kosmos_text(len(tok)), vision_config=vision, latent_query_num=5)
    return reading_sharply(made(Kosmos2_5ForConditionalGeneration, config)), processor


def idefics2() -> tuple[Any, Any]:
    """Idefics2 without splitting."""
    return _idefics2(splits=False)


def idefics2_split() -> tuple[Any, Any]:
    """Idefics2 with a picture's quarters as views."""
    return _idefics2(splits=True)


IDEFICS_TURNS = {"user": "{role}:", "between": "<end_of_utterance>\n", "end": "assistant:"}
MODELS = {
    "blip-2": blip_2,
    "instructblip": instructblip,
    "kosmos-2": kosmos_2,
    "kosmos-2.5": kosmos_2_5,
    "idefics2": idefics2,
    "idefics2 split": idefics2_split,
}
