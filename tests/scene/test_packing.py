"""Packed training sequences are what the processor gives, and their questions do not see each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vlmattn.scene import Question, make_scene
from vlmattn.scene.answering import message
from vlmattn.scene.build import GRID_SIDE, make_model, make_processor, make_tokenizer
from vlmattn.scene.objects import COLORS, SHAPES, SIZES
from vlmattn.scene.phrasings import HELD_OUT, TRAIN
from vlmattn.scene.questions import KINDS, NUMBERS, ask
from vlmattn.scene.training.packing import Packer
from vlmattn.scene.training.samples import as_input


@pytest.fixture(scope="module")
def packer() -> Packer:
    return Packer(make_tokenizer(), caption_weight=0.2, end_weight=0.1)


@pytest.fixture(scope="module")
def processor(packer: Packer) -> Any:
    return make_processor(packer.tokenizer)


def questions(seed: int) -> list[Question]:
    rng, scene = np.random.default_rng(seed), make_scene(seed)
    return [q for kind in KINDS if (q := ask(rng, kind, scene)) is not None]


@pytest.mark.parametrize("kind", KINDS)
def test_token_ids_are_those_of_the_processor(packer: Packer, processor: Any, kind: str) -> None:
    for template in (*TRAIN[kind], *HELD_OUT[kind]):
        asked = template.format(o="red circle", a="orange cross", b="white star", r="above")
        text = processor.apply_chat_template(message(asked), add_generation_prompt=True)
        assert text == f"<s>USER: <image>\n{asked} ASSISTANT:"
        given = processor(images=make_scene(0).image, text=text)["input_ids"][0]
        assert packer.prefix + packer.prompt(asked) == list(given)


def test_an_answer_continues_the_prompt_without_another_split(packer: Packer) -> None:
    for question in questions(3):
        whole = packer.tokenizer(f"{question.text} ASSISTANT: {question.answer}</s>")["input_ids"]
        assert packer.prompt(question.text) + packer.answer(question.answer) == whole


def test_pixels_are_those_of_the_processor(processor: Any) -> None:
    mean, std = (np.array(getattr(processor.image_processor, f"image_{n}")) for n in ("mean", "std"))
    scenes = [make_scene(seed) for seed in range(40)]
    oblong = next(s for s in scenes if s.image_wh[0] != s.image_wh[1])
    for scene in (next(s for s in scenes if s.image_wh == (224, 224)), oblong):
        given = np.asarray(processor.image_processor(images=scene.image, return_tensors="np")["pixel_values"][0])
        own = ((as_input(scene)[0] / 255 - mean) / std).transpose(2, 0, 1)
        assert np.abs(given - own).max() < 0.05


def test_packed_logits_are_those_of_separate_sequences(packer: Packer) -> None:
    torch.manual_seed(0)
    model = make_model(packer.tokenizer).eval()
    asked = [questions(1), questions(2)[:4]]
    packed = packer.pack(asked)
    with torch.inference_mode():
        embedded = model.get_input_embeddings()(packed.ids)
        together = model.model.language_model(
            inputs_embeds=embedded, attention_mask=packed.mask, position_ids=packed.positions, use_cache=False
        ).last_hidden_state
        for line, found in enumerate(asked):
            start = len(packer.prefix)
            for question in found:
                own = packer.prompt(question.text) + packer.answer(question.answer)
                alone = model.model.language_model(input_ids=torch.tensor([packer.prefix + own])).last_hidden_state[0]
                assert packed.ids[line, start : start + len(own)].tolist() == own
                got = together[line, start : start + len(own)]
                torch.testing.assert_close(got, alone[len(packer.prefix) :], atol=2e-5, rtol=1e-4)
                start += len(own)


def test_only_answers_are_learned_and_long_ones_count_less(packer: Packer) -> None:
    caption, color = (next(q for q in questions(1) if q.kind == kind) for kind in ("caption", "color"))
    for question, each in ((caption, 0.2), (color, 1.0)):
        packed = packer.pack([[question]])
        said = packer.answer(question.answer)
        want = [0.0] * (len(packed.ids[0]) - len(said)) + [each] * (len(said) - 1) + [0.1]
        assert packed.weights[0].tolist() == pytest.approx(want)


def test_the_prefix_has_a_token_per_patch(packer: Packer) -> None:
    assert packer.prefix.count(packer.image_token) == GRID_SIDE**2
    assert packer.prefix[packer.first_patch - 1] != packer.image_token == packer.prefix[packer.first_patch]


@pytest.mark.parametrize("word", [*COLORS, *SHAPES, *SIZES, *NUMBERS, "yes", "no"])
def test_every_word_of_an_answer_is_one_token(packer: Packer, word: str) -> None:
    assert len(packer.ids(f" {word}")) == 1


@pytest.mark.parametrize("text", ["Où est le zèbre ?", "你好", "🙂 emoji", "שלום", "a\tb\n\nc", "Xylophone_42!"])
def test_words_never_seen_come_back_unchanged(packer: Packer, text: str) -> None:
    assert packer.tokenizer.decode(packer.ids(text)) == text
