"""Adapters of PEFT: held, merged, and in folders with or without their base model."""

from __future__ import annotations

import json
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import vlmattn as va
from tests.tiny_models import build
from vlmattn.api import tuned
from vlmattn.capture import Session, model_sites
from vlmattn.core.errors import DependencyMissing, ModelError, ModelLoadError, UnsupportedModel

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # PEFT's own
QUESTION = "Is the red cup left of the red spoon?"
FULL = va.CaptureSpec(rows=("question", "answer"), dtype="float32")
PICTURE = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"]


def ask(vlm: va.Vlm, **options: Any) -> va.Run:
    settings = {"max_new_tokens": 4, "capture": FULL, "suppress_tokens": [vlm.adapter.image_token_id]}
    return vlm.ask(PICTURE, QUESTION, **settings | options)


def close(one: va.Run, other: va.Run, tolerance: float = 1e-5) -> bool:
    same = np.array_equal(one.trace.layout.input_ids, other.trace.layout.input_ids)
    return same and np.allclose(one.trace.attn_lhqk, other.trace.attn_lhqk, atol=tolerance)


def lora(model: Any, **options: Any) -> Any:
    """A PEFT model whose adapter changes what it does, in attention and elsewhere."""
    peft = pytest.importorskip("peft")
    settings = {"r": 4, "target_modules": r".*language_model.*\.(" + "|".join(TARGETS) + ")"} | options
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**settings))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    return wrapped.eval()


@lru_cache(maxsize=1)
def plain() -> va.Run:
    return ask(va.load(*build("llava")))


@lru_cache(maxsize=1)
def merged() -> va.Run:
    return ask(va.load(lora(build("llava")[0]).merge_and_unload(), build("llava")[1]))


@pytest.mark.parametrize("task", [None, "CAUSAL_LM"])
@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_that_is_held_acts_as_when_it_is_merged(task: str | None, dora: bool) -> None:
    wrapped = lora(build("llava")[0], task_type=task, use_dora=dora)
    processor = build("llava")[1]
    vlm = va.load(wrapped, processor)
    assert vlm.name == "LlavaForConditionalGeneration + LORA adapter 'default'"
    assert vlm.model is wrapped.get_base_model()
    run = ask(vlm)
    assert np.abs(run.trace.attn_lhqk - plain().trace.attn_lhqk).max() > 1e-2
    proof = vlm.verify(max_new_tokens=2)
    assert proof.largest_logit_difference == 0
    assert proof.row_error is not None
    assert proof.row_error < 1e-5
    values = run.map("cup", method="value").patch_map.values[0]
    with wrapped.disable_adapter():
        assert close(ask(vlm), plain())
        base = ask(vlm).map("cup", method="value").patch_map.values[0]
    assert not np.allclose(values, base, rtol=1e-2)
    wrapped.merge_adapter()
    assert close(ask(vlm), run)
    wrapped.unmerge_adapter()
    again = va.load(wrapped.merge_and_unload(), processor)
    want = ask(again)
    assert close(want, run)
    # The output projection is that of the adapter too.
    assert np.allclose(values, want.map("cup", method="value").patch_map.values[0], rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("task", [None, "CAUSAL_LM"])
def test_a_session_finds_the_decoder_behind_the_wrapper(task: str | None) -> None:
    wrapped = lora(build("llava")[0], task_type=task)
    vlm = va.load(wrapped, build("llava")[1])
    assert model_sites(wrapped) is model_sites(vlm.model)
    encoded = vlm.encode([vlm._pictures(PICTURE)], [QUESTION])
    kept = []
    for model in (wrapped, vlm.model):
        with Session(model, encoded.layouts, va.CaptureSpec(rows=("question", "answer"), dtype="float32")) as session:
            out = model.generate(**encoded.inputs, max_new_tokens=3, do_sample=False)
        kept.append(session.finish(sequences=out)[0])
    assert torch.equal(kept[0].attn_lhqk, kept[1].attn_lhqk)
    assert kept[0].candidates is not None
    assert np.array_equal(kept[0].candidates.chosen_logp_t, kept[1].candidates.chosen_logp_t)


def saved(place: Path, *, beside: bool, processor: bool = False, base: str | None = None) -> Path:
    """An adapter in a folder; its base model in the same one, or in a folder next to it."""
    model, own = build("llava")
    home = place if beside else place.parent / "base"
    model.save_pretrained(home)
    (own if beside or not processor else build("llava")[1]).save_pretrained(home)
    wrapped = lora(model)
    wrapped.peft_config["default"].base_model_name_or_path = str(home) if base is None else base
    wrapped.save_pretrained(place)
    if processor:
        own.save_pretrained(place)
    return place


@pytest.mark.parametrize("beside", [False, True])
def test_a_folder_with_an_adapter_loads_it_on_its_base(beside: bool, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    place = saved(tmp_path / "adapter", beside=beside)
    base = place if beside else tmp_path / "base"
    vlm = va.load(place, dtype="float32")
    assert vlm.name == f"{base} + LORA adapter" + ("" if beside else f" {place}")
    assert close(ask(vlm), merged())
    spread = va.load(place, dtype="float32", device_map={"": "cpu"})
    assert close(ask(spread), merged())
    with pytest.raises(ModelLoadError, match="has no revisions"):
        va.load(place, revision="main")


def test_a_processor_beside_the_adapter_comes_first(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    place = saved(tmp_path / "adapter", beside=False, processor=True)
    (tmp_path / "base" / "processor_config.json").unlink()
    assert va.load(place, dtype="float32").family == "llava"


def test_a_hub_name_may_hold_an_adapter(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    place = saved(tmp_path / "adapter", beside=False)
    repo = tmp_path / "hub" / "models--someone--tiny-lora"
    shutil.copytree(place, repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    vlm = va.load("someone/tiny-lora", cache_dir=str(tmp_path / "hub"), dtype="float32")
    assert vlm.revision == COMMIT
    assert vlm.name == f"{tmp_path / 'base'} + LORA adapter someone/tiny-lora"
    assert close(ask(vlm), merged())


def settings_of(place: Path, **values: Any) -> Path:
    file = place / tuned.SETTINGS
    held = json.loads(file.read_text()) | values
    file.write_text(json.dumps({k: v for k, v in held.items() if v is not None}))
    return place


def reweighed(place: Path, change: Any) -> Path:
    weights = load_file(place / tuned.WEIGHTS)
    save_file(change(weights), place / tuned.WEIGHTS, metadata={"format": "pt"})
    return place


def without_first(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(sorted(weights.items())[1:])


def cut_first(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = min(name for name in weights if "lora_A" in name)
    return weights | {name: weights[name][:, :-1].contiguous()}


def one_more(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = min(weights)
    return weights | {name.replace("layers.0", "layers.7"): weights[name].clone()}


def pickled(place: Path) -> Path:
    torch.save(load_file(place / tuned.WEIGHTS), place / "adapter_model.bin")
    (place / tuned.WEIGHTS).unlink()
    return place


def without_base_weights(place: Path) -> Path:
    (place.parent / "base" / "model.safetensors").unlink()
    return place


def incomplete_base(place: Path) -> Path:
    file = place.parent / "base" / "model.safetensors"
    weights = {k: v for k, v in load_file(file).items() if "layers.1.mlp" not in k or "language" not in k}
    save_file(weights, file, metadata={"format": "pt"})
    return place


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda p: settings_of(p, base_model_name_or_path=None), ModelLoadError, "names no base model: load that one"),
        (
            lambda p: settings_of(p, base_model_name_or_path="someone/nothing-here"),
            ModelLoadError,
            "no model configuration for someone/nothing-here, the base model of ",
        ),
        (lambda p: settings_of(p, peft_type="PREFIX_TUNING"), UnsupportedModel, "PREFIX_TUNING puts learnt tokens"),
        (lambda p: settings_of(p, peft_type="XLORA"), UnsupportedModel, "runs the model once more"),
        (lambda p: settings_of(p, alora_invocation_tokens=[5]), UnsupportedModel, "invocation tokens"),
        (lambda p: settings_of(p, target_modules=["nowhere"]), ModelLoadError, "cannot be put on .*nowhere"),
        (lambda p: settings_of(p, r=8), ModelLoadError, "of another shape"),
        (lambda p: reweighed(p, without_first), ModelLoadError, "does not fit .*lacks 1 weights"),
        (lambda p: reweighed(p, cut_first), ModelLoadError, "does not fit .*of another shape, 1 weights"),
        (lambda p: reweighed(p, one_more), ModelLoadError, "does not fit .*without a place for them, 1 weights"),
        (pickled, ModelLoadError, "without adapter_model.safetensors: only safetensors are read"),
        (without_base_weights, ModelLoadError, "no model.safetensors"),
        (incomplete_base, ModelLoadError, "lacks 3 weights of its model"),
    ],
)
def test_adapters_that_cannot_be_used_are_one_clear_error(
    spoil: Any, error: type[ModelError], message: str, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    place = spoil(saved(tmp_path / "adapter", beside=False))
    with pytest.raises(error, match=message) as told:
        va.load(place, local_files_only=True)
    assert "\n" not in str(told.value)


def test_a_base_beside_its_adapter_is_complete_or_refused(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    place = saved(tmp_path / "adapter", beside=True)
    weights = {k: v for k, v in load_file(place / "model.safetensors").items() if "lm_head" not in k}
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match="lacks 1 weights of its model"):
        va.load(place)


def test_held_adapters_that_are_no_part_of_the_layers_are_refused() -> None:
    peft = pytest.importorskip("peft")
    model, processor = build("llava")
    sizes = {"num_layers": 3, "token_dim": 64, "num_attention_heads": 4, "num_virtual_tokens": 3}
    wrapped = peft.get_peft_model(model, peft.PromptTuningConfig(task_type="CAUSAL_LM", **sizes))
    with pytest.raises(UnsupportedModel, match=r"PROMPT_TUNING puts learnt tokens .* base model without it"):
        va.load(wrapped, processor)


@pytest.mark.parametrize("beside", [False, True])
def test_an_adapter_is_never_left_out_silently(beside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.utils

    model, processor = build("llava")
    place = tmp_path / "adapter"
    if beside:
        model.save_pretrained(place)
        processor.save_pretrained(place)
    place.mkdir(exist_ok=True)
    (place / tuned.SETTINGS).write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "someone/base"}))
    with pytest.raises(ModelLoadError, match=r"without adapter_model.safetensors"):
        va.load(place)
    save_file({"a": torch.zeros(1)}, place / tuned.WEIGHTS)
    monkeypatch.setattr(transformers.utils, "is_peft_available", lambda: False)
    with pytest.raises(DependencyMissing, match="left out without PEFT: pip install peft, or merge"):
        va.load(place)
    (place / tuned.SETTINGS).write_text("{")
    with pytest.raises(ModelLoadError, match=r"adapter_config.json of .* cannot be read"):
        va.load(place)
