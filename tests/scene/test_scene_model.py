"""The model in the box: it loads as any checkpoint does, and it sees."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlmattn.core.errors import ModelLoadError
from vlmattn.scene import KindScore, box, evaluate, make_scene, scene_model_folder, split_item
from vlmattn.scene.answering import answerer, answers_of, message
from vlmattn.scene.build import make_processor, make_tokenizer
from vlmattn.scene.card import SPLITS_SCORED, write_card
from vlmattn.scene.evaluation import Answerer

SHIPPED = ("scene", "scene-prior")
FOLDER = scene_model_folder()
ASKED = [(scene, q) for scene, found in (split_item("test", 0, i) for i in range(4)) for q in found]


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForImageTextToText.from_pretrained(FOLDER, dtype=torch.float32, local_files_only=True).eval()


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def answer(model: Any, processor: Any) -> Answerer:
    return answers_of(model, processor)


@pytest.fixture(scope="module")
def scores(answer: Answerer) -> Sequence[KindScore]:
    return evaluate(answer, scenes=60, kinds=("color", "shape", "exist"), batch=30)


@pytest.mark.parametrize("kind", ["color", "shape", "exist"])
def test_it_answers_far_better_than_both_baselines(scores: Sequence[KindScore], kind: str) -> None:
    found = next(s for s in scores if s.kind == kind)
    assert found.count > 45
    assert found.accuracy >= 0.85
    assert found.accuracy > max(found.majority, found.copy or 0.0) + 0.2


def test_it_needs_the_picture(answer: Answerer) -> None:
    scenes = [split_item("test", 0, i) for i in range(40)]
    asked = [(s, q) for s, found in scenes for q in found if q.kind == "color"]
    grey = Image.new("RGB", (224, 224), (122, 116, 104))
    told = answer([grey] * len(asked), [q.text for _, q in asked])
    assert sum(t == q.answer for t, (_, q) in zip(told, asked, strict=True)) < 0.5 * len(asked)


def test_it_is_a_real_llava(model: Any, processor: Any) -> None:
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    assert type(processor).__name__ == "LlavaProcessor"
    assert all(bool(torch.isfinite(w).all()) for w in model.parameters())
    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


def test_the_folder_is_small_and_complete() -> None:
    names = {p.name for p in FOLDER.iterdir()}
    assert {"README.md", "config.json", "model.safetensors", "processor_config.json", "tokenizer.json"} <= names
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) < 12 << 20
    assert not [n for n in names if n.endswith((".bin", ".pt", ".pkl", ".py"))]


def test_the_shipped_processor_is_the_one_of_training(processor: Any) -> None:
    fresh = make_processor(make_tokenizer())
    image, text = make_scene(9).image, "<s>USER: <image>\nWhere is the zèbre? ASSISTANT:"
    one, two = (p(images=image, text=text, return_tensors="pt") for p in (processor, fresh))
    assert torch.equal(one["input_ids"], two["input_ids"])
    assert torch.equal(one["pixel_values"], two["pixel_values"])
    assert processor.chat_template == fresh.chat_template


def test_padded_batches_give_the_answers_of_single_questions(answer: Answerer) -> None:
    together = answer([s.image for s, _ in ASKED], [q.text for _, q in ASKED])
    alone = [answer([s.image], [q.text])[0] for s, q in ASKED]
    assert list(together) == alone


def test_a_plain_prompt_and_a_chat_message_are_the_same(processor: Any) -> None:
    image, asked = make_scene(0).image, "Is there a red circle?"
    chat = message(asked)
    chat[0]["content"][0] = {"type": "image", "image": image}
    told = processor.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    plain = processor(images=image, text=f"<s>USER: <image>\n{asked} ASSISTANT:", return_tensors="pt")
    assert torch.equal(told["input_ids"], plain["input_ids"])
    assert torch.equal(told["pixel_values"], plain["pixel_values"])


@pytest.mark.parametrize("size_wh", [(640, 200), (90, 500), (1, 1), (112, 112)])
def test_any_picture_gets_64_image_tokens_and_an_answer(processor: Any, answer: Answerer, size_wh: Any) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (size_wh[1], size_wh[0], 3), dtype=np.uint8))
    ids = processor(images=image, text="<image>\nHello", return_tensors="pt")["input_ids"][0]
    assert int((ids == processor.image_token_id).sum()) == 64
    assert len(answer([image], ["Which vegetables are on the stove, s'il vous plaît?"])) == 1


def test_nothing_of_an_oblong_picture_is_cut_off(processor: Any) -> None:
    pixels = np.full((100, 224, 3), 90, np.uint8)
    pixels[:, :14] = (214, 40, 40)
    pixels[:, -14:] = (45, 85, 215)
    shown = processor.image_processor(images=Image.fromarray(pixels), return_tensors="pt")["pixel_values"][0]
    left, right = shown[:, 40:70, :4].mean((1, 2)), shown[:, 40:70, -4:].mean((1, 2))
    assert left[0] > left[2] + 1
    assert right[2] > right[0] + 1


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_shows_the_scores_that_were_measured(name: str, tmp_path: Path) -> None:
    folder = scene_model_folder(name)
    again = tmp_path / name
    shutil.copytree(folder, again)
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert write_card(again, scores).read_bytes() == (folder / "README.md").read_bytes()
    assert (again / "scores.json").read_bytes() == (folder / "scores.json").read_bytes()
    assert scores["splits"]["test"]["scenes"] >= 500
    assert set(scores["splits"]) == set(SPLITS_SCORED)


def test_an_installation_without_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box, "__file__", str(tmp_path / "box.py"))
    with pytest.raises(ModelLoadError, match="install vlmattn again"):
        scene_model_folder()


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_damaged_weights_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    shutil.copytree(FOLDER, tmp_path / "models" / "scene")
    weights = tmp_path / "models" / "scene" / "model.safetensors"
    held = bytearray(weights.read_bytes())
    held[-1] ^= 1
    weights.write_bytes(held if damage == "changed" else held[:1000])
    if damage == "gone":
        weights.unlink()
    monkeypatch.setattr(box, "__file__", str(tmp_path / "box.py"))
    with pytest.raises(ModelLoadError, match="install vlmattn again"):
        box.load_from_the_box("scene")


def test_without_a_folder_it_is_the_model_in_the_box(answer: Answerer) -> None:
    scene, question = ASKED[0]
    assert answerer()([scene.image], [question.text]) == answer([scene.image], [question.text])
