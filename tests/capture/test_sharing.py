"""Several threads, sessions, runs and branches at one model: kept apart, or refused."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import torch._dynamo
from torch._dynamo import eval_frame
from transformers import LogitsProcessor
from transformers.generation.logits_process import LogitsProcessorList

from tests.capture.decoders import decoder, eager_twin, layouts_of, padded_batch
from vlmattn.capture import CaptureSpec, Session, Steering, door
from vlmattn.core.errors import CaptureError, ConcurrentUse

pytestmark = pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated.*")
ANSWER = CaptureSpec(rows="answer", columns="all", dtype="float32")
PROMPT = CaptureSpec(rows="prompt", columns="all", dtype="float32")
NEW = 5


class Half(Steering):
    rows = "all"

    def edit_rows(self, probs_bhrk: torch.Tensor, where: Any) -> torch.Tensor:
        return probs_bhrk * 0.5


def in_a_thread(action: Any) -> list[BaseException]:
    """Errors of ``action`` in a thread of its own that has ended."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with torch.no_grad():
                action()
        except CaptureError as error:
            errors.append(error)

    worker = threading.Thread(target=run)
    worker.start()
    worker.join()
    return errors


# -- threads -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_run_of_another_thread_does_not_replace_the_record() -> None:
    model = decoder("llama_gqa")
    (inputs, pads), (other, _) = padded_batch((12,)), padded_batch((12,), seed=9)
    layouts = layouts_of(inputs, pads)
    with Session(model, layouts, PROMPT) as session:
        model(**inputs)
        errors = in_a_thread(lambda: model(**other))
    with Session(model, layouts, PROMPT) as alone:
        model(**inputs)
    assert [type(error) for error in errors] == [ConcurrentUse]
    assert torch.equal(session.finish()[0].attn_lhqk, alone.finish()[0].attn_lhqk)


@torch.no_grad()
def test_one_worker_after_the_other_may_run_the_model() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((12,))
    with Session(model, layouts_of(inputs, pads), ANSWER) as session:
        for _ in range(2):
            assert not in_a_thread(lambda: model.generate(**inputs, max_new_tokens=NEW, do_sample=False))
    assert len(session.finish()[0].positions) == NEW


@torch.no_grad()
def test_a_pass_that_failed_is_not_taken_for_a_layer_that_bypasses_the_engine() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((12,))

    def fail(*_: Any) -> None:
        raise RuntimeError("stop")

    with Session(model, layouts_of(inputs, pads), PROMPT) as session:
        handle = model.model.layers[2].register_forward_hook(fail)
        with pytest.raises(RuntimeError, match="stop"):
            model(**inputs)
        handle.remove()
        with pytest.raises(CaptureError, match="did not come to its end"):
            session.finish()
        model(**inputs)
    assert len(session.finish()) == 1


# -- sessions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outer", "inner"),
    [((None, [Half()]), (PROMPT, [])), ((PROMPT, []), (None, [Half()])), ((None, [Half()]), (None, [Half()]))],
)
def test_a_session_beside_one_that_steers_is_refused(outer: Any, inner: Any) -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((12,))
    layouts = layouts_of(inputs, pads)
    with Session(model, layouts, *outer):
        with pytest.raises(CaptureError, match="into one session"), Session(model, layouts, *inner):
            pytest.fail("must not get here")
        assert door.is_open()
    assert not door.is_open()


@torch.no_grad()
def test_a_paused_session_leaves_room_for_one_that_steers() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((12,))
    layouts = layouts_of(inputs, pads)
    with Session(model, layouts, PROMPT) as outer:
        model(**inputs)
        with outer.paused(), Session(model, layouts, PROMPT, [Half()]) as inner:
            model(**inputs)
    for session, total in ((outer, 1.0), (inner, 0.5)):
        assert torch.allclose(session.finish()[0].mass_lhqs.sum(-1), torch.tensor(total), atol=1e-5)


def test_compiled_code_comes_back_whatever_closes_first() -> None:
    inputs, pads = padded_batch((12,))
    layouts = layouts_of(inputs, pads)
    first, second = (Session(decoder("llama_gqa", seed=seed), layouts, PROMPT) for seed in (1, 2))
    assert eval_frame._stance.stance == "default"
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert eval_frame._stance.stance == "force_eager"
    second.__exit__(None, None, None)
    assert eval_frame._stance.stance == "default"


@torch.no_grad()
def test_only_the_last_run_is_held() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((12,))
    with Session(model, layouts_of(inputs, pads), PROMPT) as session:
        for _ in range(5):
            model(**inputs)
    assert len(session.recordings) == 1


# -- branches that logits processors run -------------------------------------------------------------------------------


class Contrast(LogitsProcessor):
    """Subtracts what the model says to the last tokens alone."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores - 0.5 * self.model(input_ids=input_ids[:, -3:]).logits[:, -1]


@torch.no_grad()
@pytest.mark.parametrize("steering", [[], [Half()]])
@pytest.mark.parametrize("branch", ["processor", "guidance"])
def test_branches_inside_logits_processors_are_left_alone(branch: str, steering: list[Steering]) -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((12,))
    settings: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False}
    settings |= {"logits_processor": [Contrast(model)]} if branch == "processor" else {"guidance_scale": 1.5}
    with Session(model, layouts_of(inputs, pads), ANSWER, steering, max_new_tokens=NEW) as session:
        output = model.generate(**inputs, **settings)
    kept = session.finish(sequences=output)[0]
    assert len(kept.positions) == NEW
    assert kept.candidates is not None
    assert len(kept.candidates.entropy_t) == NEW
    if steering:
        assert torch.allclose(kept.mass_lhqs.sum(-1), torch.tensor(0.5), atol=1e-5)
    else:
        full = torch.stack([a[0] for a in eager_twin(model)(input_ids=output, output_attentions=True).attentions])
        assert torch.allclose(kept.attn_lhqk, full[:, :, kept.positions][..., kept.columns], atol=1e-6)
        assert torch.equal(output, model.generate(**inputs, **settings))


@torch.no_grad()
def test_a_branch_may_be_captured_by_a_session_of_its_own() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((12,))
    seen: list[float] = []

    class Look(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            with Session(model, layouts_of(inputs, pads), PROMPT, [Half()]) as inner:
                model(**inputs)
            seen.append(float(inner.finish()[0].mass_lhqs.sum(-1).max()))
            return scores

    with Session(model, layouts_of(inputs, pads), ANSWER) as session:
        model.generate(**inputs, max_new_tokens=2, do_sample=False, logits_processor=[Look()])
    assert seen == pytest.approx([0.5, 0.5], abs=1e-5)
    assert torch.allclose(session.finish()[0].mass_lhqs.sum(-1), torch.tensor(1.0), atol=1e-5)


def test_the_list_of_processors_is_put_back() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((12,))
    before = LogitsProcessorList.__call__
    with Session(model, layouts_of(inputs, pads), ANSWER):
        assert LogitsProcessorList.__call__ is not before
    assert LogitsProcessorList.__call__ is before


# -- gradients ---------------------------------------------------------------------------------------------------------


def checkpointed() -> Any:
    model = decoder("llama_gqa")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def test_layers_computed_again_for_gradients_are_not_seen_twice() -> None:
    model = checkpointed()
    inputs, pads = padded_batch((12,))
    spec = CaptureSpec(rows="prompt", columns="all", dtype="float32", hidden=True)
    with Session(model, layouts_of(inputs, pads), spec) as session:
        model(**inputs, use_cache=False).logits.sum().backward()
    kept = session.finish()[0]
    assert kept.attn_lhqk.shape == (4, 4, 12, 12)
    assert kept.hidden is not None
    assert kept.hidden.rms_ln.shape == (4, 12)


def test_steered_layers_computed_again_for_gradients_are_refused() -> None:
    model = checkpointed()
    inputs, pads = padded_batch((12,))
    with Session(model, layouts_of(inputs, pads), None, [Half()]):
        loss = model(**inputs, use_cache=False).logits.sum()
        with pytest.raises(CaptureError, match="turn gradient checkpointing off"):
            loss.backward()


# -- beams -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("convention", [None, "query"])
def test_beams_of_every_length_have_rows_of_their_own_hypothesis(convention: Any) -> None:
    model, spec = decoder("llama_gqa"), CaptureSpec(
        rows="answer", columns="all", dtype="float32", convention=convention
    )  # fmt: skip
    twin, checked, ended = eager_twin(model), 0, set()
    for seed in range(4):
        inputs, pads = padded_batch((15,), seed=seed)
        free = model.generate(**inputs, max_new_tokens=6, num_beams=4, do_sample=False)
        settings: dict[str, Any] = {"max_new_tokens": 8, "num_beams": 4, "num_return_sequences": 4, "do_sample": False}
        settings |= {"eos_token_id": int(free[0, 17]), "pad_token_id": 0, "length_penalty": 0.0}
        with Session(model, layouts_of(inputs, pads), spec, beams=4) as session:
            output = model.generate(**inputs, **settings, return_dict_in_generate=True)
        for line, kept in enumerate(session.finish(output.beam_indices, sequences=output.sequences)):
            written = int((output.beam_indices[line] >= 0).sum())
            attentions = twin(input_ids=output.sequences[line : line + 1, : 15 + written], output_attentions=True)
            full = torch.stack([a[0] for a in attentions.attentions])
            first = 15 if convention else 14
            assert kept.positions.tolist() == list(range(first, 14 + written))
            assert torch.allclose(kept.attn_lhqk, full[:, :, kept.positions][..., kept.columns], atol=1e-5)
            checked, ended = checked + len(kept.positions), ended | {written}
    assert checked > 40
    assert len(ended) > 1, "all beams had one length, so this test would not notice a wrong end"


@torch.no_grad()
@pytest.mark.parametrize("returned", [1, 4])
@pytest.mark.parametrize("told", [False, True])
def test_beams_without_their_indices_are_refused(returned: int, told: bool) -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((23,))
    settings: dict[str, Any] = {"num_beams": 4, "num_return_sequences": returned, "do_sample": False}
    with Session(model, layouts_of(inputs, pads), ANSWER) as session:
        output = model.generate(**inputs, max_new_tokens=NEW, **settings)
    with pytest.raises(CaptureError, match="pass beam_indices"):
        session.finish(sequences=output if told else None)


@torch.no_grad()
def test_samples_need_no_indices() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((23,))
    with Session(model, layouts_of(inputs, pads), ANSWER) as session:
        model.generate(**inputs, max_new_tokens=NEW, do_sample=True, num_return_sequences=4)
    assert len(session.finish()) == 4
    with pytest.raises(CaptureError, match=r"lengths must have one entry per output sequence, 4; got 1"):
        session.finish(lengths=[2])
