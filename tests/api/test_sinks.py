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
from vlmattn.core.errors import BudgetExceeded, MapError, SpecError, UnsupportedModel
from vlmattn.scene import plant_sinks
from vlmattn.scene.box import SINK_PATCHES, with_sinks
from vlmattn.sinks import SinkCoordinates
from vlmattn.steering import VAR

NAMES = ("scene-sinks", "scene-sinks-strong")
PICTURE = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
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
        for layer in range(planted.layer, model_sites(vlm.model).depth):
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
    assert found.layers == (1, model_sites(model("scene-sinks").model).depth - 1)


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


@pytest.mark.parametrize("p", [0.0, 0.6])
def test_maps_of_the_corrected_model_show_sinks_with_the_share_that_they_keep(p: float) -> None:
    # In the first layer with sinks, whose input nothing has changed yet.
    vlm = model("scene-sinks-strong")
    scene, question = item(7)
    spec = va.CaptureSpec(rows="last", top_k=0, dtype="float32")
    plain = vlm.ask(scene.image, question.text, max_new_tokens=1, capture=spec).trace
    steering = VAR(p=p, heads="all", except_last_layer=False)
    mended = vlm.ask(scene.image, question.text, max_new_tokens=1, capture=spec, steering=[steering]).trace
    sinks, slot = list(SINK_PATCHES), plain.layers.index(vlm.known_sinks().first_layer)
    before, after = plain.attn_lhqk[slot][..., 0, :], mended.attn_lhqk[slot][..., 0, :]
    assert after[..., sinks] == pytest.approx(p * before[..., sinks], abs=1e-6)
    assert np.delete(after, sinks, -1).sum() > np.delete(before, sinks, -1).sum()
    order = np.argsort(np.delete(before, sinks, -1), axis=-1)
    assert np.array_equal(np.argsort(np.delete(after, sinks, -1), axis=-1)[..., -1], order[..., -1])


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
        (lambda run: run.sinks(layers=[99]), "do not exist; this model has 0 to"),
        (lambda run: run.sinks("received", layers=[]), "do not exist"),
        (lambda run: run.sinks("received", alpha=0.0), "alpha must be above 0"),
        (lambda run: run.sinks("received", alpha=9999.0), "the number of tokens"),
        (lambda run: run.sinks(tau=9999.0), "at most the root of the width"),
        (lambda run: run.sinks(coordinates=[]), "at least one number"),
        (lambda run: run.sinks(tau="high"), "tau must be a number"),
        (lambda run: run.sinks(coordinates=[10**6]), "coordinates must be"),
        (lambda run: run.sinks(coordinates=SinkCoordinates((1,), 63)), "a width of 63 do not fit this model's"),
        (lambda run: run.map(0, sinks="some"), "keep, drop, only"),
        (lambda run: run.vlm.calibrate_sinks([(run.pictures[0], "What?")]), "at least 2 prompts"),
    ],
)
def test_what_cannot_be_asked(call: Any, message: str) -> None:
    scene, question = item(0)
    run = model("scene-sinks").ask(scene.image, question.text, max_new_tokens=2)
    with pytest.raises(SpecError, match=message):
        call(run)


def test_what_cannot_be_asked_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = va.load(*TINY["qwen2_vl"]())
    run = vlm.ask(PICTURE, "What?", max_new_tokens=1)
    monkeypatch.setattr(vlm, "run", None)
    for options in ({"tau": 99.0}, {"layers": [3]}, {"coordinates": [64]}, {"tau": 1.0, "tau_relative": 0.1}):
        with pytest.raises(SpecError):
            run.sinks(**options)
    with pytest.raises(SpecError, match="least_rows"):
        run.sinks("received", least_rows=0)


def test_sinks_follow_the_coordinates_that_the_model_is_told_to_have() -> None:
    vlm = va.load(*TINY["qwen2_vl"]())
    vlm.sink_coordinates = SinkCoordinates((), 64)
    run = vlm.ask(PICTURE, "What?", max_new_tokens=1)
    assert not run.sinks().found
    assert run.sinks() is run.sinks()
    vlm.sink_coordinates = SinkCoordinates((1, 3), 64, tau_relative=0.15)
    assert run.sinks().found


def test_a_layer_that_was_not_kept_is_told() -> None:
    scene, question = item(0)
    spec = va.CaptureSpec(rows="last", layers=[1, 2], top_k=0)
    run = model("scene-sinks").ask(scene.image, question.text, max_new_tokens=1, capture=spec)
    assert run.sinks("received", layers=[2], alpha=8.0).layers == (2,)
    with pytest.raises(SpecError, match=r"layers \[3\] were not kept"):
        run.sinks("received", layers=[3])
    assert run.sinks(layers=[-1]).layers == (model_sites(run.vlm.model).depth - 1,)


def test_received_attention_of_rows_that_var_changed_is_refused() -> None:
    scene, question = item(4)
    vlm = model("scene-sinks")
    run = vlm.ask(scene.image, question.text, max_new_tokens=1, steering=[VAR(rho=0.0)])
    assert len(run.sinks().visual) == len(SINK_PATCHES)
    with pytest.raises(SpecError, match="changed in this run: ask without it"):
        run.sinks("received")


@pytest.mark.parametrize("rule", ["massive", "received"])
def test_padding_changes_no_sinks(rule: Any) -> None:
    vlm = model("scene-sinks")
    items = [(item(n)[0].image, text) for n, text in ((0, "What?"), (1, "How many objects are there in the picture?"))]
    spec = va.CaptureSpec(rows="last", dtype="float32", top_k=0)
    for one, run in zip(items, vlm.ask_many(items, max_new_tokens=1, capture=spec), strict=True):
        alone = vlm.ask(*one, max_new_tokens=1, capture=spec).sinks(rule)
        found = run.sinks(rule)
        assert found.is_sink_ln.any()
        assert np.array_equal(found.is_sink_ln, alone.is_sink_ln)
        assert found.score_ln == pytest.approx(alone.score_ln, rel=1e-3, abs=1e-4)
        assert np.abs(found.visual_share_lq - alone.visual_share_lq).max() < 1e-4


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


@pytest.mark.parametrize("kind", ["mllama", "florence2"])
def test_roles_are_of_tokens_that_a_layer_has_among_its_keys(kind: str) -> None:
    run = va.load(*TINY[kind]()).ask(PICTURE, "What is it?", max_new_tokens=2)
    received = run.sinks("received", alpha=1.2)
    assert not any("received=True" in note for note in received.notes)  # which is refused for it
    memory = received.layout.memory
    beside = {
        n for n, score in zip(received.layers, received.score_ln, strict=True) if np.isfinite(score[:memory]).all()
    }
    roles = run.sink_roles(run.sinks(coordinates=[1, 3], tau_relative=0.2))
    assert {one.layer for one in roles} > beside or kind == "florence2"
    for one in roles:
        assert one.tokens == 0 or one.layer not in beside
        assert not one.value_ratio > 10
        assert np.isnan(one.value_ratio) == (one.tokens == 0)


def test_text_sinks_beside_a_picture_take_what_they_take_in_the_layers_that_see_them() -> None:
    vlm = va.load(*TINY["mllama"]())
    run = vlm.ask(PICTURE, "What is it?", max_new_tokens=2)
    found = run.sinks(coordinates=[1, 3], tau_relative=0.2)
    everywhere = [t for t in found.text if len(t.layers) == len(found.layers)]
    assert everywhere
    for token in everywhere:
        assert token.share == pytest.approx(np.nanmean(found.attention_ln[:, token.position]), abs=1e-6)


def test_var_acts_on_a_video() -> None:
    vlm = va.load(*TINY["qwen2_vl"]())
    video = va.Video(np.random.default_rng(0).integers(0, 255, (4, 64, 96, 3), dtype=np.uint8), fps=2.0)
    var = VAR(p=0.0, rho=0.0, least_mass=0.0, coordinates=[1, 3], tau_relative=0.15, first_layer=0)
    plain, steered = (vlm.ask(video, "What is it?", answer="a cat", steering=s).trace for s in ([], [var]))
    assert np.abs(steered.attn_lhqk[0] - plain.attn_lhqk[0]).max() > 1e-2
    assert np.abs(steered.mass_lhqs.sum(-1) - 1).max() < 1e-5


def test_an_encoder_decoder_has_too_few_tokens_to_calibrate() -> None:
    vlm = va.load(*TINY["florence2"]())
    with pytest.raises(UnsupportedModel, match="no token can stand out"):
        vlm.calibrate_sinks()


@pytest.mark.parametrize("kind", sorted({"gemma3n", "hy_v4_vl", "qwen4_exp"} & {*TINY}))
def test_models_with_several_residual_streams_are_refused_by_what_needs_one(kind: str) -> None:
    vlm = va.load(*TINY[kind]())
    run = vlm.ask(PICTURE, "What is it?", max_new_tokens=1)
    for call in (
        lambda: run.sinks(coordinates=[1]),
        lambda: run.sinks(),
        lambda: vlm.ask(PICTURE, "What?", max_new_tokens=1, steering=[VAR(coordinates=(1,), first_layer=0)]),
        lambda: vlm.ask(PICTURE, "What?", max_new_tokens=1, capture=va.CaptureSpec(hidden=True)),
    ):
        with pytest.raises(UnsupportedModel, match="several residual streams"):
            call()
    assert run.sinks("received", alpha=1.5).rule == "received"


@pytest.mark.parametrize("kind", ["mllama", "idefics"])
def test_pictures_beside_the_prompt_have_text_sinks_only(kind: str) -> None:
    found = va.load(*TINY[kind]()).ask(PICTURE, "What is it?", max_new_tokens=1).sinks(coordinates=[1, 3])
    assert not found.visual
    assert any("text sinks only" in note for note in found.notes)


@pytest.mark.parametrize("kind", sorted({"blip-2", "idefics2"} & {*TINY}))
def test_sinks_among_the_queries_of_a_resampler(kind: str) -> None:
    vlm = va.load(*TINY[kind]())
    run = vlm.ask(PICTURE, "What is it?", max_new_tokens=2)
    found = run.sinks(coordinates=[1, 3], tau_relative=0.15)
    assert found.visual
    assert {t.position for t in found.visual} <= {*found.layout.latent_positions.tolist()}
    assert any("queries of its resampler" in note for note in found.notes)
    assert not any("text sinks only" in note for note in found.notes)
    with pytest.raises(MapError, match="use rule='massive'"):
        run.sinks("received")
    for call in (lambda: run.sink_roles(found), lambda: va.sinks.image_centric_heads(run.trace, found)):
        with pytest.raises(MapError, match="queries of its resampler"):
            call()
    where = SinkCoordinates((1, 3), 64, tau_relative=0.15)
    steering = VAR(p=0.0, coordinates=where, heads="all", except_last_layer=False)
    steered = vlm.ask(PICTURE, "What is it?", max_new_tokens=2, steering=[steering])
    pictures = [trace.mass_lhqs[..., trace.segments.index("image:0")].mean() for trace in (run.trace, steered.trace)]
    assert pictures[1] > pictures[0] + 0.01


def test_an_even_share_is_over_the_keys_that_a_layer_looks_at() -> None:
    run = va.load(*TINY["mllama"]()).ask(PICTURE, "What is it?", max_new_tokens=1)
    found = run.sinks("received", alpha=2.0)
    memory, prompt = found.layout.memory, found.layout.answer_start
    for layer, cut in zip(found.layers, found.cut_l, strict=True):
        keys = prompt - memory if layer in run.trace.blind else memory
        assert cut == pytest.approx(2.0 / keys)
    assert {*run.trace.blind} < {*found.layers}


def test_sinks_of_a_video_are_patches_of_its_frames() -> None:
    video = va.Video(np.random.default_rng(0).integers(0, 255, (8, 60, 80, 3), dtype=np.uint8), fps=2.0)
    run = va.load(*TINY["qwen2_vl"]()).ask(video, "What is it?", max_new_tokens=1)
    found = run.sinks(coordinates=[1, 3], tau_relative=0.15)
    layout = found.layout
    assert len({t.tile for t in found.visual}) > 1
    for token in found.visual:
        score = found.patch_map(0).values[token.tile][token.row, token.col]
        assert score == pytest.approx(float(found.score_ln[:, token.position].max()))
        assert (layout.tile[token.position], layout.row[token.position]) == (token.tile, token.row)
    dropped = va.sinks.with_sinks(run.trace, found, "drop")
    assert not dropped.attn_lhqk[0][..., np.isin(run.trace.columns, np.flatnonzero(found.is_sink_ln[0]))].any()


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
