"""Loading by folder, by hub name without a network, and everything that is not a model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import vlmattn as va
from tests.tiny_models import tiny
from vlmattn.core.errors import ModelError, ModelLoadError, UnsupportedModel

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
        (lambda f, t: text_only(t / "x"), UnsupportedModel, "takes no pictures"),
        (lambda f, t: "someone/nothing-here", ModelLoadError, "no model configuration for someone/nothing-here"),
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
    [({"dtype": "float12"}, "dtype 'float12'"), ({"device": "cuda:77"}, "device 'cuda:77'")],
)
def test_types_and_devices_that_do_not_exist(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        va.load(folder, **options)


def test_a_text_model_you_hold_is_refused() -> None:
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    with pytest.raises(UnsupportedModel, match="text-only"):
        va.load(model, tiny("llava")[1])
