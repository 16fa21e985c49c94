"""Tiny models that write pictures in codes."""

from __future__ import annotations

from typing import Any

import torch

from tests.tiny.parts import TEXT, chat, made, tokenizer

CODES = 48
SCALE = torch.linspace(-1.0, 11.0, CODES)
TURN = {"user": "{role}: ", "between": " ", "end": "assistant:", "image": "<image>"}
VQ = {"base_channels": 32, "num_res_blocks": 1, "embed_dim": 4, "latent_channels": 4}


@torch.no_grad()
def plant_brightness(tokenizer: Any, words: torch.Tensor, codes: list[int], *, dot: bool = False) -> None:
    """Weights of a tokenizer of pictures with which a code says how bright its cell is among those of its picture.

    Random ones would answer a spot with codes that have nothing to do with each other, all over the picture. ``codes``
    are rows of ``words``, the embedding, and ``dot`` says that the quantiser compares by dot product.
    """
    for name, weight in [*tokenizer.encoder.named_parameters(), *tokenizer.quant_conv.named_parameters()]:
        if "norm" in name:
            continue
        weight.zero_()
        middle = (1, 1) if weight.shape[-1] == 3 else (0, 0)
        if name == "conv_in.weight":
            weight[:, :, 1, 1] = 1 / weight.shape[1]
        elif "downsample.conv.weight" in name:
            for channel in range(len(weight)):
                weight[channel, channel, :2, :2] = 0.25
        elif name == "conv_out.weight" or name.startswith("time_conv") or name in ("weight", "conv.weight"):
            if weight.ndim == 4:
                weight[0, 0, middle[0], middle[1]] = 1.0
            elif weight.ndim == 5:
                weight[0, 0, -1, middle[0], middle[1]] = 1.0
    book = tokenizer.quantize.embedding.weight
    book.zero_()
    book[:, 0] = SCALE
    if dot:  # the nearest level has the largest 2 x level - level^2
        book[:, 0], book[:, 1] = 2 * SCALE, -(SCALE**2)
        tokenizer.quant_conv.bias[1] = 1.0
    words[codes] = 0.01 * words[codes] + torch.linspace(0, 1, CODES)[:, None]


def chameleon() -> tuple[Any, Any]:
    """Chameleon, whose language model holds the tokenizer of pictures."""
    from transformers import (
        ChameleonConfig,
        ChameleonForConditionalGeneration,
        ChameleonImageProcessor,
        ChameleonProcessor,
    )

    letters = ["".join(chr(ord("A") + int(d)) for d in str(k)) for k in range(CODES)]
    marks = [f"IMGIMG{name}Z" for name in letters]
    names = {"image_token": "<image>", "boi_token": "<racm3:break>", "eoi_token": "<eoss>"}
    tok = tokenizer("<sep>", *marks, names=names)
    tok.sep_token = "<sep>"
    config = ChameleonConfig(
        **(TEXT | {"vocab_size": len(tok), "vocabulary_map": tok.get_vocab()}),
        vq_config=VQ | {"num_embeddings": CODES, "resolution": 56, "channel_multiplier": [1, 1, 1, 1]},
    )
    pictures = ChameleonImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    model = made(ChameleonForConditionalGeneration, config)
    codes = [tok.convert_tokens_to_ids(mark) for mark in marks]
    plant_brightness(model.model.vqmodel, model.get_input_embeddings().weight, codes)
    return model, ChameleonProcessor(pictures, tok, image_seq_length=49)


def emu3() -> tuple[Any, Any]:
    """Emu3, asked for text."""
    from transformers import Emu3Config, Emu3ForConditionalGeneration, Emu3ImageProcessor, Emu3Processor

    marks = [f"<|visual token {k:06d}|>" for k in range(CODES)]
    names = {
        "image_token": "<image>",
        "boi_token": "<|image start|>",
        "eoi_token": "<|image end|>",
        "image_wrapper_token": "<|image token|>",
        "eof_token": "<|extra_201|>",
    }
    tok = tokenizer("<|extra_200|>", *marks, bos=False, names=names)
    tok.bos_token = "<s>"
    vq = VQ | {
        "codebook_size": CODES,
        "channel_multiplier": [1, 1, 1, 1],
        "attn_resolutions": [3],
        "hidden_size": 32,
        "temporal_downsample_factor": 4,
    }
    text = TEXT | {"vocab_size": len(tok), "pad_token_id": 0, "bos_token_id": tok.bos_token_id}
    config = Emu3Config(text_config=text, vq_config=vq, vocabulary_map=tok.get_vocab())
    processor = Emu3Processor(
        Emu3ImageProcessor(min_pixels=8 * 8 * 12, max_pixels=8 * 8 * 40), tok, chat_template=chat(**TURN)
    )
    model = made(Emu3ForConditionalGeneration, config)
    codes = [tok.convert_tokens_to_ids(mark) for mark in marks]
    plant_brightness(model.model.vqmodel, model.get_input_embeddings().weight, codes)
    return model, processor


def apertus1p5() -> tuple[Any, Any]:
    """Apertus 1.5, whose codes follow its words and are never written."""
    from transformers import (
        Apertus1p5Config,
        Apertus1p5ForConditionalGeneration,
        Apertus1p5ImageProcessor,
        Apertus1p5Processor,
        WavTokenizerFeatureExtractor,
    )

    names = {
        "image_token": "<image>",
        "audio_token": "<|audio|>",
        "boi_token": "<|img_start|>",
        "eoi_token": "<|img_end|>",
        "image_wrapper_token": "<|img_token|>",
        "eol_token": "<|img_end_of_row|>",
        "boa_token": "<|audio_start|>",
        "eoa_token": "<|audio_end|>",
    }
    tok = tokenizer(names=names)
    first = len(tok)
    sound = {
        "model_type": "wavtokenizer_encoder",
        "num_filters": 4,
        "upsampling_ratios": [2, 2],
        "hidden_size": 8,
        "codebook_dim": 8,
        "codebook_size": 4,
        "num_lstm_layers": 1,
    }
    config = Apertus1p5Config(
        text_config=TEXT | {"vocab_size": first + CODES + 4, "output_vocab_size": first},
        vision_config=VQ | {"codebook_size": CODES, "channel_multiplier": [1, 1, 1, 1], "resolution": 64},
        audio_config=sound,
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        audio_token_id=tok.convert_tokens_to_ids("<|audio|>"),
        image_token_offset=first,
        audio_token_offset=first + CODES,
    )
    pictures = Apertus1p5ImageProcessor(size={"min_pixels": 8 * 8 * 12, "max_pixels": 8 * 8 * 40}, spatial_factor=8)
    processor = Apertus1p5Processor(pictures, WavTokenizerFeatureExtractor(), tok, chat_template=chat(**TURN))
    model = made(Apertus1p5ForConditionalGeneration, config)
    codes = list(range(first, first + CODES))
    plant_brightness(model.model.vision_tokenizer, model.get_input_embeddings().weight, codes, dot=True)
    return model, processor


MODELS = {"chameleon": chameleon, "emu3": emu3, "apertus1p5": apertus1p5}
