"""Sinks of the models in the box, where they are known, and of small random models of many families."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vlmattn as va
from tests.tiny import TINY
from tests.tiny_models import tiny
from vlmattn.capture import model_sites
from vlmattn.core.errors import BudgetExceeded, SpecError, UnsupportedModel
from vlmattn.scene import plant_sinks
from vlmattn.scene.box import SINK_PATCHES, with_sinks
from vlmattn.sinks import SinkCoordinates
from vlmattn.steering import VAR

NAMES = ("scene-sinks", "scene-sinks-strong")
_held: dict[str, va.Vlm] = {}


def model(name: str) -> va.Vlm:
    """A model in the box that knows its sinks; made once."""
    if name not in _held:
        _held[name] = va.load(name)
        _held[name].known_sinks()
    return _held[name]


def item(index: int, split: str = "test") -> tuple[Any, Any]:
    scene, questions = va.scene.split_item(split, 0, index)
    return scene, questions[0]


@pytest.mark.parametrize("name", NAMES)
def test_planted_coordinates_and_tokens_are_found_all_and_alone(name: str) -> None:
    vlm = model(name)
    _, planted = with_sinks(va.load("scene").model, name)
    assert set(vlm.known_sinks().coordinates) == set(planted.coordinates)
    assert vlm.known_sinks().first_layer == planted.layer
    assert vlm.known_sinks().confidence > 0.6
    for index in range(20):
        scene, question = item(index)
        found = vlm.ask(scene.image, question.text, max_new_tokens=2).sinks()
        first = found.layout.image_positions[0]
        for layer in (1, 2, 3):
            line = found.is_sink_ln[found.layers.index(layer)]
            assert np.flatnonzero(line).tolist() == [first + p for p in SINK_PATCHES], (index, layer)
    assert found.visual_share_lq.mean() > 0.5
    assert len(found.visual) == 2
    assert not found.text


@pytest.mark.parametrize("name", ["scene", "scene-prior"])
def test_models_without_sinks_are_said_to_have_none(name: str) -> None:
    vlm = model(name)
    assert not vlm.known_sinks().found
    scene, question = item(0)
    run = vlm.ask(scene.image, question.text, max_new_tokens=2)
    assert "no sinks found" in str(run.sinks())
    plain, dropped = run.map(0), run.map(0, sinks="drop")
    assert np.array_equal(plain.patch_map.values[0], dropped.patch_map.values[0])
    assert "no visual sinks to leave out" in dropped.patch_map.provenance.steps[-2]
    steered = vlm.ask(scene.image, question.text, max_new_tokens=2, steering=[VAR(p=0.0)])
    assert np.array_equal(steered.trace.attn_lhqk, run.trace.attn_lhqk)


def test_massive_activations_that_draw_nothing_are_no_sinks() -> None:
    plain = va.load("scene")
    planted, _ = plant_sinks(plain.model, patches=SINK_PATCHES, pull=0.0)
    found = va.load(planted, plain.processor).calibrate_sinks()
    assert not found.found
    assert "its tokens receive" in str(found)


def test_token_sinks_are_found_too() -> None:
    plain = va.load("scene")
    ids = plain.plan(item(0)[0].image, "What?")[0].input_ids
    planted, truth = plant_sinks(plain.model, tokens=(int(ids[0]),), pull=8.0)
    vlm = va.load(planted, plain.processor)
    found = vlm.ask(item(1)[0].image, item(1)[1].text, max_new_tokens=2).sinks()
    assert set(found.coordinates.coordinates) == set(truth.coordinates)
    assert [(t.position, t.kind, t.first) for t in found.tokens] == [(0, "text", True)]
    assert found.text_share_lq.mean() > 0.1


def test_received_attention_finds_the_planted_patches_as_well() -> None:
    scene, question = item(3)
    found = model("scene-sinks").ask(scene.image, question.text, max_new_tokens=2).sinks("received", layers=[1, -1])
    first = found.layout.image_positions[0]
    assert found.is_sink_ln[:, [first + p for p in SINK_PATCHES]].all()
    assert found.layers == (1, 3)


def test_a_trace_that_holds_what_is_needed_is_read_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = model("scene-sinks")
    scene, question = item(2)
    spec = va.CaptureSpec(
        rows=("question", "answer"), hidden=True, hidden_coords=vlm.known_sinks().coordinates, received=True
    )
    run = vlm.ask(scene.image, question.text, max_new_tokens=2, capture=spec)
    again = vlm.ask(scene.image, question.text, max_new_tokens=2)
    monkeypatch.setattr("vlmattn.api.sinks._rerun", None)
    found, received = run.sinks(), run.sinks("received")
    monkeypatch.undo()
    assert np.array_equal(found.is_sink_ln, again.sinks().is_sink_ln)
    assert np.abs(found.visual_share_lq - again.sinks().visual_share_lq).max() < 1e-3
    assert np.array_equal(received.is_sink_ln, again.sinks("received").is_sink_ln)


@pytest.mark.parametrize("method", ["raw", "value", "relative"])
def test_maps_without_sinks_point_at_the_thing_and_maps_of_sinks_at_them(method: str) -> None:
    scene, question = item(9)
    run = model("scene-sinks").ask(scene.image, question.text, max_new_tokens=4)
    values = {
        how: run.map(0, layers=[1], method=method, sinks=how).patch_map.values[0].ravel() for how in va.sinks.KEEPS
    }
    sinks = list(SINK_PATCHES)
    assert (values["drop"][sinks] == 0).all()
    assert (np.delete(values["only"], sinks) == 0).all()
    if method == "raw":
        assert (values["only"][sinks] > 0).all()
        assert values["drop"].sum() == pytest.approx(values["keep"].sum(), rel=1e-3)
        ratio = np.delete(values["drop"], sinks) / np.delete(values["keep"], sinks)
        assert (ratio > 1).all()


def test_redistribution_brings_answers_back_and_is_told() -> None:
    vlm, plain = model("scene-sinks-strong"), model("scene")
    counts = {"plain": 0, "sinks": 0, "var": 0}
    for index in range(16):
        scene, question = item(index, "validation")
        if question.kind != "color":
            continue
        ask = {"max_new_tokens": 2, "capture": va.CaptureSpec(rows="last", top_k=0)}
        counts["plain"] += plain.ask(scene.image, question.text, **ask).answer == question.answer
        counts["sinks"] += vlm.ask(scene.image, question.text, **ask).answer == question.answer
        run = vlm.ask(scene.image, question.text, **ask, steering=[VAR(p=0.0, rho=0.0, except_last_layer=False)])
        counts["var"] += run.answer == question.answer
    assert "coordinates" in run.trace.provenance.steps[-1]
    assert counts["sinks"] < counts["plain"] - 2
    assert counts["var"] >= counts["plain"] - 1


def test_a_calibration_may_be_set(tmp_path: Path) -> None:
    vlm = va.load("scene-sinks")
    vlm.sink_coordinates = SinkCoordinates.load(model("scene-sinks").known_sinks().save(tmp_path / "sinks.json"))
    scene, question = item(4)
    assert len(vlm.ask(scene.image, question.text, max_new_tokens=2).sinks().visual) == 2


def test_roles_of_planted_sinks() -> None:
    scene, question = item(5)
    run = model("scene-sinks").ask(scene.image, question.text, max_new_tokens=2)
    roles = {(r.layer, r.group): r for r in run.sink_roles()}
    assert roles[2, "visual"].tokens == 2
    assert roles[2, "visual"].attention == pytest.approx(float(run.sinks().visual_share_lq[1].mean()), abs=5e-3)
    assert 0 < roles[2, "visual"].contribution <= 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: run.sinks("other"), "rule must be one of"),
        (lambda run: run.sinks("received", tau=3.0), "has no option 'tau'"),
        (lambda run: run.sinks(layers=[7]), "not kept"),
        (lambda run: run.sinks(tau=20.0), "at most the root of the width, 13.9"),
        (lambda run: run.sinks(coordinates=[500]), "coordinates must be"),
        (lambda run: run.sinks(coordinates=SinkCoordinates((1,), 64)), "do not fit this model's, 192"),
        (lambda run: run.map(0, sinks="some"), "keep, drop, only"),
        (lambda run: run.vlm.calibrate_sinks([(run.pictures[0], "What?")]), "at least 2 prompts"),
    ],
)
def test_what_cannot_be_asked(call: Any, message: str) -> None:
    scene, question = item(0)
    run = model("scene-sinks").ask(scene.image, question.text, max_new_tokens=2)
    with pytest.raises(SpecError, match=message):
        call(run)


def test_a_budget_holds_for_sinks_too() -> None:
    scene, question = item(0)
    vlm, spec = model("scene-sinks"), va.CaptureSpec(rows=("question", "answer"), reduce="mean", top_k=0)
    enough = vlm.plan(scene.image, question.text, capture=spec, max_new_tokens=2)[1].total
    run = vlm.ask(scene.image, question.text, max_new_tokens=2, capture=replace(spec, budget=enough + 1))
    with pytest.raises(BudgetExceeded):
        run.sinks()


# -- families ----------------------------------------------------------------------------------------------------------

FAMILIES = sorted(
    {"llava", "qwen2_vl", "gemma3", "lfm2_vl", "mllama", "idefics", "idefics2", "blip-2", "qwen3_5", "internvl"}
    & {*TINY}
)


@pytest.mark.parametrize("kind", FAMILIES)
def test_phi_of_every_kind_of_family_is_that_of_its_states(kind: str) -> None:
    vlm = va.load(*TINY[kind]())
    picture = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    states: dict[int, torch.Tensor] = {}
    run = vlm.ask(picture, "What is it?", max_new_tokens=2)
    blocks = model_sites(vlm.model).blocks

    def look(layer: int) -> Any:
        def hook(_: Any, args: Any, kwargs: Any) -> None:
            states[layer] = (args[0] if args else kwargs["hidden_states"])[0].detach()

        return hook

    hooks = [block.register_forward_pre_hook(look(layer), with_kwargs=True) for layer, block in blocks]
    found = run.sinks(coordinates=[1, 3], tau_relative=0.2)
    for hook in hooks:
        hook.remove()
    memory, prompt = found.layout.memory, found.layout.answer_start
    for layer, score in zip(found.layers, found.score_ln, strict=True):
        x = states[layer][: prompt - memory].float()
        want = x[:, [1, 3]].abs().amax(-1) / (x.square().mean(-1) + 1e-6).sqrt()
        assert np.abs(score[memory:] - want.numpy()).max() < 1e-4
        assert np.isnan(score[:memory]).all()


def test_an_encoder_decoder_has_too_few_tokens_to_calibrate() -> None:
    vlm = va.load(*TINY["florence2"]())
    with pytest.raises(UnsupportedModel, match="no token can stand out"):
        vlm.calibrate_sinks()


def test_layer_norm_is_told() -> None:
    vlm = va.load(*TINY["blip-2"]())
    picture = np.zeros((40, 40, 3), dtype=np.uint8)
    found = vlm.ask(picture, "What?", max_new_tokens=2).sinks(coordinates=[1])
    assert any("not RMSNorm" in note for note in found.notes)


def test_an_unknown_model_is_calibrated_when_it_is_first_asked() -> None:
    vlm = va.load(*tiny("llava"))
    assert vlm.sink_coordinates is None
    picture = np.zeros((40, 40, 3), dtype=np.uint8)
    assert not vlm.ask(picture, "What?", max_new_tokens=2).sinks().found
    assert vlm.sink_coordinates is not None


@pytest.mark.parametrize("kind", ["mllama", "idefics", "idefics2"])
def test_models_that_see_pictures_otherwise_can_be_calibrated_as_well(kind: str) -> None:
    vlm = va.load(*TINY[kind]())
    pictures = np.random.default_rng(0).integers(0, 255, (3, 40, 60, 3), dtype=np.uint8)
    found = vlm.calibrate_sinks([(picture, "What is there to be seen?") for picture in pictures])
    assert found.source == "calibrated on 2 held-out prompts"
    assert vlm.known_sinks() is found
