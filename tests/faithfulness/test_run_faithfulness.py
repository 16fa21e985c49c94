"""Tests of a run's maps: the answer's probability is that of a plain pass, and maps of a model are the model's."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vlmattn as va
from tests.tiny import TINY
from vlmattn.api.changed import AnswerScore
from vlmattn.api.faithfulness import METRICS
from vlmattn.core.errors import MapError, SpecError

FAMILIES = ("qwen2_vl", "smolvlm", "idefics2", "molmo2", "fast_vlm")
RNG = np.random.default_rng(0)
PICTURES = [Image.fromarray(RNG.integers(0, 255, (60, 90, 3), dtype=np.uint8)) for _ in range(3)]


@lru_cache(maxsize=1)
def scene_run() -> Any:
    scene, questions = va.scene.split_item("test", 0, 0)
    question = next(q for q in questions if q.kind == "color")
    return va.load("scene").ask(scene.image, question.text)


def plain(vlm: Any, picture: Image.Image, question: str, ids: list[int]) -> np.ndarray:
    """Log-probabilities of an answer, without anything of the engine."""
    inputs = dict(vlm.encode([[va.load_image(picture)]], [question]).inputs)
    shape = inputs["input_ids"].shape
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor) and value.shape == shape:
            added = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids))}
            more = added.get(name, torch.zeros(1, len(ids))).to(value.dtype)
            inputs[name] = torch.cat([value, more], dim=1)
    with torch.no_grad():
        logits = vlm.model(**inputs).logits[0].float()
    lines = logits[-len(ids) - 1 : -1].log_softmax(-1)
    return lines[torch.arange(len(ids)), torch.tensor(ids)].double().numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_a_plain_pass(family: str) -> None:
    vlm = va.load(*TINY[family]())
    run = vlm.ask(PICTURES[0], "what is it", answer="red square")
    span = run.trace.find("square")
    score = AnswerScore(run, span, probabilities=False, batch=2)
    ids = run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist()
    at = [t - run.trace.layout.answer_start for t in span.tokens]
    expected = [plain(vlm, one, "what is it", ids)[at].sum() for one in PICTURES]
    assert score(PICTURES) == pytest.approx(expected, abs=1e-5)
    assert score.passes == 3
    assert AnswerScore(run, span)(PICTURES) == pytest.approx(np.exp(expected), rel=1e-4)


def test_of_several_pictures_the_named_one_is_replaced() -> None:
    vlm = va.load(*TINY["qwen2_vl"]())
    run = vlm.ask(PICTURES[:2], "what is it", answer="red")
    swapped = vlm.ask([PICTURES[0], PICTURES[2]], "what is it", answer="red")
    found = AnswerScore(run, run.trace.find("red"), 1, probabilities=False)([PICTURES[2]])
    at = [t - run.trace.layout.answer_start for t in run.trace.find("red").tokens]
    assert found[0] == pytest.approx(swapped.trace.scores.chosen_logp_t[at].sum(), abs=1e-5)
    with pytest.raises(SpecError, match="picture 2 does not exist"):
        AnswerScore(run, run.trace.find("red"), 2)


def test_every_measure_of_the_model_in_the_box() -> None:
    done: list[int] = []
    told = scene_run().faithfulness("blue", metrics=METRICS[:6], layers=[1], progress=done.append)
    assert list(told.scores) == list(METRICS[:6])
    assert told.scores["deletion"] < 0.6 < told.scores["insertion"] + 0.3
    assert told.scores["comprehensiveness"] > 0.05
    assert done[-1] == told.passes
    assert json.loads(json.dumps(told.to_dict(), allow_nan=False))["word"] == "blue"
    assert "deletion" in str(told)


def test_a_map_turned_round_is_less_faithful() -> None:
    from vlmattn.faithfulness import Cells, cells_of, deletion

    run = scene_run()
    cells = cells_of(run.map("blue", layers=[1]).patch_map)
    score = AnswerScore(run, run.trace.find("blue"))
    image = run.pictures[0].image
    areas = [deletion(image, Cells(cells.labels_hw, s * cells.values), score).area for s in (1, -1)]
    assert areas[0] < areas[1] - 0.2


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"what": "square"}, MapError, "of the question"),
        ({"metrics": ("beauty",)}, SpecError, "metrics must be"),
        ({"metrics": ()}, SpecError, "metrics must be"),
        ({"baseline": "white"}, SpecError, "baseline must be"),
        ({"image": 1}, SpecError, "picture 1 does not exist"),
        ({"method": "guess"}, SpecError, "method must be"),
    ],
)
def test_refused_before_the_model_looks(
    options: dict[str, Any], error: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = scene_run()
    monkeypatch.setattr(AnswerScore, "__call__", lambda *_: pytest.fail("the model was asked"))
    with pytest.raises(error, match=says):
        run.faithfulness(**options)


def test_a_probability_of_0_has_no_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AnswerScore, "__call__", lambda _, pictures: np.zeros(len(pictures)))
    told = scene_run().faithfulness("blue", metrics=("average_drop", "deletion"))
    assert np.isnan(told.scores["average_drop"])
    assert told.scores["deletion"] == 0
    assert told.to_dict()["scores"]["average_drop"] is None


def test_maps_agree_with_themselves_and_say_to_be_careful() -> None:
    found = scene_run().agreement("blue", methods=("raw", "value"))
    assert found.spearman[0][0] == found.top[1][1] == 1
    assert found.spearman[0][1] == found.spearman[1][0] < 1
    assert "does not show" in str(found)
    with pytest.raises(SpecError, match="two methods"):
        scene_run().agreement("blue", methods=("raw",))


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_map_of_the_model_goes_with_the_model() -> None:
    run = scene_run()
    before = weights(run.vlm.model)
    found = run.randomisation("blue", layers=[1])
    assert found.stages[-1] == "layer 0"
    assert abs(found.spearman[-1]) < 0.6
    assert found.spearman[0] == 1 or not found.stages[0].startswith("output")  # rows do not read the head
    after = run.vlm.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert run.randomisation("blue", layers=[1]).spearman == found.spearman


def test_an_error_inside_gives_weights_back_and_forgets_random_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    run = scene_run()
    before = weights(run.vlm.model)
    run.generic()
    asked = run.vlm.run
    monkeypatch.setattr(run.vlm, "run", lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
    with pytest.raises(RuntimeError, match="out of memory"):
        run.randomisation("blue")
    monkeypatch.setattr(run.vlm, "run", asked)
    assert all(torch.equal(before[name], value) for name, value in run.vlm.model.state_dict().items())
    assert len(run.vlm.general) == 0
