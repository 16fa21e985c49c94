"""Several methods at once: by name, in runs, in files, and what contradicts itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vlmattn as va
from tests.steering.plain_contrast import picture, vlm_of
from vlmattn.capture import CaptureSpec, Session
from vlmattn.core.errors import FileError, SpecError
from vlmattn.sinks import SinkCoordinates
from vlmattn.steering import (
    NAMED,
    PAI,
    VAF,
    VAR,
    VCD,
    KnockOut,
    PAIContrast,
    ScaleHeads,
    Together,
    load_steering,
    save_steering,
    steering_of,
)  # fmt: skip


@pytest.fixture(scope="module")
def vlm() -> va.Vlm:
    return vlm_of("llava")


def ask(vlm: va.Vlm, *steering: Any, **options: Any) -> va.Run:
    return vlm.ask(picture(), "Who?", steering=list(steering), max_new_tokens=4, **options)


def test_names_join_methods_with_their_settings() -> None:
    joined = steering_of("pai:alpha=0.4,layers=0 1 + vcd:paper+vaf")
    first, second, third = joined.parts()
    assert (first.alpha, first.layers, second.noise_step, third.enhance) == (0.4, (0, 1), 500, 1.15)
    assert {"PAI", "VCD"} <= set(joined.describe().replace(":", "").split())
    told = {"ad-hh": "ad-hh:heads=16.29 26.9", "dagcd": "dagcd:heads=1.0,weights=2"}
    assert steering_of(told["ad-hh"]).heads == ((16, 29), (26, 9))
    named = {name: kind for name, kind in NAMED.items() if name != "focus"}  # learnt vectors come from a file
    assert [type(steering_of(told.get(name, name))) for name in named] == list(named.values())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pai+nothing", "nothing"),
        ("pai:beta=1", "pai has no setting beta; its settings are .*alpha"),
        ("ad-hh", "ad-hh needs heads: .*ad-hh:llava-1.5-7b"),
        ("pai:alpha=2", "alpha"),
        ("vaf:llava", "llava-1.5-7b"),
        ("vcd+pai-contrast", "VCD and PAIContrast contradict"),
        ("vcd:noise_step=1000", "noise_step"),
        ("", "does not exist"),
    ],
)
def test_what_cannot_be_is_refused_by_name(text: str, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        steering_of(text)


def test_joined_and_given_one_by_one_are_the_same_run(vlm: va.Vlm) -> None:
    members = (PAI(alpha=0.4, first_layer=0), VCD(alpha=0.8, beta=0.01))
    one, joined = ask(vlm, *members), ask(vlm, Together(members))
    assert one.answer == joined.answer
    assert np.array_equal(one.trace.attn_lhqk, joined.trace.attn_lhqk)
    assert one.trace.provenance.steps == joined.trace.provenance.steps
    alone = ask(vlm, members[1])
    assert not np.array_equal(one.trace.attn_lhqk, alone.trace.attn_lhqk)


def test_the_contrast_branch_is_not_steered(vlm: va.Vlm) -> None:
    # With PAI's attention on both runs, the contrast would be another.
    encoded = vlm.encode([(va.core.images.load_image(picture()),)], ["Who?"])
    method = PAIContrast(gamma=2.0, beta=0.0)
    found = []
    for steering in ((), (PAI(alpha=0.9, first_layer=0),)):
        session = Session(vlm.model, encoded.layouts, None, steering)
        how = {"max_new_tokens": 1, "do_sample": False, "return_dict_in_generate": True}
        with method.writing(vlm.model, encoded) as processor, session, torch.no_grad():
            out = vlm.model.generate(
                **encoded.inputs, **how, logits_processor=[processor], output_scores=True, output_logits=True
            )
        p = out.logits[0].log_softmax(-1)
        found.append((2 * p - out.scores[0]).log_softmax(-1))
    assert (found[0] - found[1]).abs().max() < 1e-4


def test_order_dependent_edits_of_one_layer_are_refused_before_anything_runs(vlm: va.Vlm) -> None:
    sinks = SinkCoordinates((1, 2), 64, first_layer=0)
    from vlmattn.steering import ACT

    with pytest.raises(SpecError, match=r"VAR and ACT both edit rows in layers \[1\]"):
        ask(vlm, VAR(coordinates=sinks), ACT(layers=(1,)))
    ask(vlm, VAR(coordinates=sinks, layers=(0,)), ACT(layers=(1,)))
    ask(vlm, PAI(), VAF())
    ask(vlm, KnockOut(layers=(1,)), PAI(first_layer=0), ScaleHeads(((0, 1),), 0.5))
    with pytest.raises(SpecError, match="VCD and PAIContrast"), vlm.steer(VCD(), PAIContrast()):
        vlm.ask(picture(), "Who?")


@pytest.mark.parametrize(
    ("steering", "told"),
    [
        (PAI(layers=(7,)), "layer"),
        (PAI(first_layer=9), "no layer"),
        (VAF.preset("llava-1.5-7b"), "32 layers"),
        (ScaleHeads(((0, 99),), 0.5), "head 99"),
    ],
)
def test_layers_heads_and_presets_of_another_model_are_refused(vlm: va.Vlm, steering: Any, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        ask(vlm, steering)


@pytest.mark.parametrize(
    ("options", "told"),
    [({"guidance_scale": 2.0}, "guidance_scale"), ({"prompt_lookup_num_tokens": 2}, "prompt_lookup")],
)
def test_decoding_that_cannot_be_followed_is_refused(vlm: va.Vlm, options: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        ask(vlm, VCD(), capture=CaptureSpec(rows="question"), **options)


def test_files_give_back_the_same_methods_and_refuse_another_model(vlm: va.Vlm, tmp_path: Path) -> None:
    sinks = SinkCoordinates((1, 2), 64, first_layer=0, notes=("a",))
    held = Together((VAR(coordinates=sinks, p=0.3), PAI(alpha=0.3, layers=(0, 1), first_layer=0), VCD(seed=3)))
    path = save_steering(tmp_path / "mine.json", held, vlm)
    again = load_steering(path, vlm)
    assert [one.describe() for one in again.parts()] == [one.describe() for one in held.parts()]
    assert again.parts()[0].coordinates == sinks
    with pytest.raises(SpecError, match="saved for the model"):
        load_steering(path, vlm_of("qwen2_vl"))
    path.write_text(path.read_text()[:-30])
    with pytest.raises(FileError):
        load_steering(path, vlm)
    with pytest.raises(SpecError, match="cannot be saved"):
        save_steering(path, KnockOut(), vlm)
