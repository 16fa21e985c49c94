"""Loading by folder, by hub name without a network, and everything that is not a model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import vlmattn as va
from tests.tiny_models import tiny
from vlmattn.api import loading
from vlmattn.core.errors import LayoutError, ModelError, ModelLoadError, UnsupportedModel

PICTURE = np.full((40, 60, 3), 90, dtype=np.uint8)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "tiny-llava"
    model, processor = tiny("llava")
    model.save_pretrained(place)
    processor.save_pretrained(place)
    return place


@pytest.fixture
def hub(folder: Path, tmp_path: Path) -> Path:
    """A cache laid out as huggingface_hub lays it out."""
    repo = tmp_path / "hub" / "models--someone--tiny-llava"
    (repo / "blobs").mkdir(parents=True)
    (repo / "refs").mkdir()
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = repo / "blobs" / f"{number:064d}"
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    (repo / "refs" / "main").write_text(COMMIT)
    (repo / "refs" / "v1").write_text(COMMIT)
    return tmp_path / "hub"


def test_a_folder_loads_as_text_and_as_path(folder: Path) -> None:
    want = va.load(*tiny("llava")).ask(PICTURE, "what?", max_new_tokens=3).answer
    for source in (folder, str(folder)):
        vlm = va.load(source, dtype="float32")
        assert vlm.ask(PICTURE, "what?", max_new_tokens=3).answer == want
        assert vlm.family == "llava"


@pytest.mark.parametrize("revision", [None, "v1", COMMIT])
def test_a_hub_name_loads_from_the_cache(hub: Path, revision: str | None) -> None:
    vlm = va.load("someone/tiny-llava", cache_dir=str(hub), revision=revision)
    assert vlm.revision == COMMIT
    run = vlm.ask(PICTURE, "what?", max_new_tokens=2)
    assert run.trace.provenance.model == "someone/tiny-llava"
    assert run.trace.provenance.revision == COMMIT


def test_types_devices_and_kernels_are_passed_on(folder: Path) -> None:
    vlm = va.load(folder, dtype="bfloat16", device="cpu", attn_implementation="eager")
    assert vlm.dtype == torch.bfloat16
    assert vlm.describe()["attention"] == "eager"
    assert va.load(folder, dtype="float32", device_map="cpu").ask(PICTURE, "what?", max_new_tokens=2).trace.nbytes


def test_threads_load_in_turn() -> None:
    # In a process of its own, where nothing of transformers is imported yet.
    code = (
        "from concurrent.futures import ThreadPoolExecutor; import vlmattn as va\n"
        "with ThreadPoolExecutor(3) as pool: print([one.name for one in pool.map(va.load, ['scene'] * 3)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "['scene', 'scene', 'scene']", done.stderr[-500:]


def test_the_model_in_the_box_is_the_default() -> None:
    assert va.load().name == "scene"
    assert repr(va.load("scene")).startswith("<Vlm 'scene' (llava), float32, sdpa")


def broken(folder: Path, place: Path, *, without: str = "", cut: str = "") -> Path:
    shutil.copytree(folder, place)
    for name in [p.name for p in place.iterdir()]:
        if without and name.startswith(without):
            (place / name).unlink()
    if cut:
        content = (place / cut).read_bytes()
        (place / cut).write_bytes(content[: len(content) // 2])
    return place


def changed(folder: Path, place: Path, file: str = "config.json", **values: Any) -> Path:
    """A copy whose JSON file says something else; ``a__b`` is key b inside a."""
    shutil.copytree(folder, place)
    held = json.loads((place / file).read_text())
    for name, value in values.items():
        *outer, last = name.split("__")
        inner = held
        for key in outer:
            inner = inner[key]
        inner[last] = value
    (place / file).write_text(json.dumps(held))
    return place


def reweighed(folder: Path, place: Path, change: Any) -> Path:
    """A copy whose weights went through ``change``."""
    shutil.copytree(folder, place)
    weights = load_file(place / "model.safetensors")
    save_file(change(weights), place / "model.safetensors", metadata={"format": "pt"})
    return place


def without_decoder(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in weights.items() if "language_model" not in name}


def pickled(folder: Path, place: Path) -> Path:
    shutil.copytree(folder, place)
    weights = load_file(place / "model.safetensors")
    (place / "model.safetensors").unlink()
    torch.save(weights, place / "pytorch_model.bin")
    return place


def text_only(place: Path) -> Path:
    LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    ).save_pretrained(place)
    return place


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda f, t: t / "nowhere", ModelLoadError, "does not exist"),
        (lambda f, t: str(t / "nowhere"), ModelLoadError, "does not exist"),
        (lambda f, t: f / "config.json", ModelLoadError, "is a file"),
        (lambda f, t: t, ModelLoadError, "has no config.json"),
        (lambda f, t: broken(f, t / "x", without="config.json"), ModelLoadError, "has no config.json"),
        (lambda f, t: broken(f, t / "x", cut="config.json"), ModelLoadError, "no model configuration"),
        (lambda f, t: broken(f, t / "x", without="processor_config"), ModelLoadError, "processor"),
        (lambda f, t: broken(f, t / "x", without="model.safetensors"), ModelLoadError, "could not be loaded"),
        (lambda f, t: broken(f, t / "x", cut="model.safetensors"), ModelLoadError, "could not be loaded"),
        (lambda f, t: broken(f, t / "x", cut="model.safetensors"), ModelLoadError, "download it again"),
        (lambda f, t: reweighed(f, t / "x", without_decoder), ModelLoadError, "lacks .* weights .*random numbers"),
        (lambda f, t: changed(f, t / "x", text_config__num_hidden_layers=6), ModelLoadError, r"lacks 27 .*layers\.3"),
        (
            lambda f, t: changed(f, t / "x", text_config__num_hidden_layers=2),
            ModelLoadError,
            r"knows nothing.*layers\.2",
        ),
        (lambda f, t: changed(f, t / "x", text_config__vocab_size=999), ModelLoadError, "another shape .* 999 x "),
        (lambda f, t: pickled(f, t / "x"), ModelLoadError, r"only pickled weights \(pytorch_model.bin\).*convert"),
        (lambda f, t: text_only(t / "x"), UnsupportedModel, "takes no pictures"),
        (lambda f, t: "someone/nothing-here", ModelLoadError, "no model configuration for someone/nothing-here"),
        (lambda f, t: "nothing-here", ModelLoadError, "no folder 'nothing-here' here either; the model in the box"),
        (lambda f, t: "SCENE", ModelLoadError, "the model in the box is called 'scene'"),
        (lambda f, t: " ", ModelLoadError, "name is empty"),
        (lambda f, t: 3, ModelLoadError, "expected a name, a folder or a transformers model, got int"),
        (lambda f, t: tiny("llava")[0], ModelLoadError, "without a processor"),
    ],
)
def test_what_is_no_model_is_one_clear_error(
    make: Any, error: type[ModelError], message: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message) as told:
        va.load(make(folder, tmp_path), local_files_only=True)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float12"}, "dtype 'float12'"),
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"dtype": 3}, "dtype 3"),
        ({"device": "cuda:77"}, "device 'cuda:77'"),
        ({"device": "zork"}, "device 'zork'"),
        ({"device": "meta"}, "device 'meta' holds no numbers"),
        ({"device": object()}, "device <object"),
    ],
)
def test_types_and_devices_that_do_not_exist(
    folder: Path, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "load_weights", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(ModelLoadError, match=message):
        va.load(folder, **options)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            {"model_type": "qwen2_vl", "text_config": {}, "vision_config": {}},
            UnsupportedModel,
            "qwen2_vl needs a Qwen2VLProcessor, got LlavaProcessor",
        ),
        ({"image_token_index": 7, "image_token_id": 7}, LayoutError, "image_token_id 7"),
        ({"vision_config__patch_size": 7}, LayoutError, "patch_size"),
        ({"file": "processor_config.json", "vision_feature_select_strategy": "full"}, LayoutError, "strategy"),
    ],
)
def test_what_does_not_belong_together_is_told_before_weights_are_read(
    folder: Path, tmp_path: Path, spoil: dict[str, Any], error: type[ModelError], message: str
) -> None:
    place = changed(folder, tmp_path / "x", **spoil)
    (place / "model.safetensors").unlink()
    with pytest.raises(error, match=message):
        va.load(place)


def test_weights_that_are_tied_or_that_no_layer_reads_are_no_matter(folder: Path, tmp_path: Path) -> None:
    def more(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return weights | {"vision_tower.vision_model.head.weight": torch.zeros(2)}

    assert va.load(reweighed(folder, tmp_path / "more", more), dtype="float32").ask(PICTURE, "what?").trace.nbytes
    tied = changed(folder, tmp_path / "tied", tie_word_embeddings=True, text_config__tie_word_embeddings=True)
    weights = load_file(tied / "model.safetensors")
    head = next(name for name in weights if "lm_head" in name)
    save_file({k: v for k, v in weights.items() if k != head}, tied / "model.safetensors", metadata={"format": "pt"})
    assert va.load(tied, dtype="float32").ask(PICTURE, "what?", max_new_tokens=2).trace.nbytes


def test_a_text_model_you_hold_is_refused() -> None:
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    with pytest.raises(UnsupportedModel, match="text-only"):
        va.load(model, tiny("llava")[1])
