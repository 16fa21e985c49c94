"""What tiny models share: a tokenizer of bytes, text sizes, and weights that make attention far from uniform."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
"""Sizes of a tiny language model, for the configurations that use these names."""


_SHARPENED = ("q_proj.", "k_proj.", "q_b_proj.", "kv_a_proj_with_mqa.", "kv_b_proj.")


def tokenizer(
    *more: str, bos: bool = True, names: dict[str, str] | None = None, padding_side: str = "left"
) -> PreTrainedTokenizerFast:
    """Byte-level BPE without merges, with ``<s>``, ``</s>``, ``<pad>`` and ``more`` as special tokens.

    ``names`` maps attributes of the tokenizer (``image_token``) to special tokens.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = list(dict.fromkeys(["<s>", "</s>", "<pad>", *more, *(names or {}).values()]))
    core.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in special])
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>" if bos else None,
        eos_token="</s>",
        pad_token="<pad>",
        padding_side=padding_side,
        extra_special_tokens=names or {},
    )


def chat(user: str, *, image: str = "<image>", video: str = "<video>", between: str = "", end: str = "") -> str:
    """A chat template: ``user`` before and ``between`` after each message's parts, ``end`` where the answer begins.

    ``{role}`` in ``user`` stands for the role.
    """
    before = user.replace("{role}", "{{ message['role'] }}")
    parts = (
        "{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}"
        + image
        + "{% elif part['type'] == 'video' %}"
        + video
        + "{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    )
    return (
        "{% for message in messages %}"
        + before
        + parts
        + between
        + "{% endfor %}{% if add_generation_prompt %}"
        + end
        + "{% endif %}"
    )


IM_START = {"user": "<|im_start|>{role}\n", "between": "<|im_end|>\n", "end": "<|im_start|>assistant\n"}


def made(cls: type, config: Any, *, seed: int = 0) -> Any:
    """A model with random weights in eval mode; queries, keys and embeddings scaled so that attention is sharp."""
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(seed)
        model = cls(config).eval()
    finally:
        torch.random.set_rng_state(state)
    with torch.no_grad():
        for name, weight in model.get_decoder().named_parameters():
            if name.endswith("weight") and any(part in name for part in _SHARPENED):
                weight.mul_(4.5)
            if "embed_tokens" in name:
                weight.mul_(3.0)
    return model
