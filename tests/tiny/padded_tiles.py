"""Tiny models whose tiles are cut from a padded picture."""

from __future__ import annotations

from typing import Any

from tests.tiny.parts import TEXT, chat, made, tokenizer


def llama4() -> tuple[Any, Any]:
    """Llama 4."""
    from transformers import Llama4Config, Llama4ForConditionalGeneration, Llama4ImageProcessor, Llama4Processor

    turns = ("<|header_start|>", "<|header_end|>", "<|eot|>")
    marks = ("<|image|>", "<|image_start|>", "<|image_end|>", "<|patch|>", "<|tile_x_separator|>")
    tok = tokenizer(*turns, *marks, "<|tile_y_separator|>")
    text = TEXT | {"vocab_size": len(tok), "head_dim": 16, "intermediate_size_mlp": 64, "intermediate_size": 64}
    vision = {
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 7,
        "vision_output_dim": 48,
        "projector_input_dim": 48,
        "projector_output_dim": 48,
    }
    config = Llama4Config(
        text_config=text
        | {"attention_chunk_size": 96, "num_local_experts": 2, "moe_layers": [1], "no_rope_layers": [1, 1, 0]},
        vision_config=vision,
        image_token_index=tok.convert_tokens_to_ids("<|patch|>"),
        boi_token_index=tok.convert_tokens_to_ids("<|image_start|>"),
        eoi_token_index=tok.convert_tokens_to_ids("<|image_end|>"),
    )
    template = chat(
        "<|header_start|>{role}<|header_end|>\n\n",
        image="<|image|>",
        between="<|eot|>",
        end="<|header_start|>assistant<|header_end|>\n\n",
    )
    images = Llama4ImageProcessor(size={"height": 56, "width": 56}, max_patches=6)
    processor = Llama4Processor(images, tok, patch_size=7, chat_template=template)
    model = made(Llama4ForConditionalGeneration, config)
    model.language_model.register_forward_hook(_with_image_outputs)
    return model, processor


def _with_image_outputs(_module: Any, _args: Any, output: Any) -> Any:
    """transformers 5.23 reads a field off its language model's output that only the outer output has."""
    if not hasattr(output, "image_outputs"):
        output.image_outputs = None
    return output


MODELS = {"llama4": llama4}
