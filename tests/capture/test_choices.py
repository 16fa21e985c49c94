"""Choices that cannot be met, or would do nothing, are named before anything runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from torch import nn

import vlmattn as va
from tests.capture.decoders import decoder, layouts_of, padded_batch
from tests.tiny_models import tiny
from vlmattn.capture import CaptureSpec, Session, Steering
from vlmattn.core.errors import BudgetExceeded, CaptureError, SpecError, UnsupportedAttention
from vlmattn.core.layout import plain_layout

SMALL = {"d_model": 16, "vocab_size": 20, "decoder_start_token_id": 0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 3}, "rows must be a rule, or a tuple"),
        ({"rows": None}, "rows must be a rule, or a tuple"),
        ({"rows": [True]}, "rows must be positions.*got True"),
        ({"rows": (1.0,)}, r"rows must be positions.*got 1\.0"),
        ({"rows": [[1]]}, "rows must be positions"),
        ({"layers": 2}, "layers must be whole numbers"),
        ({"layers": "middle"}, "layers must be one of 'all'"),
        ({"layers": [1.5]}, "layers must be whole numbers"),
        ({"heads": 2}, "heads must be whole numbers"),
        ({"heads": "mean"}, "heads must be 'all'"),
        ({"heads": [0.5]}, "heads must be whole numbers"),
        ({"heads": [[0], [1]]}, "heads must be whole numbers"),
        ({"heads": {0: 1}}, "heads of layer 0 must be whole numbers"),
        ({"heads": {"0": [1]}}, "the layers of heads must be whole numbers"),
        ({"top_k": 2.5}, "top_k must be a whole number"),
        ({"top_k": -1}, "top_k must be a whole number"),
        ({"budget": "1"}, "budget must be bytes"),
        ({"budget": float("nan")}, "budget must be bytes"),
        ({"budget": float("inf")}, "budget must be bytes"),
        ({"budget": True}, "budget must be bytes"),
        ({"offload": "x"}, "offload must be one of False, True"),
        ({"hidden": 1}, "hidden must be one of False, True"),
        ({"hidden_coords": 3}, "hidden_coords must be whole numbers"),
        ({"hidden_coords": (1,)}, "say hidden=True"),
    ],
)
def test_values_of_another_kind_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        CaptureSpec(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": True, "hidden_coords": (0, 999)}, r"hidden_coords \[999\] do not exist: .* 64 coordinates"),
        ({"heads": {-1: [0], 3: [1]}}, "heads name one layer twice"),
        ({"heads": [0, -4]}, r"heads \[0, -4\] of layer 0 name a head twice"),
        ({"heads": {0: [1]}, "layers": [0, 2]}, r"none for layers \[2\]"),
        ({"heads": {0: []}}, r"heads \[\] of layer 0 do not exist"),
        ({"layers": [-5]}, r"no attention in layer \[-5\]"),
        ({"vision": "received"}, "needs a vision tower"),
    ],
)
def test_what_a_model_does_not_have_is_refused(options: dict[str, Any], message: str) -> None:
    inputs, pads = padded_batch((12,))
    with pytest.raises(SpecError, match=message):
        Session(decoder("llama_gqa"), layouts_of(inputs, pads), CaptureSpec(rows="last", **options))


@torch.no_grad()
@pytest.mark.parametrize("options", [{"heads": {-1: [0, -1]}}, {"layers": "all"}, {"layers": None}])
def test_layers_count_from_the_end_and_all_means_all(options: dict[str, Any]) -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((12,))
    with Session(model, layouts_of(inputs, pads), CaptureSpec(rows="last", **options)) as session:
        model(**inputs)
    kept = session.finish()[0]
    want = ((3,), ((0, 3),)) if "heads" in options else ((0, 1, 2, 3), ((0, 1, 2, 3),) * 4)
    assert (kept.layers, kept.heads) == want


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (lambda: nn.Linear(2, 2), UnsupportedAttention, "Linear is no transformers model with a text decoder"),
        (lambda: None, UnsupportedAttention, "NoneType is no transformers model"),
        (lambda: "scene", UnsupportedAttention, "str is no transformers model"),
        (
            lambda: tf.T5ForConditionalGeneration(tf.T5Config(**SMALL, d_kv=4, d_ff=16, num_layers=1, num_heads=2)),
            CaptureError,
            "looks at pictures by cross attention, and the layouts have no keys beside the tokens",
        ),
    ],
)
def test_models_that_cannot_be_captured_are_named(model: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Session(model(), [plain_layout(torch.arange(3).numpy())], CaptureSpec(rows="last"))


def test_layouts_and_padding_must_belong_together() -> None:
    model = decoder("llama_gqa")
    layouts = layouts_of(*padded_batch((23, 17)))
    with pytest.raises(SpecError, match="no layout was given"):
        Session(model, [], CaptureSpec())
    with pytest.raises(CaptureError, match="no layout was given"):
        CaptureSpec().estimate(model, [])
    with pytest.raises(SpecError, match=r"pad_left must have one entry per layout, 2; got 1"):
        Session(model, layouts, CaptureSpec(), pad_left=[0])


class Half(Steering):
    def edit_rows(self, probs_bhrk: torch.Tensor, where: Any) -> torch.Tensor:
        return probs_bhrk * 0.5


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("layers", (99,), r"Half has no attention to act on in layer \[99\]; layers are \[0, 1, 2, 3\]"),
        ("layers", (0, -9), r"layer \[-9\]"),
        ("layers", (), "none given"),
        ("layers", 1, "layers of Half must be layer numbers or None"),
        ("layers", ("1",), "layers of Half must be layer numbers or None"),
        ("rows", "answer", "rows of Half must be one of after_image, last, all; got 'answer'"),
    ],
)
def test_steering_that_would_do_nothing_is_refused(field: str, value: Any, message: str) -> None:
    inputs, pads = padded_batch((12,))
    steering = Half()
    setattr(steering, field, value)
    with pytest.raises(SpecError, match=message):
        Session(decoder("llama_gqa"), layouts_of(inputs, pads), None, [steering])


@torch.no_grad()
def test_layers_of_steering_count_from_the_end() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((12,))
    steering = Half()
    steering.layers = (-1,)
    with Session(model, layouts_of(inputs, pads), CaptureSpec(rows="last"), [steering]) as session:
        model(**inputs)
    masses = session.finish()[0].mass_lhqs.sum(-1)
    assert torch.allclose(masses[3], torch.tensor(0.5), atol=1e-5)
    assert torch.allclose(masses[:3], torch.tensor(1.0), atol=1e-5)


# -- what it costs -----------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", ["gemma3_window", "mistral_window", "llama_gqa"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"heads": [0, 2], "reduce": "max"},
        {"value_norms": "value", "head_norms": True, "hidden": True, "hidden_coords": (1, 2)},
        {"layers": [1], "offload": True, "dtype": "float32"},
    ],
)
def test_every_part_of_an_estimate_is_what_is_kept(name: str, options: dict[str, Any]) -> None:
    model = decoder(name)
    inputs, pads = padded_batch((23, 17))
    layouts = layouts_of(inputs, pads)
    spec = CaptureSpec(rows=("question", "answer"), **options)
    said = spec.estimate(model, layouts, max_new_tokens=6).by_part
    with Session(model, layouts, spec, pad_left=pads, max_new_tokens=6) as session:
        output = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    run = session.recordings[-1]
    log, norms = run.hidden, run.values._norms
    sizes = {part: 0 if (held := run.rows.get(key)) is None else held.nbytes for part, key in PARTS.items()}
    sizes["value norms"] = 0 if norms is None else norms.nbytes
    logs = (log.rms, log.peak, log.peak_coord, log.coord)
    sizes["hidden states"] = sum(t.nbytes for one in logs for kept in one.values() for t in kept)
    sizes["next-token candidates"] = sum(
        array.nbytes for kept in session.finish(sequences=output) for array in vars(kept.candidates).values()
    )
    assert sizes == {name: said[name] for name in sizes}


PARTS = {
    "image columns": "attn",
    "segment masses": "mass",
    "visible columns": "visible",
    "head norms": "head_norm",
}


@torch.no_grad()
@pytest.mark.parametrize(
    ("session", "settings"),
    [({}, {"max_new_tokens": 200}), ({"max_new_tokens": 30}, {"max_new_tokens": 30, "num_beams": 8})],
)
def test_a_run_that_grows_over_the_budget_is_stopped(session: dict[str, Any], settings: dict[str, Any]) -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((12,))
    spec = CaptureSpec(rows="answer", budget=40000)
    with (
        pytest.raises(BudgetExceeded, match=r"choose layers=, reduce='mean'"),
        Session(model, layouts_of(inputs, pads), spec, **session) as opened,
    ):
        model.generate(**inputs, do_sample=False, **settings)
    held = [run.rows.get(key) for run in opened.recordings for key in PARTS.values()]
    assert sum(buffer.nbytes for buffer in held if buffer is not None) <= 40000


@torch.no_grad()
def test_an_unannounced_length_may_use_the_whole_budget() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((12,))
    spec = CaptureSpec(rows="answer", budget=40000, top_k=0)
    with Session(model, layouts_of(inputs, pads), spec) as session:
        model.generate(**inputs, max_new_tokens=50, do_sample=False)
    assert len(session.finish()[0].positions) == 50


@torch.no_grad()
@pytest.mark.parametrize("family", ["llava", "llava_next", "llava_onevision"])
def test_the_cost_of_the_vision_tower_is_known(family: str) -> None:
    vlm = va.load(*tiny(family))
    picture = np.random.default_rng(0).integers(0, 255, (70, 150, 3), dtype=np.uint8)
    spec = CaptureSpec(rows="last", vision="received")
    _, estimate = vlm.plan(picture, "What?", capture=spec, max_new_tokens=1)
    run = vlm.ask(picture, "What?", capture=spec, max_new_tokens=1)
    assert run.trace.vision is not None
    assert estimate.by_part["vision tower"] == run.trace.vision.nbytes
