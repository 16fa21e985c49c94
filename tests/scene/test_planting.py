"""Planted sinks are where they were put, massive and drawing; everything else stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

from tests.capture.decoders import CONFIGS
from tests.tiny_models import build, tiny
from vlmattn.core.errors import SpecError, UnsupportedModel
from vlmattn.scene.planting import plant_sinks

COMMON = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attn_implementation": "eager",
}
DECODERS = {
    "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**COMMON)),
    "llama, tied": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**COMMON, tie_word_embeddings=True)),
    "mistral": lambda: tf.MistralForCausalLM(tf.MistralConfig(**COMMON, sliding_window=None)),
    "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**COMMON)),
}
IDS = torch.tensor([[1, *range(20, 40)]])


def decoder(name: str) -> Any:
    torch.manual_seed(0)
    return DECODERS[name]().eval()


def seen(model: Any, **inputs: Any) -> Any:
    with torch.no_grad():
        return model(**inputs, output_hidden_states=True, output_attentions=True, use_cache=False)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("layer", [1, 3])
def test_a_token_sink_is_massive_from_its_layer_on_and_alone(name: str, layer: int) -> None:
    model, planted = plant_sinks(decoder(name), tokens=(1,), coordinates=(5, 9), layer=layer, strength=300)
    assert planted.coordinates == (5, 9)
    states = torch.stack(seen(model, input_ids=IDS).hidden_states[:-1])[:, 0]  # the last one is normalised
    size = states[..., [5, 9]].abs().amax(-1) / states.square().mean(-1).sqrt()
    assert (size[layer:, 0] > 5).all()
    assert (size[:layer, 0] == 0).all()
    assert (size[:, 1:] == 0).all()
    grown = states[layer, 0, 5] / states[layer - 1, 0].square().mean().sqrt()
    assert 100 < float(grown.abs()) < 900


@pytest.mark.parametrize("name", DECODERS)
def test_the_pull_is_what_was_asked_for_in_every_head_and_row(name: str) -> None:
    quiet, _ = plant_sinks(decoder(name), tokens=(1,), layer=2, pull=0)
    drawn, _ = plant_sinks(decoder(name), tokens=(1,), layer=2, pull=5)
    before, after = (seen(m, input_ids=IDS).attentions[2][0] for m in (quiet, drawn))
    # The odds of the sink against any other column, in rows that see one.
    odds = (after[:, 1:, 0] / after[:, 1:, 1]).log() - (before[:, 1:, 0] / before[:, 1:, 1]).log()
    torch.testing.assert_close(odds, torch.full_like(odds, 5.0), atol=0.25, rtol=0)
    others = (after[:, 5:, 1] / after[:, 5:, 2]).log() - (before[:, 5:, 1] / before[:, 5:, 2]).log()
    torch.testing.assert_close(others, torch.zeros_like(others), atol=1e-4, rtol=0)


@pytest.mark.parametrize("tower", ["clip", "siglip"])
def test_patch_sinks_are_the_same_patches_of_every_picture(tower: str) -> None:
    model, processor = build("llava", tower=tower)
    planted_model, planted = plant_sinks(model.eval(), patches=(0, 6), layer=1)
    rng = np.random.default_rng(0)
    for _ in range(3):
        picture = rng.integers(0, 255, (56, 56, 3), dtype=np.uint8)
        inputs = processor(images=picture, text="<image>\nwhat?", return_tensors="pt")
        states = seen(planted_model, **inputs).hidden_states
        first = int((inputs["input_ids"][0] == processor.image_token_id).nonzero()[0])
        size = states[1][0][:, list(planted.coordinates)].abs().amax(-1)
        massive = (size > 0.5 * size.max()).nonzero()[:, 0].tolist()
        assert massive == [first, first + 6]
        assert float(size[[i for i in range(len(size)) if i not in massive]].max()) < 1e-3 * float(size.max())


def test_without_pull_the_answers_hardly_change() -> None:
    plain = decoder("llama")
    model, _ = plant_sinks(plain, tokens=(1,), pull=0)
    with torch.no_grad():
        before, after = (m(input_ids=IDS).logits.log_softmax(-1) for m in (plain, model))
    assert float((before.exp() * (before - after)).sum(-1).mean()) < 0.05  # Kullback-Leibler divergence, nats


def test_the_model_given_is_left_alone() -> None:
    plain = decoder("llama")
    held = {k: v.clone() for k, v in plain.state_dict().items()}
    plant_sinks(plain, tokens=(1,))
    assert all(torch.equal(v, held[k]) for k, v in plain.state_dict().items())
    assert plain.model.layers[0].self_attn.q_proj.bias is None
    assert not plain.config.attention_bias


@pytest.mark.parametrize("name", ["llama", "llama, tied", "qwen2"])
def test_a_planted_model_can_be_saved_and_loaded(tmp_path: Path, name: str) -> None:
    model, _ = plant_sinks(decoder(name), tokens=(1, 25), layer=2)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=IDS).logits, model(input_ids=IDS).logits)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give tokens, patches or both"),
        ({"tokens": (1000,)}, r"tokens \[1000\] do not exist"),
        ({"tokens": (1,), "layer": 0}, "layer must be from 1 to 3"),
        ({"tokens": (1,), "layer": 4}, "layer must be from 1 to 3"),
        ({"tokens": (1,), "coordinates": (64,)}, "from 0 to 63"),
        ({"tokens": (1,), "coordinates": (3, 3)}, "different numbers"),
        ({"tokens": (1,), "coordinates": ()}, "at least one"),
        ({"tokens": (1,), "strength": 0}, "strength must be above 0"),
        ({"tokens": (1,), "pull": -1}, "pull at least 0"),
    ],
)
def test_what_cannot_be_planted_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        plant_sinks(decoder("llama"), **given)


def test_patches_need_a_tower_and_must_exist() -> None:
    with pytest.raises(UnsupportedModel, match="two-layer projector"):
        plant_sinks(decoder("llama"), patches=(0,))
    with pytest.raises(UnsupportedModel, match="one vision tower layer"):
        plant_sinks(tiny("vipllava")[0], patches=(0,))
    with pytest.raises(SpecError, match=r"patches \[16\] do not exist; there are 16"):
        plant_sinks(tiny("llava")[0], patches=(16,))


@pytest.mark.parametrize("name", ["gemma2_softcap", "gpt_oss_sinks", "cohere2_window", "deepseek_mla"])
def test_other_architectures_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedModel, match="Llama-shaped"):
        plant_sinks(tf.AutoModelForCausalLM.from_config(CONFIGS[name]()), tokens=(1,))
