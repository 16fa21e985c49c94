"""The general pass of a picture: run once, shared by what it does, made anew by what changes it, divided by exactly."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data

import vlmattn as va
from tests.refine.test_looking_again import QUESTION, Louder, ask
from tests.tiny import TINY
from tests.tiny_models import build, tiny
from vlmattn.api.vlm import Vlm
from vlmattn.refine import SUFFIX


def test_the_general_pass_is_run_once_per_picture() -> None:
    vlm = va.load(*build("llava"))
    one, other = data.coffee(), data.chelsea()
    runs = [ask(vlm, one, "What?"), ask(vlm, one, "Where is it?"), ask(vlm, other, "What?")]
    for run in runs:
        run.refine("carve-crop")
    assert (vlm.general.runs, len(vlm.general)) == (2, 2)
    runs[0].map("What", part="question", method="relative")
    assert vlm.general.runs == 2, "a map of fewer steps takes the longer pass"
    ask(vlm, one, "What?", max_new_tokens=5).refine("carve-crop")
    assert vlm.general.runs == 3, "more steps need a longer pass"
    with vlm.steer(Louder()):
        ask(vlm, one, "What?").refine("carve-crop")
    assert vlm.general.runs == 4, "steering changes the pass"
    with torch.no_grad():
        next(vlm.model.parameters()).add_(0.01)
    ask(vlm, one, "What?").refine("carve-crop")
    assert vlm.general.runs == 5, "new weights make another model"
    vlm.general.clear()
    assert len(vlm.general) == 0


@dataclass(frozen=True, eq=False)
class Said(va.Steering):
    """Made anew for every run, as steering is that asks the model something first."""

    by: tuple[float, ...] = (1.0,)
    _working: dict[int, object] = field(default_factory=lambda: {0: object()}, init=False)

    def for_model(self, vlm: Any) -> Said:
        return replace(self)

    def edit_scores(self, scores_bhrk: torch.Tensor, where: Any) -> torch.Tensor:
        return scores_bhrk + self.by[0] * where.columns(2)


def test_general_passes_are_shared_by_what_they_do_and_made_anew_by_what_changes_them() -> None:
    vlm = va.load(*build("llava"))
    photo = data.coffee()
    runs = lambda: vlm.general.runs  # noqa: E731
    ask(vlm, photo, "What?").refine("carve-crop")
    ask(vlm, photo, "Why?", capture=va.CaptureSpec(rows="answer", top_k=2)).refine("carve-crop")
    assert runs() == 1, "rows and candidates of the question do not matter to it"
    ask(vlm, photo, "Why?", capture=va.CaptureSpec(rows="answer", layers=[1, 2])).refine("carve-crop")
    assert runs() == 2, "other layers are kept"
    ask(vlm, photo, "Why?", min_new_tokens=3).refine("carve-crop", steps="first", weights="even")
    assert runs() == 2, "shortest lengths are of the answer"
    for by, expected in ((1.0, 3), (1.0, 3), (3.0, 4)):
        with vlm.steer(Said((by,))):
            ask(vlm, photo, "What?").refine("carve-crop")
        assert runs() == expected, "equal steering is the same steering"
    louder, kept = Louder(), len(vlm.general)
    for by, expected in ((1.0, 5), (2.0, 6)):
        louder.by = by
        with vlm.steer(louder):
            ask(vlm, photo, "What?").refine("carve-crop")
        assert (runs(), len(vlm.general)) == (expected, kept), "nothing tells whether this object still does the same"
    ask(vlm, photo, "What?").refine("carve-crop", suffix="Be short.")
    assert runs() == 7, "another general prompt"
    for seed, expected in ((1, 8), (1, 8), (2, 9)):
        ask(vlm, photo, "What?", do_sample=True, seed=seed).refine("carve-crop")
        assert runs() == expected, "samples are of their seed"
    vlm.model.to(torch.float64)
    vlm.model.to(torch.float32)
    ask(vlm, photo, "What?").refine("carve-crop")
    assert runs() == 10, "weights were cast"


def test_a_general_pass_belongs_to_its_system_text() -> None:
    vlm = Vlm(*TINY["qwen2_vl"](), name="qwen2_vl")
    for system, expected in (("You are brief.", 1), ("You are brief.", 1), ("You are long.", 2)):
        ask(vlm, data.coffee()[:56, :84], "What?", system=system).refine("carve-crop")
        assert vlm.general.runs == expected


@pytest.mark.parametrize("heads", [None, [1]])
@pytest.mark.parametrize(("floor", "floor_of"), [(1e-8, "absolute"), (1.5, "mean")])
def test_relative_attention_is_the_papers_in_full_eager_matrices(heads: Any, floor: float, floor_of: Any) -> None:
    """ViCrop rel-att: the last prompt row of one layer under the question over that under the general prompt."""
    model, processor = build("llava")
    vlm = va.load(model, processor)
    run = ask(vlm, capture=va.CaptureSpec(rows="answer", dtype="float32"))
    found = run.refine("vicrop", layers=[1], heads=heads, floor=floor, floor_of=floor_of, window_px=90).refined
    eager, _ = build("llava")
    eager.set_attn_implementation("eager")
    rows = []
    for prompt in (QUESTION, "Write a general description of the image."):
        encoded = vlm.encode([run.pictures], [f"{prompt} {SUFFIX}"])
        with torch.no_grad():
            attention = eager(**encoded.inputs, output_attentions=True, use_cache=False).attentions[1][0]
        kept = attention if heads is None else attention[heads]
        rows.append(kept[:, -1, encoded.layouts[0].image_positions].double().mean(0).numpy())
    least = floor * rows[1].mean() if floor_of == "mean" else floor
    grid_hw = run.trace.layout.images[0].tiles[0].grid_hw
    expected = (rows[0] / np.maximum(rows[1], least)).reshape(grid_hw)
    np.testing.assert_allclose(found.patch_map.values[0], expected, rtol=1e-5)


def test_general_gradients_are_taken_once_per_picture_too() -> None:
    vlm, changes = va.load(*build("llava")), {"pictures": "crop", "window_px": 90}
    expected: dict[str, Any] = {}
    for question in ("Is it red?", "Where is it?"):
        found = ask(vlm, question=question).refine("vicrop-pure-gradient", **changes).refined
        assert found is not None
        expected[question] = found.patch_map.values[0]
    assert (vlm.general.runs, len(vlm.general)) == (1, 1)
    assert not np.array_equal(*expected.values())
    vlm.general.clear()
    again = ask(vlm, question="Where is it?").refine("vicrop-pure-gradient", **changes).refined
    assert again is not None
    np.testing.assert_array_equal(again.patch_map.values[0], expected["Where is it?"])
    ask(vlm, data.chelsea(), "Is it red?").refine("vicrop-pure-gradient", **changes)
    assert vlm.general.runs == 3, "another picture"
    with torch.no_grad():
        next(vlm.model.parameters()).add_(0.01)
    ask(vlm, data.chelsea(), "Is it red?").refine("vicrop-pure-gradient", **changes)
    assert vlm.general.runs == 4, "new weights"


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # PEFT's own
def test_an_adapter_that_is_put_aside_makes_another_general_pass() -> None:
    peft = pytest.importorskip("peft")
    model, processor = build("llava")
    tuned = peft.get_peft_model(
        model, peft.LoraConfig(target_modules=r".*language_model.*q_proj", init_lora_weights=False)
    )
    vlm = va.load(tuned, processor)
    ask(vlm, question="What?").refine("carve-crop")
    with tuned.disable_adapter():
        ask(vlm, question="What?").refine("carve-crop")
        assert vlm.general.runs == 2
    ask(vlm, question="What?").refine("carve-crop")
    assert vlm.general.runs == 2, "the first pass holds again"


def test_what_is_divided_by_is_kept_in_full_precision() -> None:
    vlm = va.load(*tiny("llava"))
    half, full = (
        ask(vlm, capture=va.CaptureSpec(rows="answer", dtype=dtype)).refine(
            "carve-crop", floor=1e-8, floor_of="absolute"
        )
        for dtype in ("float16", "float32")
    )
    assert vlm.general.runs == 1, "one pass for both"
    assert half.refined is not None
    assert full.refined is not None
    # What is left is the rounding of what is divided: half a unit in the last of 11 bits.
    np.testing.assert_allclose(half.refined.patch_map.values[0], full.refined.patch_map.values[0], rtol=2.0**-11)


def test_what_is_kept_of_general_passes_is_bounded() -> None:
    vlm = va.load(*build("llava"))
    vlm.general.most_bytes = 1
    for photo in (data.coffee(), data.chelsea(), data.coffee()):
        ask(vlm, photo, "What?").refine("carve-crop")
    assert (vlm.general.runs, len(vlm.general)) == (3, 1)
