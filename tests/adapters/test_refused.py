"""Families that are refused: each with a reason of its own, which holds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vlmattn.adapters import families
from vlmattn.adapters.refused import REFUSED
from vlmattn.adapters.registry import check_config
from vlmattn.capture import model_sites
from vlmattn.core.errors import UnsupportedAttention, UnsupportedModel

TINY_TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 40,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
TINY_VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_the_reason_is_told(kind: str) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    assert kind in (*MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, "qwen2_5_omni", "qwen3_omni_moe")
    assert not [f.name for f in families() if kind in f.model_types]
    assert "\n" not in REFUSED[kind]
    with pytest.raises(UnsupportedModel) as raised:
        check_config(SimpleNamespace(model_type=kind, vision_config=None))
    assert str(raised.value) == f"model type {kind!r} is not supported: {REFUSED[kind]}"


def _blip() -> Any:
    import transformers as tf

    config = tf.BlipConfig(
        text_config=TINY_TEXT | {"encoder_hidden_size": 16, "projection_dim": 16, "sep_token_id": 2},
        vision_config=TINY_VISION,
        projection_dim=16,
    )
    return tf.BlipForConditionalGeneration(config)


def _git() -> Any:
    import transformers as tf

    return tf.GitForCausalLM(tf.GitConfig(**TINY_TEXT, vision_config=TINY_VISION | {"projection_dim": 16}))


@pytest.mark.parametrize("build", [_blip, _git])
def test_rows_past_the_dispatch_cannot_be_kept(build: Any) -> None:
    with pytest.raises(UnsupportedAttention, match="compute it themselves"):
        model_sites(build())


def test_the_projector_of_aria_attends_in_torch() -> None:
    import torch
    from transformers.models.aria.modeling_aria import AriaCrossAttention

    vision = SimpleNamespace(hidden_size=16, num_attention_heads=2)
    with torch.device("meta"):
        projector = AriaCrossAttention(SimpleNamespace(vision_config=vision))
    assert any(isinstance(module, torch.nn.MultiheadAttention) for module in projector.modules())
