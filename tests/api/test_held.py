"""Pipelines, saved and loaded models of many families, and what is no fit: one clear error each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import vlmattn as va
from tests.tiny import TINY
from tests.tiny_models import build, tiny
from vlmattn.api import loading
from vlmattn.core.errors import LayoutError, ModelError, ModelLoadError, PromptError, UnsupportedModel

QUESTION = "Is the red cup left of the red spoon?"
PICTURE = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
ROUND_TRIP = (
    "qwen2_vl",
    "qwen3_vl",
    "glm4v",
    "mistral3",
    "idefics3",
    "internvl",
    "gemma3",
    "paligemma",
    "aya_vision",
    "ovis2",
    "smolvlm",
    "granite4_vision",
)


def ask(vlm: va.Vlm, question: Any = QUESTION, **options: Any) -> va.Run:
    return vlm.ask(PICTURE, question, **{"answer": "a cup"} | options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("held") / "tiny-llava"
    model, processor = tiny("llava")
    model.save_pretrained(place)
    processor.save_pretrained(place)
    return place


@pytest.mark.parametrize("kind", ROUND_TRIP)
def test_a_family_that_is_saved_is_loaded_again(kind: str, tmp_path: Path) -> None:
    model, processor = TINY[kind]()
    held = va.load(model, processor)
    model.save_pretrained(tmp_path / kind)
    processor.save_pretrained(tmp_path / kind)
    loaded = va.load(tmp_path / kind, dtype="float32")
    assert loaded.model is not model
    assert loaded.family == held.family
    assert loaded.adapter.describe() == held.adapter.describe()
    ours, theirs = ask(held), ask(loaded)
    assert np.array_equal(ours.trace.layout.input_ids, theirs.trace.layout.input_ids)
    assert np.array_equal(ours.trace.attn_lhqk, theirs.trace.attn_lhqk)
    assert ours.map("cup").peak_xy == theirs.map("cup").peak_xy
    assert theirs.trace.provenance.model == str(tmp_path / kind)


# -- pipelines ---------------------------------------------------------------------------------------------------------


def test_a_pipeline_gives_its_model_and_processor(folder: Path) -> None:
    from transformers import pipeline

    pipe = pipeline("image-text-to-text", model=str(folder), device="cpu", dtype="float32")
    vlm = va.load(pipe)
    assert (vlm.model, vlm.processor) == (pipe.model, pipe.processor)
    assert vlm.name == str(folder)
    want = ask(va.load(*tiny("llava")))
    assert np.array_equal(ask(vlm).trace.attn_lhqk, want.trace.attn_lhqk)
    other = tiny("llava")[1]
    assert va.load(pipe, other).processor is other


def test_pipelines_of_other_tasks_are_refused(folder: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM, pipeline

    sizes = {"vocab_size": 270, "hidden_size": 8, "intermediate_size": 8}
    text = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=1, num_attention_heads=1))
    pipe = pipeline("text-generation", model=text, tokenizer=tiny("llava")[1].tokenizer, device="cpu")
    with pytest.raises(ModelLoadError, match="pipeline of task 'text-generation' holds no processor"):
        va.load(pipe)
    with pytest.raises(UnsupportedModel, match="text-only"):
        va.load(pipe, tiny("llava")[1])


# -- what does not fit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("qwen2_vl", UnsupportedModel, "llava needs a LlavaProcessor.*, got Qwen2VLProcessor"),
        ("mistral3", UnsupportedModel, "llava needs a LlavaProcessor.*, got PixtralProcessor"),
    ],
)
def test_a_processor_of_another_family_is_told_before_weights_are_read(
    kind: str, error: type[ModelError], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "load_weights", lambda *_: pytest.fail("weights were read"))
    other = TINY[kind]()[1]
    with pytest.raises(error, match=message):
        va.load(folder, other)
    with pytest.raises(error, match=message):
        va.load(tiny("llava")[0], other)
    with pytest.raises(UnsupportedModel, match=r"got PreTrainedTokenizerFast|got TokenizersBackend"):
        va.load(folder, other.tokenizer)


@pytest.mark.parametrize(
    ("images", "question", "message"),
    [
        ([], QUESTION, "no picture was given"),
        ([], [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?a"}]}], "no picture was"),
        (PICTURE, "what is in <image>?", "contains '<image>', which this model reads as a picture's place"),
        ([PICTURE], [{"role": "user", "content": [{"type": "image"}] * 2 + ["what?"]}], "2 places, 1 pictures"),
        ([PICTURE] * 3, [{"role": "user", "content": [{"type": "image"}, "what?"]}], "1 places, 3 pictures"),
    ],
)
def test_pictures_and_their_places_must_match(images: Any, question: Any, message: str) -> None:
    vlm = va.load(*tiny("llava"))
    with pytest.raises(PromptError, match=message):
        vlm.ask(images, question, answer="a")


def truncating(place: Path, how: str, most: int) -> Path:
    """Make the saved processor cut its prompts to ``most`` tokens."""
    if how == "tokenizer.json":
        held = json.loads((place / how).read_text())
        held["truncation"] = {"direction": "Right", "max_length": most, "strategy": "LongestFirst", "stride": 0}
        (place / how).write_text(json.dumps(held))
        return place
    name = "tokenizer_config.json" if how == "model_max_length" else how
    held = json.loads((place / name).read_text())
    held |= {"model_max_length": most} if how == "model_max_length" else {"truncation": True, "max_length": most}
    (place / name).write_text(json.dumps(held))
    return place


@pytest.mark.parametrize(
    "how", ["tokenizer.json", "tokenizer_config.json", "processor_config.json", "model_max_length"]
)
def test_saved_settings_that_would_cut_the_prompt_do_not(how: str, folder: Path, tmp_path: Path) -> None:
    place = truncating(Path(shutil.copytree(folder, tmp_path / "x")), how, most=12)
    run = ask(va.load(place, dtype="float32"))
    want = ask(va.load(*tiny("llava")))
    assert np.array_equal(run.trace.layout.input_ids, want.trace.layout.input_ids)
    assert np.array_equal(run.trace.attn_lhqk, want.trace.attn_lhqk)


@pytest.mark.parametrize(("most", "message"), [(12, "image tokens"), (1, "image tokens")])
def test_a_processor_that_cuts_prompts_whatever_it_is_told_is_refused(most: int, message: str) -> None:
    model, processor = build("llava")

    class Cutting(type(processor)):  # type: ignore[misc]
        def __call__(self, *args: Any, **options: Any) -> Any:
            made = super().__call__(*args, **options)
            for name in ("input_ids", "attention_mask", "offset_mapping"):
                made[name] = [line[:most] for line in made[name]]
            return made

    processor.__class__ = Cutting
    with pytest.raises(LayoutError, match=message) as told:
        ask(va.load(model, processor))
    assert "\n" not in str(told.value)


# -- program code that comes with a checkpoint -------------------------------------------------------------------------

CODE = """
from pathlib import Path
Path({marker!r}).write_text("ran")
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
class OwnConfig(LlavaConfig):
    model_type = "own_vlm"
class OwnModel(LlavaForConditionalGeneration):
    config_class = OwnConfig
class OwnProcessor(LlavaProcessor):
    pass
"""


def with_code(folder: Path, place: Path, marker: Path, *, files: tuple[str, ...], kind: str | None) -> Path:
    """A copy whose settings name code of its own, which leaves ``marker`` behind when it runs."""
    shutil.copytree(folder, place)
    (place / "own_code.py").write_text(CODE.format(marker=str(marker)))
    names = {
        "config.json": {"AutoConfig": "own_code.OwnConfig", "AutoModelForImageTextToText": "own_code.OwnModel"},
        "processor_config.json": {"AutoProcessor": "own_code.OwnProcessor"},
        "tokenizer_config.json": {"AutoTokenizer": [None, "own_code.OwnTokenizer"]},
    }
    for file in files:
        held = json.loads((place / file).read_text()) | {"auto_map": names[file]}
        if file == "config.json" and kind:
            held["model_type"] = kind
        if file == "processor_config.json" and kind:
            held["processor_class"] = "OwnProcessor"
        (place / file).write_text(json.dumps(held))
    return place


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ("config.json",),
            "needs program code of its own .*, which is not run unless you ask.*trust_remote_code set to",
        ),
        (("processor_config.json",), "the processor of .* needs program code of its own"),
        (("config.json", "processor_config.json", "tokenizer_config.json"), "needs program code of its own"),
    ],
)
def test_code_of_a_checkpoint_is_never_run_unasked(
    files: tuple[str, ...], message: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked at the terminal"))
    place = with_code(folder, tmp_path / "x", tmp_path / "marker", files=files, kind="own_vlm")
    with pytest.raises(UnsupportedModel, match=message) as told:
        va.load(place)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "marker").exists()


def test_code_beside_a_family_that_transformers_has_is_not_needed(folder: Path, tmp_path: Path) -> None:
    files = ("config.json", "processor_config.json", "tokenizer_config.json")
    place = with_code(folder, tmp_path / "x", tmp_path / "marker", files=files, kind=None)
    assert va.load(place, dtype="float32").family == "llava"
    assert not (tmp_path / "marker").exists()


def test_code_runs_when_it_is_asked_for(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.dynamic_module_utils as dynamic

    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    place = with_code(folder, tmp_path / "own", tmp_path / "marker", files=("config.json",), kind="own_vlm")
    weights = {name: weight.clone() for name, weight in tiny("llava")[0].state_dict().items()}
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    asked = {"trust_remote_code": True}
    vlm = va.load(place, dtype="float32", **asked)
    assert (tmp_path / "marker").exists()
    assert (type(vlm.model).__name__, vlm.family) == ("OwnModel", "derived (own_vlm)")
    want = ask(va.load(*tiny("llava")))
    assert np.array_equal(ask(vlm).trace.attn_lhqk, want.trace.attn_lhqk)


# -- kinds of models that need another door ----------------------------------------------------------------------------


class Whole(nn.Module):
    """A model that only has a configuration."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config


@pytest.mark.parametrize("name", ["Qwen2_5OmniConfig", "Qwen3OmniMoeConfig"])
def test_a_whole_with_a_talker_says_to_give_its_thinker(name: str, tmp_path: Path) -> None:
    import transformers

    config = getattr(transformers, name)()
    config.save_pretrained(tmp_path)
    for source in ((tmp_path,), (Whole(config), tiny("llava")[1])):
        with pytest.raises(UnsupportedModel, match=r"give load\(model.thinker, processor\)"):
            va.load(*source)


def test_a_kind_that_the_door_does_not_know_is_to_be_held(tmp_path: Path) -> None:
    from transformers import CLIPConfig

    CLIPConfig().save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match="'clip'"):
        va.load(tmp_path)


def test_weights_that_are_held_are_not_copied() -> None:
    model, processor = build("llava")
    model.train()
    places = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    vlm = va.load(model, processor)
    assert vlm.model is model
    assert not model.training
    assert {name: weight.data_ptr() for name, weight in vlm.model.named_parameters()} == places
    assert torch.compile(model, backend="eager") is not model
    assert ask(va.load(torch.compile(model, backend="eager"), processor)).trace.nbytes
    torch._dynamo.reset()
