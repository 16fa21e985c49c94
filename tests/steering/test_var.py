"""VAR against an independent computation: eager attention, whole matrices, plain loops."""

from __future__ import annotations

import math
from collections.abc import Collection
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers.models.llama.modeling_llama as llama

import vlmattn as va
from tests.capture.decoders import decoder, eager_twin, layouts_of, padded_batch
from tests.tiny_models import tiny
from vlmattn.capture import CaptureSpec, Session
from vlmattn.core.errors import CaptureError, PromptError, SpecError
from vlmattn.sinks import SinkCoordinates
from vlmattn.steering import PRESETS, VAR

IMAGE = range(2, 10)
COORDS = (5, 21)
FULL = CaptureSpec(rows="prompt", columns="all", dtype="float32")


def plain_row(
    row: list[float], sinks: set[int], settings: dict[str, Any], picture: Collection[int] = IMAGE
) -> list[float]:
    """One row after VAR, number by number."""
    visual = [j for j in picture if j in sinks and j < len(row)]
    rest = [j for j in picture if j not in sinks]
    mass = sum(row[j] for j in picture)
    taken = sum(row[j] for j in visual) / max(mass + settings.get("epsilon", 0) * len(picture), 1e-300)
    enough = taken <= settings["rho_code"] if "rho_code" in settings else 1 - taken >= settings.get("rho", 0.5)
    chosen = settings.get("heads") == "all" or (mass >= settings.get("least_mass", 0.2) and enough)
    left = sum(row[j] for j in rest)
    if not visual or not chosen or left <= 0:
        return row
    p = settings["p"]
    freed = (1 - p) * sum(row[j] for j in sinks if j < len(row))
    out = list(row)
    for j in range(len(row)):
        if j in sinks:
            out[j] = p * row[j]
        elif j in rest:
            out[j] = row[j] + freed * row[j] / left
    return out


@contextmanager
def plain_var(
    model: Any, prompt: int, layers: list[int], tau: float, settings: dict[str, Any], monkeypatch: Any
) -> Any:
    """An eager model, one sequence and no cache, whose attention matrices are edited as they are made."""
    sinks: dict[int, set[int]] = {}

    def look(layer: int) -> Any:
        def hook(_: Any, args: Any, kwargs: Any) -> None:
            x = (args[0] if args else kwargs["hidden_states"])[0]
            found = set()
            for position in range(prompt):
                values = [float(v) for v in x[position]]
                rms = math.sqrt(sum(v * v for v in values) / len(values) + 1e-6)
                if max(abs(values[c]) for c in COORDS) / rms > tau:
                    found.add(position)
            sinks[layer] = found

        return hook

    def attend(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any) -> Any:
        groups = query.shape[1] // key.shape[1]
        keys, values = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        count = query.shape[2]
        scores = (query @ keys.transpose(2, 3)).float() * scaling
        scores = scores.masked_fill(torch.triu(torch.ones(count, count, dtype=torch.bool), 1), -1e30)
        rows = torch.softmax(scores, -1)
        if module.layer_idx in layers:
            for head in range(rows.shape[1]):
                for q in range(IMAGE.stop, count):
                    rows[0, head, q] = torch.tensor(
                        plain_row(rows[0, head, q].tolist(), sinks[module.layer_idx], settings)
                    )
        return (rows @ values).transpose(1, 2).contiguous(), rows

    hooks = [b.register_forward_pre_hook(look(i), with_kwargs=True) for i, b in enumerate(model.model.layers)]
    with monkeypatch.context() as patch:
        patch.setattr(llama, "eager_attention_forward", attend)
        yield sinks
    for hook in hooks:
        hook.remove()


CASES: dict[str, dict[str, Any]] = {
    "paper": {"p": 0.6, "rho": 0.5},
    "no attention left to sinks": {"p": 0.0, "rho": 0.1, "least_mass": 0.05},
    "the code's direction": {"p": 0.3, "rho_code": 0.7, "epsilon": 1e-6},
    "all heads": {"p": 0.5, "heads": "all"},
    "last layer too": {"p": 0.2, "rho": 0.2, "except_last_layer": False},
}


def var(settings: dict[str, Any], tau: float = 1.6) -> VAR:
    return VAR(**settings, coordinates=SinkCoordinates(COORDS, 64, first_layer=1), tau=tau)


@pytest.mark.parametrize("case", CASES)
def test_prompt_and_every_written_token_equal_the_plain_computation(case: str, monkeypatch: Any) -> None:
    settings, model = CASES[case], decoder("llama_gqa")
    inputs, pads = padded_batch((23, 17))
    steering = var(settings)
    options = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    with Session(model, layouts_of(inputs, pads), None, [steering], pad_left=pads), torch.no_grad():
        out = model.generate(**inputs, **options)
        whole = model(**inputs).logits
    plain = model.generate(**inputs, **options)
    assert (out.logits[0] - plain.logits[0]).abs().max() > 1e-3, "nothing was changed"
    twin, layers = eager_twin(model), [1, 2] if settings.get("except_last_layer", True) else [1, 2, 3]
    for item, (length, pad) in enumerate(zip((23, 17), pads, strict=True)):
        ids = out.sequences[item : item + 1, pad:]
        with plain_var(twin, length, layers, 1.6, settings, monkeypatch) as sinks, torch.no_grad():
            want = twin(input_ids=ids, use_cache=False).logits[0]
        assert any(s & set(IMAGE) for s in sinks.values())
        assert (whole[item, pad:] - want[:length]).abs().max() < 1e-5 * max(1, float(want.abs().max()))
        for step in range(4):
            assert (out.logits[step][item] - want[length - 1 + step]).abs().max() < 2e-5 * float(want.abs().max())


@pytest.mark.parametrize("case", CASES)
def test_sums_are_kept_and_rows_before_the_picture_are_left_alone(case: str) -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((23, 17))
    kept = []
    for steering in ([], [var(CASES[case])]):
        session = Session(model, layouts_of(inputs, pads), FULL, steering, pad_left=pads)
        with session, torch.no_grad():
            model(**inputs)
        kept.append(session.finish())
    for before, after in zip(*kept, strict=True):
        assert (after.attn_lhqk.double().sum(-1) - 1).abs().max() < 1e-6
        assert torch.equal(after.attn_lhqk[:2, :, :10], before.attn_lhqk[:2, :, :10])
        assert not torch.equal(after.attn_lhqk[1], before.attn_lhqk[1])


@pytest.mark.parametrize(
    "steering",
    [
        VAR(p=1.0, coordinates=COORDS, tau_relative=0.01),
        VAR(p=0.0, coordinates=SinkCoordinates((), 64)),
        VAR(p=0.0, coordinates=COORDS, tau=7.9, first_layer=0),
        VAR(p=0.0, coordinates=COORDS, tau_relative=0.1, least_mass=1.0, rho=1.0),
    ],
    ids=["p = 1", "no sink coordinates", "no sink", "no head"],
)
def test_identity_settings_change_nothing_bit_for_bit(steering: VAR) -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((23, 17))
    options = {"max_new_tokens": 3, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    plain = model.generate(**inputs, **options)
    with Session(model, layouts_of(inputs, pads), None, [steering], pad_left=pads):
        out = model.generate(**inputs, **options)
    assert all(torch.equal(a, b) for a, b in zip(out.logits, plain.logits, strict=True))


def test_one_sink_raises_every_other_patch_by_what_it_gives_up() -> None:
    # Weights of patches that are no sinks grow by 1 + (1 - p) s / v.
    model, p = decoder("llama_gqa"), 0.25
    inputs, pads = padded_batch((20,))
    steering = VAR(p=p, coordinates=COORDS, tau=1.6, heads="all", layers=(2,))
    layouts = layouts_of(inputs, pads)
    kept = []
    for acting in ([], [steering]):
        with Session(model, layouts, FULL, acting) as session, torch.no_grad():
            states = model(**inputs, output_hidden_states=True).hidden_states[2][0]
        kept.append(session.finish()[0].attn_lhqk[2].double().numpy())
    phi = states[:, list(COORDS)].abs().amax(-1) / (states.square().mean(-1) + 1e-6).sqrt()
    sinks = (phi > 1.6).numpy()
    rest = np.isin(np.arange(20), IMAGE) & ~sinks
    before, after = (k[:, 10:] for k in kept)
    want = 1 + (1 - p) * before[..., sinks].sum(-1) / before[..., rest].sum(-1)
    assert np.abs(after[..., rest] / before[..., rest] - want[..., None]).max() < 1e-4
    assert np.abs(after[..., sinks] / before[..., sinks] - p).max() < 1e-5


def edited(rows_lhqk: torch.Tensor, sinks: set[int], settings: dict[str, Any], picture: Collection[int]) -> np.ndarray:
    """Rows (L, H, Q, K) of a prompt, those after its last patch redistributed one by one."""
    out = rows_lhqk.double().numpy().copy()
    for layer, head, row in np.ndindex(out.shape[:3]):
        if row > max(picture):
            out[layer, head, row] = plain_row(out[layer, head, row].tolist(), sinks, settings, picture)
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["llama_gqa", "gemma2_softcap", "mistral_window", "gpt_oss_sinks", "deepseek_mla"])
def test_rows_of_every_kind_of_attention_and_precision_are_redistributed_alike(name: str, dtype: torch.dtype) -> None:
    # Of the layer that acts first, the rows with VAR are those without it, edited one by one.
    model, settings, layer = decoder(name).to(dtype), {"p": 0.3, "rho": 0.2, "least_mass": 0.05}, 1
    inputs, pads = padded_batch((23, 17))
    with torch.no_grad():
        x = model(**inputs, output_hidden_states=True).hidden_states[layer].double()
    whole = (x[..., list(COORDS)].abs().amax(-1) / (x.square().mean(-1) + 1e-6).sqrt()).numpy()
    phis = [line[pad:] for line, pad in zip(whole, pads, strict=True)]
    tau = 0.999 * min(phi[IMAGE.start : IMAGE.stop].max() for phi in phis)
    var = VAR(**settings, coordinates=COORDS, tau=tau, first_layer=0, layers=(layer,))
    kept = []
    for steering in ([], [var]):
        spec = replace(FULL, layers=[layer])
        with Session(model, layouts_of(inputs, pads), spec, steering, pad_left=pads) as session, torch.no_grad():
            model(**inputs)
        kept.append(session.finish())
    for phi, before, after in zip(phis, *kept, strict=True):
        want = edited(before.attn_lhqk, set(np.flatnonzero(phi > tau).tolist()), settings, IMAGE)
        assert np.abs(want - before.attn_lhqk.double().numpy()).max() > 1e-2
        assert np.abs(after.attn_lhqk.double().numpy() - want).max() < 1e-6


def test_of_several_pictures_all_patches_take_part_and_rows_after_the_last_one_change() -> None:
    vlm = va.load(*tiny("llava"))
    pictures = [np.random.default_rng(n).integers(0, 255, (40, 60, 3), dtype=np.uint8) for n in range(2)]
    spec = CaptureSpec(rows="prompt", columns="all", dtype="float32", layers=[0], hidden=True, hidden_coords=COORDS)
    settings = {"p": 0.1, "rho": 0.0, "least_mass": 0.0}
    ask = {"max_new_tokens": 1, "capture": spec}
    before = vlm.ask(pictures, "Which one?", **ask).trace
    phi, at = va.sinks.phi_of(before.hidden, COORDS)[0], before.layout.image[: before.layout.answer_start]
    tau = 0.999 * min(float(phi[at == n].max()) for n in range(2))
    var = VAR(**settings, coordinates=COORDS, tau=tau, first_layer=0, layers=(0,))
    after = vlm.ask(pictures, "Which one?", steering=[var], **ask).trace
    sinks, picture = set(np.flatnonzero(phi > tau).tolist()), before.layout.image_positions.tolist()
    assert {int(i) for i in before.layout.image[sorted(sinks & {*picture})]} == {0, 1}
    want = edited(torch.as_tensor(before.attn_lhqk), sinks, settings, picture)
    assert np.abs(after.attn_lhqk - want).max() < 1e-6
    assert np.array_equal(after.attn_lhqk[:, :, : max(picture) + 1], before.attn_lhqk[:, :, : max(picture) + 1])
    assert np.abs(after.attn_lhqk - before.attn_lhqk).max() > 1e-2


def test_beams_and_runs_without_a_cache_have_the_same_sinks() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((16,))
    options = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    steering = var({"p": 0.2, "rho": 0.0, "least_mass": 0.0})
    with Session(model, layouts_of(inputs, pads), None, [steering]):
        cached = model.generate(**inputs, **options)
        plain = model.generate(**inputs, **options, use_cache=False)
        again = model.generate(**inputs, **options)
        model.generate(**inputs, max_new_tokens=3, num_beams=2)
    for a, b, c in zip(cached.logits, plain.logits, again.logits, strict=True):
        assert (a - b).abs().max() < 1e-4
        assert torch.equal(a, c)


def test_a_given_answer_runs_as_a_written_one() -> None:
    model, processor = tiny("llava")
    vlm = va.load(model, processor)
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    steering = [VAR(p=0.1, coordinates=COORDS, tau=1.5, rho=0.0, least_mass=0.0, first_layer=0)]
    spec = CaptureSpec(rows="answer", dtype="float32")
    run = vlm.ask(picture, "What?", max_new_tokens=5, steering=steering, capture=spec)
    ids = run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist()
    given = vlm.ask(picture, "What?", answer=ids, steering=steering, capture=spec)
    assert np.abs(run.trace.attn_lhqk - given.trace.attn_lhqk).max() < 1e-5
    assert "VAR: sinks keep p=0.1" in run.trace.provenance.steps[-1]


def test_a_prompt_that_ran_before_is_refused() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((16,))
    with torch.no_grad():
        cache = model(input_ids=inputs["input_ids"][:, :15], use_cache=True).past_key_values
    steering = var({"p": 0.2})
    session = Session(model, layouts_of(inputs, pads), None, [steering])
    with session, torch.no_grad(), pytest.raises(CaptureError, match="did not see"):
        model(input_ids=inputs["input_ids"][:, 15:], past_key_values=cache)


def test_sinks_that_keep_all_need_not_be_seen() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((16,))
    with torch.no_grad():
        given = [model(input_ids=inputs["input_ids"][:, :15], use_cache=True).past_key_values for _ in range(2)]
        want = model(input_ids=inputs["input_ids"][:, 15:], past_key_values=given[0]).logits
        with Session(model, layouts_of(inputs, pads), None, [var({"p": 1.0})]):
            got = model(input_ids=inputs["input_ids"][:, 15:], past_key_values=given[1]).logits
    assert torch.equal(got, want)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 1.5}, "p of VAR must be a share"),
        ({"rho": 0.5, "rho_code": 0.5}, "not both"),
        ({"tau": 3.0, "tau_relative": 0.3}, "not both"),
        ({"heads": "some"}, "centric"),
        ({"heads": "all", "rho": 0.5}, "leave them out"),
        ({"heads": "all", "rho_code": 0.5}, "leave them out"),
        ({"epsilon": -1}, "epsilon"),
        ({"p": "0.6"}, "p of VAR must be a share"),
        ({"least_mass": None}, "least_mass of VAR must be a share"),
        ({"heads": "all", "rho": 0.5}, "mean nothing"),
        ({"coordinates": ()}, "coordinates of VAR"),
        ({"coordinates": "12"}, "coordinates of VAR"),
        ({"coordinates": (1.5,)}, "coordinates of VAR"),
        ({"first_layer": -1}, "first_layer of VAR"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        VAR(**options)


@pytest.mark.parametrize(
    ("steering", "message"),
    [
        (VAR(), "needs the model's sink coordinates"),
        (VAR(coordinates=(5,), tau=20.0), "at most the root of the width, 8"),
        (VAR(coordinates=(70,)), "coordinates must be"),
        (VAR(coordinates=(5,), tau="2"), "tau must be a number"),
        (VAR(coordinates=SinkCoordinates((5,), 4096)), "do not fit this model's, 64"),
        (VAR(coordinates=(5,), layers=(9,)), "layer"),
        (VAR(coordinates=(5,), layers=(3,)), "no layer to act in"),
        (VAR(coordinates=(5,), first_layer=4), "no layer to act in"),
    ],
)
def test_models_that_it_cannot_act_on_are_told_before_anything_runs(steering: VAR, message: str) -> None:
    inputs, pads = padded_batch((16,))
    with pytest.raises(SpecError, match=message):
        Session(decoder("llama_gqa"), layouts_of(inputs, pads), None, [steering])


def test_presets_say_the_papers_numbers() -> None:
    assert VAR.preset("hallucination").rho == 0.5
    assert VAR.preset("general", p=0.3).p == 0.3
    assert VAR.preset("released").except_last_layer is False
    assert {name: VAR.preset(name).least_mass for name in PRESETS} == dict.fromkeys(PRESETS, 0.2)
    with pytest.raises(SpecError, match="there are general"):
        VAR.preset("other")


def test_coordinates_may_be_an_array() -> None:
    assert VAR(coordinates=np.array([21, 5])).coordinates == (21, 5)


@pytest.mark.parametrize("kind", ["mllama", "florence2", "idefics", "blip-2 t5"])
def test_a_model_seen_by_cross_attention_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.tiny import TINY

    vlm = va.load(*TINY[kind]())
    picture = np.zeros((40, 40, 3), dtype=np.uint8)
    monkeypatch.setattr("vlmattn.api.sinks.calibrate", None)  # nothing is calibrated for it
    for steering in (VAR(coordinates=(3,), first_layer=0), VAR()):
        with pytest.raises(SpecError, match="keys beside"):
            vlm.ask(picture, "What?", steering=[steering])


def test_a_bad_prompt_is_told_before_a_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmattn.api.sinks.calibrate", None)
    with pytest.raises(PromptError):
        va.load(*tiny("llava")).ask(np.zeros((40, 40, 3), dtype=np.uint8), "", steering=[VAR()])
