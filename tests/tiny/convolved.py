"""Tiny models whose tower shrinks its grid by convolutions."""

from __future__ import annotations

from typing import Any

import torch

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


def belled(tower: Any) -> None:
    """Convolutions keep the size of what they get, and weigh their middle most and the rest alike on all sides."""
    for module in tower.modules():
        if isinstance(module, torch.nn.Conv2d):
            far = torch.arange(module.kernel_size[0]) - (module.kernel_size[0] - 1) / 2
            bell = torch.softmax(-(far**2), dim=0)
            made_of = module.weight.data[:, :, :1, :1]
            gain = 1 / (made_of.std() * made_of.shape[1] ** 0.5)
            module.weight.data.copy_(gain * made_of * torch.outer(bell, bell))


def fast_vlm() -> tuple[Any, Any]:
    """FastVLM, with a narrow and shallow tower of its architecture."""
    from transformers import CLIPImageProcessor, FastVlmConfig, FastVlmForConditionalGeneration, LlavaProcessor

    tok = tokenizer("<|im_start|>", "<|im_end|>", bos=False, names={"image_token": "<image>"})
    size = {"size": {"shortest_edge": 320}, "crop_size": {"height": 320, "width": 320}}
    processor = LlavaProcessor(CLIPImageProcessor(**size), tok, patch_size=64, vision_feature_select_strategy="full")
    narrow = {"layers": (1, 1, 1, 1, 1), "embed_dims": (8, 16, 32, 32, 32), "inference_mode": True}
    config = FastVlmConfig(
        vision_config={
            "model_type": "timm_wrapper",
            "architecture": "fastvit_mci3",
            "do_pooling": True,
            "hidden_size": 64,
            "model_args": narrow,
        },
        text_config=_text(tok),
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        image_seq_length=25,
    )
    model = made(FastVlmForConditionalGeneration, config)
    belled(model.model.vision_tower)
    return model, processor


def gemma3n() -> tuple[Any, Any]:
    """Gemma 3n, with a narrow tower of its architecture: 8 x 8 tokens averaged to 4 x 4."""
    from transformers import (
        Gemma3nAudioFeatureExtractor,
        Gemma3nConfig,
        Gemma3nForConditionalGeneration,
        Gemma3nProcessor,
        SiglipImageProcessor,
    )

    names = {f"{k}_token": f"<{k}>" for k in ("boi", "eoi", "image", "boa", "eoa", "audio")}
    tok = tokenizer("<start_of_turn>", "<end_of_turn>", names=names)
    processor = Gemma3nProcessor(
        Gemma3nAudioFeatureExtractor(),
        SiglipImageProcessor(size={"height": 128, "width": 128}, do_normalize=False),
        tok,
        image_seq_length=16,
    )
    text = TEXT | {
        "vocab_size": len(tok),
        "vocab_size_per_layer_input": len(tok),
        "head_dim": 16,
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "sliding_window": 40,
        "hidden_size_per_layer_input": 8,
        "altup_num_inputs": 2,
        "laurel_rank": 8,
        "num_kv_shared_layers": 2,
        "activation_sparsity_pattern": [0.0] * 4,
    }
    sound = {
        "vocab_size": 8,
        "vocab_offset": len(tok) + 8,
        "hidden_size": 32,
        "conf_num_attention_heads": 2,
        "conf_num_hidden_layers": 1,
        "sscp_conv_channel_size": (8, 8),
    }
    tower = {"vocab_size": 8, "vocab_offset": len(tok), "hidden_size": 2048}
    tower["model_args"] = {"channel_multiplier": 0.0625, "msfa_output_resolution": 4}
    config = Gemma3nConfig(
        text_config=text,
        audio_config=sound,
        vision_config=tower,
        vision_soft_tokens_per_image=16,
        image_token_id=tok.image_token_id,
        audio_token_id=tok.audio_token_id,
        boi_token_id=tok.boi_token_id,
        eoi_token_id=tok.eoi_token_id,
    )
    model = made(Gemma3nForConditionalGeneration, config)
    belled(model.model.vision_tower)
    for name, weight in model.model.vision_tower.named_parameters():
        # Its norms leave no trace of how bright a picture is, and its layers start next to nothing.
        if name.endswith("stem.conv.bias"):
            weight.data.copy_(torch.linspace(-1, 1, len(weight)))
        if name.endswith("layer_scale.gamma"):
            weight.data.fill_(0.1)
    return model, processor


MODELS = {
    "fast_vlm": fast_vlm,
    "gemma3n": gemma3n,
    "got_ocr2": got_ocr2,
    "got_ocr2_tiled": got_ocr2_tiled,
    "pp_chart2table": pp_chart2table,
}
