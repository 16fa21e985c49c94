"""Asking through the engine: logits steering, threads, budgets of beams, heads chosen by layer."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, LogitsProcessor

import vlmattn as va
from tests.tiny_models import tiny
from vlmattn.core.errors import BudgetExceeded, SpecError

QUESTION = "Is the red cup left of the red spoon?"
FULL = va.CaptureSpec(rows=("question", "answer"), dtype="float32")


def picture(seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 255, (70, 90, 3), dtype=np.uint8)


def ask(seed: int = 0, **options: Any) -> va.Run:
    vlm = va.load(*tiny("llava"))
    settings = {"max_new_tokens": 4, "capture": FULL, "suppress_tokens": [vlm.adapter.image_token_id]} | options
    return vlm.ask(picture(seed), QUESTION, **settings)


class Logits(va.Steering):
    """Steering made of one function on logits."""

    def __init__(self, change: Any) -> None:
        self.change = change

    def logits_processor(self) -> Any:
        change = self.change

        class Apply(LogitsProcessor):
            def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
                return change(input_ids, scores)

        return Apply()


def answer_ids(run: va.Run) -> list[int]:
    ids: list[int] = run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist()
    return ids


def test_logits_that_stay_the_same_change_nothing() -> None:
    plain, steered = ask(), ask(steering=[Logits(lambda ids, scores: scores.clone())])
    assert answer_ids(steered) == answer_ids(plain)
    assert np.array_equal(steered.trace.attn_lhqk, plain.trace.attn_lhqk)
    assert "Logits" in steered.trace.provenance.steps


def test_a_known_change_of_the_logits_is_what_is_written() -> None:
    def only(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([40 + ids.shape[1] % 3]), 0.0)

    run = ask(steering=[Logits(only)])
    first = run.trace.layout.answer_start
    assert answer_ids(run) == [40 + (first + step) % 3 for step in range(4)]
    given = ask(answer=answer_ids(run))
    assert np.allclose(run.trace.attn_lhqk, given.trace.attn_lhqk, atol=1e-5)
    assert run.trace.scores is not None
    assert given.trace.scores is not None
    # The statistics are the model's own, before steering.
    assert np.allclose(run.trace.scores.entropy_t, given.trace.scores.entropy_t, atol=1e-4)


def test_a_contrast_branch_inside_the_logits_slot_is_left_alone() -> None:
    model = tiny("llava")[0]

    def contrast(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores - 0.1 * model(input_ids=ids[:, -3:]).logits[:, -1]

    run = ask(steering=[Logits(contrast)])
    given = ask(answer=answer_ids(run))
    assert np.allclose(run.trace.attn_lhqk, given.trace.attn_lhqk, atol=1e-5)


def test_steering_that_a_given_answer_leaves_no_room_for_is_not_told() -> None:
    class Half(va.Steering):
        def edit_rows(self, probs_bhrk: torch.Tensor, where: Any) -> torch.Tensor:
            return probs_bhrk * 0.5

    run = ask(answer="a cup", steering=[Logits(lambda ids, scores: scores), Half()])
    assert run.trace.provenance.steps == ("given answer", "Half")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_lookup_num_tokens": 2}, "prompt_lookup_num_tokens runs several tokens in one pass"),
        ({"prompt_lookup_num_tokens": 2, "capture": va.CaptureSpec(rows="question")}, "prompt_lookup_num_tokens"),
        ({"use_cache": False}, "use_cache=False runs several tokens"),
    ],
)
def test_generation_of_several_tokens_at_once_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        ask(**options)


def test_beams_of_a_generation_config_count_for_the_budget() -> None:
    vlm = va.load(*tiny("llava"))
    spec = va.CaptureSpec(rows="answer")
    _, one = vlm.plan(picture(), QUESTION, capture=spec, max_new_tokens=4)
    tight = va.CaptureSpec(rows="answer", budget=2 * one.total)
    ask(capture=tight)
    before = vlm.model.generation_config
    vlm.model.generation_config = GenerationConfig(**before.to_diff_dict() | {"num_beams": 4})
    ran: list[int] = []
    handle = vlm.model.register_forward_pre_hook(lambda *_: ran.append(1))
    try:
        with pytest.raises(BudgetExceeded):
            ask(capture=tight)
    finally:
        vlm.model.generation_config = before
        handle.remove()
    assert not ran


def test_threads_that_share_a_model_take_turns() -> None:
    vlm = va.load(*tiny("llava"))
    settings = {"max_new_tokens": 3, "capture": FULL, "suppress_tokens": [vlm.adapter.image_token_id]}
    wanted = [vlm.ask(picture(seed), QUESTION, **settings).trace.attn_lhqk for seed in (0, 1)]
    results: list[bool | BaseException] = []

    def run(seed: int) -> None:
        for _ in range(6):
            try:
                got = vlm.ask(picture(seed), QUESTION, **settings).trace.attn_lhqk
                results.append(np.allclose(got, wanted[seed], atol=1e-5))
            except Exception as error:
                results.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 12


def test_maps_and_shares_are_means_over_the_heads_that_were_kept() -> None:
    full = ask().trace
    some = ask(capture=va.CaptureSpec(rows=("question", "answer"), dtype="float32", heads={0: [1], 2: [0, 1, 3]}))
    row = int(full.rows_of((full.answer_tokens[0],))[0])
    by_hand = (full.attn_lhqk[0, 1, row], full.attn_lhqk[2, [0, 1, 3], row].mean(0))
    for layers, want in (([0], by_hand[0]), ([2], by_hand[1]), (None, (by_hand[0] + by_hand[1]) / 2)):
        got = np.concatenate([v.ravel() for v in some.map(0, layers=layers).patch_map.values])
        assert np.allclose(got, want, atol=1e-6)
    masses = full.mass("image:0")[:, :, row]
    word = ask(answer="red", capture=some.request.capture).grounding()[0]
    assert np.isfinite(list(word.shares.values())).all()
    assert sum(word.shares.values()) == pytest.approx(1, abs=1e-5)
    assert np.isclose(
        some.trace.over_heads(some.trace.mass("image:0"))[:, row].mean(),
        (masses[0, 1] + masses[2, [0, 1, 3]].mean()) / 2,
        atol=1e-6,
    )
