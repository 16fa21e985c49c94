"""Tiny text decoders with every kind of attention the engine has to reproduce, and their eager references."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers as tf

from vlmattn.core.layout import TokenLayout, plain_layout

VOCAB = 97
COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}


def _full_and_sliding() -> list[str]:
    return ["sliding_attention", "full_attention"] * 2


CONFIGS: dict[str, Callable[[], Any]] = {
    "llama_gqa": lambda: tf.LlamaConfig(**COMMON),
    "llama_mha": lambda: tf.LlamaConfig(**(COMMON | {"num_key_value_heads": 4})),
    "mistral_window": lambda: tf.MistralConfig(**COMMON, sliding_window=9, head_dim=16),
    "gemma2_softcap": lambda: tf.Gemma2Config(
        **COMMON, head_dim=16, sliding_window=9, attn_logit_softcapping=1.0, query_pre_attn_scalar=16
    ),
    "gemma3_window": lambda: tf.Gemma3TextConfig(
        **COMMON, head_dim=16, sliding_window=9, layer_types=_full_and_sliding(), query_pre_attn_scalar=16
    ),
    "gpt_oss_sinks": lambda: tf.GptOssConfig(
        **COMMON, head_dim=16, sliding_window=9, layer_types=_full_and_sliding(), num_local_experts=2,
        num_experts_per_tok=1
    ),
    "deepseek_mla": lambda: tf.DeepseekV3Config(
        **(COMMON | {"num_key_value_heads": 4}), q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=16,
        qk_rope_head_dim=8, v_head_dim=12, n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2,
        moe_intermediate_size=32, first_k_dense_replace=1, n_group=2, topk_group=1
    ),
    "cohere2_window": lambda: tf.Cohere2Config(**COMMON, sliding_window=9, layer_types=_full_and_sliding()),
    "llama4_chunked": lambda: tf.Llama4TextConfig(
        **COMMON, head_dim=16, attention_chunk_size=8, intermediate_size_mlp=96, num_local_experts=2,
        num_experts_per_tok=1, interleave_moe_layer_step=2
    ),
    "lfm2_hybrid": lambda: tf.Lfm2Config(
        **COMMON, layer_types=["conv", "full_attention", "conv", "full_attention"], block_multiple_of=8
    ),
    "qwen3_next_hybrid": lambda: tf.Qwen3NextConfig(
        **COMMON, head_dim=16, layer_types=["linear_attention"] * 3 + ["full_attention"], linear_key_head_dim=8,
        linear_value_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4, num_experts=4,
        num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=32, decoder_sparse_step=1
    ),
    "inkling2_hybrid_sinks": lambda: tf.Inkling2TextConfig(
        **{k: v for k, v in COMMON.items() if k != "intermediate_size"}, head_dim=16, swa_num_attention_heads=4,
        swa_num_key_value_heads=2, swa_head_dim=16, sliding_window_size=9, rel_extent=12, d_rel=8,
        layer_types=["hybrid_sliding", "hybrid"] * 2, n_routed_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=32, n_layers_per_attn_res_block=2, unpadded_vocab_size=VOCAB
    ),
}  # fmt: skip

SHARING: dict[str, Callable[[], Any]] = {
    "gemma4_shared": lambda: tf.Gemma4TextConfig(
        **COMMON, head_dim=16, global_head_dim=24, sliding_window=9, layer_types=_full_and_sliding(),
        num_kv_shared_layers=2, hidden_size_per_layer_input=8, vocab_size_per_layer_input=VOCAB
    ),
}  # fmt: skip
"""Decoders whose last layers read the keys of earlier ones, and compute one row of a prompt where one is asked for."""

EAGER_ONLY = {"gemma2_softcap", "gpt_oss_sinks", "inkling2_hybrid_sinks"}


def decoder(name: str, *, attention: str = "sdpa", seed: int = 0) -> Any:
    """A tiny random causal LM; attention is made sharp so that an error would show."""
    torch.manual_seed(seed)
    config = (CONFIGS | SHARING)[name]()
    kernel = "eager" if name in EAGER_ONLY else attention
    model = tf.AutoModelForCausalLM.from_config(config, attn_implementation=kernel).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "norm" not in key and weight.ndim > 1 and ("q_" in key or "k_" in key or "kv_" in key):
                weight.mul_(4.5)
            if "embed_tokens" in key:
                weight.mul_(3.0)
            if key.endswith("sinks"):
                weight.copy_(torch.linspace(-1, 1, weight.numel()))
    return model


def padded_batch(lengths: tuple[int, ...] = (23, 17), seed: int = 1) -> tuple[dict[str, torch.Tensor], list[int]]:
    """A left-padded batch of random ids, and the padding of each sequence."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    ids = torch.zeros((len(lengths), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for line, length in enumerate(lengths):
        ids[line, longest - length :] = torch.randint(3, VOCAB, (length,), generator=generator)
        mask[line, longest - length :] = 1
    return {"input_ids": ids, "attention_mask": mask}, [longest - n for n in lengths]


def layouts_of(inputs: dict[str, torch.Tensor], pads: list[int]) -> list[TokenLayout]:
    """Plain layouts with tokens 2 … 9 as image tokens."""
    lines = zip(inputs["input_ids"], pads, strict=True)
    return [plain_layout(ids[pad:].numpy(), np.arange(2, 10)) for ids, pad in lines]


def eager_twin(model: Any) -> Any:
    """The same weights under eager attention."""
    twin = type(model)._from_config(copy.deepcopy(model.config), attn_implementation="eager").eval()
    twin.load_state_dict(model.state_dict())
    return twin
