"""The small open_clip model names, retrieves and points, on scenes it never saw."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlmattn.core.errors import ModelError, ModelLoadError, SpecError
from vlmattn.scene import make_scene, scene_model_folder
from vlmattn.scene.clip import clip_tokenizer, load_clip, make_clip
from vlmattn.scene.clip_evaluation import ClipScore, clip_card, gradient_map, score_clip
from vlmattn.scene.training.clip import ClipBatches, region, said_of, squared, start_vision
from vlmattn.scene.training.recipes import ClipRecipe

SCENES = 40


@pytest.fixture(scope="module")
def parts() -> tuple[Any, Any, Any]:
    return load_clip()


@pytest.fixture(scope="module")
def score(parts: tuple[Any, Any, Any]) -> ClipScore:
    return score_clip(*parts, scenes=SCENES)


def test_it_names_what_is_shown(score: ClipScore) -> None:
    assert score.naming >= 0.95


def test_it_finds_the_caption_and_the_scene(score: ClipScore) -> None:
    assert min(score.image_to_text, score.text_to_image) > 0.9 > 10 * score.retrieval_chance


def test_its_gradient_points_at_the_named_object(score: ClipScore) -> None:
    assert score.pointing > 0.9 > 3 * score.pointing_chance
    assert score.pointing > score.pointing_object


def test_it_is_small_and_loads_through_the_factory_of_open_clip(parts: tuple[Any, Any, Any]) -> None:
    folder = scene_model_folder("scene-clip")
    assert sum(p.stat().st_size for p in folder.iterdir()) < 8 << 20
    model, preprocess, tokenizer = parts
    assert type(model).__module__.startswith("open_clip")
    ids = tokenizer(["a red circle", "an orange cross, a blue square"])
    assert ids.shape == (2, 40)
    with torch.inference_mode():
        assert (
            model.encode_text(ids).shape == model.encode_image(torch.stack([preprocess(make_scene(0).image)] * 2)).shape
        )


def test_preprocessing_is_that_of_training(parts: tuple[Any, Any, Any]) -> None:
    _, preprocess, _ = parts
    scenes = [make_scene(seed) for seed in range(30)]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)))
    for scene in (scenes[0], next(s for s in scenes if s.image_wh[0] != s.image_wh[1])):
        own = torch.from_numpy(squared(scene.image).copy()).permute(2, 0, 1) / 255
        assert float((preprocess(scene.image) * std + mean - own).abs().mean()) < 0.01


def test_a_batch_says_only_what_is_true() -> None:
    pixels, ids, true = ClipBatches(ClipRecipe())(np.random.default_rng(0), 0)
    assert isinstance(pixels, torch.Tensor)
    assert isinstance(true, torch.Tensor)
    rng, tokenizer = np.random.default_rng(0), clip_tokenizer()
    lines = [tokenizer.decode(line, skip_special_tokens=True).strip() for line in ids]
    scene = make_scene(rng)
    for line, holds in zip(lines, true[0].tolist(), strict=True):
        names = {n for n in scene.names if line in (f"a {n}", f"an {n}")}
        is_caption = "," in line and all(any(part.endswith(n) for n in scene.names) for part in line.split(", "))
        assert bool(holds) == bool(names or (is_caption and line.count(",") == len(scene.objects) - 1)), line


def test_a_region_holds_its_object() -> None:
    rng = np.random.default_rng(0)
    for seed in range(10):
        scene = make_scene(seed)
        shown = region(rng, scene, scene.objects[0])
        assert shown.shape == (112, 112, 3)
    assert said_of(scene.objects[0])[0].endswith(scene.objects[0].name)


def test_the_gradient_map_leaves_nothing_behind(parts: tuple[Any, Any, Any]) -> None:
    model, preprocess, tokenizer = parts
    values = gradient_map(model, preprocess(make_scene(0).image)[None], tokenizer(["a red circle"]))
    assert values.shape == (8, 8)
    assert values.min() >= 0
    assert not model.visual.transformer.resblocks[-1]._forward_pre_hooks
    assert all(weight.grad is None for weight in model.parameters())


def test_the_card_shows_the_scores() -> None:
    folder = scene_model_folder("scene-clip")
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    notes = (folder / "notes.md").read_text(encoding="utf-8")
    assert clip_card(scores, notes) == (folder / "README.md").read_text(encoding="utf-8")
    assert scores["scenes"] >= 200


def test_what_is_no_model_is_refused(tmp_path: Path, parts: tuple[Any, Any, Any]) -> None:
    with pytest.raises(ModelLoadError, match="open_clip_model"):
        load_clip(tmp_path)
    shutil.copytree(scene_model_folder("scene-clip"), tmp_path / "cut")
    (tmp_path / "cut" / "open_clip_model.safetensors").write_bytes(b"cut")
    with pytest.raises(ModelLoadError, match="could not be loaded"):
        load_clip(tmp_path / "cut")
    with pytest.raises(SpecError, match="at least two"):
        score_clip(*parts, scenes=1)


def test_scores_are_plain_values(score: ClipScore) -> None:
    assert json.loads(json.dumps(asdict(score)))["scenes"] == SCENES


def test_its_training_starts_from_the_tower_of_the_scene_model(tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    visual = make_clip(tmp_path).visual.eval()
    start_vision(visual, scene_model_folder())
    tower = AutoModelForImageTextToText.from_pretrained(scene_model_folder(), dtype=torch.float32).model.vision_tower
    pixels = torch.randn(2, 3, 112, 112)
    seen: list[torch.Tensor] = []
    visual.transformer.register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.inference_mode():
        visual(pixels)
        theirs = tower(pixels).last_hidden_state
    assert torch.allclose(seen[0], theirs, atol=1e-4)


def test_another_tower_is_refused() -> None:
    with pytest.raises(ModelError, match="has another vision tower"):
        start_vision(torch.nn.Linear(2, 2), scene_model_folder())
