"""Attention knock-out equals a plain computation with minus infinity in whole matrices, and says what it did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import vlmattn as va
from tests.capture.asked import loaded as tiny_of
from tests.heads.by_hand import FAMILIES, answered, by_hand, loaded, picture, run_of
from vlmattn.api import knockout_cost, knockout_sweep
from vlmattn.core.errors import SpecError
from vlmattn.core.layout import TokenKind
from vlmattn.heads import Block, KnockoutSweep, block_named, curve_svg, layer_windows
from vlmattn.steering import KnockOut, ScaleHeads

# What rows and columns of a block are, written once more from the layout alone.
ROWS: dict[str, Any] = {
    "question": lambda lay, n: lay.kinds == TokenKind.QUESTION,
    "answer": lambda lay, n: np.arange(n) >= lay.answer_start - 1,
    "last": lambda lay, n: np.arange(n) == lay.answer_start - 1,
    "generated": lambda lay, n: np.arange(n) >= lay.answer_start,
    "all": lambda lay, n: np.ones(n, dtype=bool),
}
COLUMNS: dict[str, Any] = {
    "image": lambda lay: lay.image >= 0,
    "question": lambda lay: lay.kinds == TokenKind.QUESTION,
    "answer": lambda lay: lay.kinds == TokenKind.ANSWER,
    "prompt": lambda lay: np.arange(len(lay)) < lay.answer_start,
}
CUTS = ("image->question", "image->answer", "question->answer", "answer->generated", "image->last", "prompt->all")


def hide(layout: Any, block: str, layers: tuple[int, ...]) -> Any:
    source, target = block.split("->")
    cut = ROWS[target](layout, len(layout))[:, None] & COLUMNS[source](layout)[None]
    np.fill_diagonal(cut, False)
    return lambda layer, count: torch.as_tensor(cut & (layer in layers))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("block", CUTS)
def test_a_sweep_equals_whole_matrices_with_cells_hidden(family: str, block: str) -> None:
    run = run_of(family)
    sweep = knockout_sweep(run.vlm, run, [block], window=2)
    assert sweep.windows == ((0, 1), (1, 2))
    with by_hand(run) as (logits, _):
        assert sweep.whole_logp_n[0] == pytest.approx(answered(run, logits), abs=2e-4)
    for w, layers in enumerate(sweep.windows):
        with by_hand(run, hide(run.trace.layout, block, layers)) as (logits, _):
            assert sweep.logp_nbw[0, 0, w] == pytest.approx(answered(run, logits), abs=2e-4)
            best = logits[run.trace.layout.answer_start - 1 : -1].argmax(-1).numpy()
        assert sweep.changed_nbw[0, 0, w] == (best != run.trace.layout.input_ids[run.trace.layout.answer_start :]).any()
    assert np.abs(sweep.log_change_bw).max() > 1e-3, "nothing was cut"


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_equal_whole_matrices_to_1e_5(family: str) -> None:
    run, cut = run_of(family), KnockOut(("image->answer",), layers=(1,))
    spec = va.CaptureSpec(rows="answer", convention="query", dtype="float32")
    ids = run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist()
    steered = run.vlm.ask(picture(), run.question, answer=ids, capture=spec, steering=[cut])
    with by_hand(run, hide(run.trace.layout, "image->answer", (1,))) as (_, kept):
        for layer in (0, 1, 2):
            rows = kept[layer]["rows"][:, steered.trace.positions][..., steered.trace.columns].numpy()
            assert np.abs(steered.trace.attn_lhqk[layer] - rows).max() < 1e-5
    assert steered.trace.attn_lhqk[1].max() == 0
    assert steered.trace.attn_lhqk[0].max() > 0


def test_generation_under_a_cut_is_the_same_with_and_without_a_cache() -> None:
    vlm, cut = loaded("llava"), [KnockOut(("image->answer", "question->generated"))]
    written = vlm.ask(picture(), "Is it?", max_new_tokens=5, steering=cut)
    ids = written.trace.layout.input_ids[written.trace.layout.answer_start :].tolist()
    read = vlm.ask(picture(), "Is it?", answer=ids, steering=cut)
    assert np.allclose(written.trace.scores.chosen_logp_t, read.trace.scores.chosen_logp_t, atol=1e-4)
    assert vlm.ask(picture(), "Is it?", max_new_tokens=5).trace.scores.chosen_logp_t[0] != pytest.approx(
        read.trace.scores.chosen_logp_t[0], abs=1e-4
    )


def test_a_row_that_sees_nothing_attends_to_nothing() -> None:
    # In cross attention a row sees pictures only, so nothing is left; its heads write zeros, as without them.
    vlm = tiny_of("mllama")
    layer = next(s.layer_idx for s in va.capture.model_sites(vlm.model).attention if s.kind == "cross")
    spec = va.CaptureSpec(rows="answer", dtype="float32")
    heads = va.capture.model_sites(vlm.model).attention[0].heads
    ask = {"answer": [20, 21], "capture": spec}
    cut = vlm.ask(picture(), "Is it?", steering=[KnockOut(("image->all",), layers=(layer,))], **ask)
    out = vlm.ask(picture(), "Is it?", steering=[ScaleHeads([(layer, h) for h in range(heads)], 0.0)], **ask)
    slot = cut.trace.layers.index(layer)
    assert cut.trace.attn_lhqk[slot].max() == 0
    assert np.isfinite(cut.trace.scores.chosen_logp_t).all()
    assert np.allclose(cut.trace.scores.chosen_logp_t, out.trace.scores.chosen_logp_t, atol=1e-5)


def test_one_of_two_pictures_is_cut() -> None:
    vlm = loaded("llava")
    spec = va.CaptureSpec(rows="answer", dtype="float32")
    cut = [KnockOut("image:1->answer")]
    run = vlm.ask([picture(0), picture(1)], "Is it?", answer=[50, 51], capture=spec, steering=cut)
    first = run.trace.layout.image[run.trace.columns] == 0
    assert run.trace.attn_lhqk[..., ~first].max() == 0
    assert run.trace.attn_lhqk[..., first].min() > 0
    with pytest.raises(SpecError, match="picture 1; the prompt has 1"):
        vlm.ask(picture(), "Is it?", answer=[50], steering=cut)


def test_keys_that_are_tokens_and_pictures_in_one_are_cut() -> None:
    vlm = tiny_of("t5gemma2")
    merged = [s.layer_idx for s in va.capture.model_sites(vlm.model).attention if s.kind == "merged"]
    spec = va.CaptureSpec(rows="answer", dtype="float32")
    run = vlm.ask(picture(), "Is it?", answer=[20, 21, 22], capture=spec, steering=[KnockOut("image->answer")])
    plain = vlm.ask(picture(), "Is it?", answer=[20, 21, 22], capture=spec)
    slots = [run.trace.layers.index(layer) for layer in merged]
    image, own = run.trace.segments.index("image:0"), run.trace.segments.index("answer")
    assert run.trace.mass_lhqs[slots][..., image].max() == 0
    assert plain.trace.mass_lhqs[slots][..., image].max() > 0
    assert (run.trace.mass_lhqs[slots][:, :, -1, own] > 0).any()
    assert np.allclose(run.trace.mass_lhqs.sum(-1), 1, atol=1e-4)


def test_a_batch_of_ragged_prompts_is_cut_as_each_alone() -> None:
    vlm, cut = loaded("llava"), [KnockOut(("image->question", "question->answer"))]
    items = [(picture(0), "Is it?"), (picture(1), "What is left of the spoon?")]
    together = vlm.ask_many(items, answers=[[50, 51], [52, 53]], steering=cut)
    for run, item, ids in zip(together, items, ([50, 51], [52, 53]), strict=True):
        alone = vlm.ask(*item, answer=ids, steering=cut)
        assert np.allclose(run.trace.scores.chosen_logp_t, alone.trace.scores.chosen_logp_t, atol=1e-4)


def test_the_cost_is_told_before_anything_runs() -> None:
    run, told = run_of("llava"), []
    assert knockout_cost(run.vlm, [run, run], window=1).passes == 2 * (1 + 3 * 3)
    knockout_sweep(run.vlm, run, ["image->last"], window=None, tell=told.append)
    assert told[0].passes == 2
    assert "2 passes" in str(told[0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window": 4}, "longer than the 3"),
        ({"window": 0}, "from 1"),
        ({"blocks": ["image>answer"]}, "source->target"),
        ({"blocks": ["picture->answer"]}, "source 'picture'"),
        ({"blocks": ["image->nothing"]}, "target 'nothing'"),
        ({"blocks": []}, "needs a block"),
        ({"samples": []}, "a list of runs"),
        ({"samples": ["x"]}, "a sample is"),
        ({"samples": [(picture(), "Is it?", "")]}, "empty"),
    ],
)
def test_bad_sweeps_are_refused(options: dict[str, Any], said: str) -> None:
    run = run_of("llava")
    with pytest.raises((SpecError, va.errors.PromptError), match=said):
        knockout_sweep(run.vlm, options.pop("samples", run), **options)


def test_layers_without_attention_are_passed_over() -> None:
    vlm = tiny_of("lfm2_vl")
    layers = [s.layer_idx for s in va.capture.model_sites(vlm.model).attention]
    sweep = knockout_sweep(vlm, [(picture(), "Is it?", [20, 21])], ["image->answer"], window=1)
    assert sweep.windows == tuple((layer,) for layer in layers)
    missing = next(n for n in range(20) if n not in layers)
    with pytest.raises(SpecError, match="no attention to act on"):
        vlm.ask(picture(), "Is it?", answer=[20], steering=[KnockOut(("image->answer",), layers=(missing,))])


def test_what_a_sweep_says() -> None:
    whole, cut = np.array([-1.0, -2.0]), np.array([[[-2.0, -1.0]], [[-2.0, -4.0]]])
    changed, first = np.array([[[True, False]], [[False, False]]]), np.full((2, 1, 2), "a", dtype=object)
    sweep = KnockoutSweep(("image->answer",), ((0,), (1, 2)), ("q", "r"), ("a", "b"), whole, cut, changed, first)
    assert sweep.log_change_bw.tolist() == [[-0.5, -1.0]]
    assert sweep.probability_change_bw[0, 0] == pytest.approx((np.exp(-1) - 1) / 2)
    assert sweep.changed_bw.tolist() == [[0.5, 0.0]]
    assert "-0.50 (50%)" in sweep.table()
    assert "1-2" in sweep.table()
    low, high = sweep.interval_bw(np.random.default_rng(0))
    assert (low <= sweep.log_change_bw).all()
    assert (high >= sweep.log_change_bw).all()
    assert sweep.to_dict()["logp_nbw"] == cut.tolist()
    assert sweep.curve_svg().startswith("<svg")
    assert "&lt;x&gt;" in curve_svg({"<x>": [1.0]}, ["0"], x_title="", y_title="")


def test_windows_and_blocks() -> None:
    assert layer_windows([1, 3, 5], 2) == ((1, 3), (3, 5))
    assert block_named(Block("image", "last")) == block_named("image->last")
