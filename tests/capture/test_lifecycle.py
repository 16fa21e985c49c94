"""Nothing is left behind, and what can't be done right is refused."""

from __future__ import annotations

import gc
import threading
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tests.capture.decoders import decoder, layouts_of, padded_batch
from vlmattn.capture import CaptureSpec, Session, Steering, door, model_sites
from vlmattn.core.errors import BudgetExceeded, CaptureError, ConcurrentUse, SpecError, UnsupportedAttention

FULL = CaptureSpec(rows="prompt", columns="all", dtype="float32")


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def assert_untouched(model: nn.Module) -> None:
    assert not door.is_open()
    assert "get_interface" not in ALL_ATTENTION_FUNCTIONS.__dict__
    assert hooks_of(model) == 0
    assert model.config._attn_implementation == "sdpa"
    assert not model.training


@torch.no_grad()
def run(model: Any, session: Session, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with session:
        model(**inputs)
    return session.finish()[0].attn_lhqk


def prepared(
    name: str = "llama_gqa", lengths: tuple[int, ...] = (15,)
) -> tuple[Any, dict[str, torch.Tensor], Any, Any]:
    model = decoder(name)
    inputs, pads = padded_batch(lengths)
    return model, inputs, layouts_of(inputs, pads), pads


def test_nothing_is_left_after_success() -> None:
    model, inputs, layouts, _ = prepared()
    run(model, Session(model, layouts, FULL), inputs)
    assert_untouched(model)


@pytest.mark.parametrize("error", [ValueError("stop"), KeyboardInterrupt()])
def test_nothing_is_left_after_an_exception(error: BaseException) -> None:
    model, _, layouts, _ = prepared()
    with pytest.raises(type(error)), Session(model, layouts, FULL):
        raise error
    assert_untouched(model)


def test_nothing_is_left_after_an_exception_inside_the_model() -> None:
    model, inputs, layouts, _ = prepared()

    class Broken(Steering):
        def edit_rows(self, probs_bhrk: torch.Tensor, where: Any) -> torch.Tensor:
            raise RuntimeError("inside")

    session = Session(model, layouts, FULL, [Broken()])
    with pytest.raises(RuntimeError, match="inside"), session:
        model(**inputs)
    assert_untouched(model)
    run(model, Session(model, layouts, FULL), inputs)


def test_a_refused_budget_opens_nothing() -> None:
    model, _, layouts, _ = prepared()
    with (
        pytest.raises(BudgetExceeded, match=r"layers=.*reduce='mean'"),
        Session(model, layouts, CaptureSpec(budget=10)),
    ):
        pytest.fail("must not get here")
    assert_untouched(model)


def test_nested_sessions_see_the_same() -> None:
    model, inputs, layouts, _ = prepared()
    alone = run(model, Session(model, layouts, FULL), inputs)
    outer, inner = Session(model, layouts, FULL), Session(model, layouts, FULL)
    with outer, inner, torch.no_grad():
        model(**inputs)
    assert torch.equal(outer.finish()[0].attn_lhqk, alone)
    assert torch.equal(inner.finish()[0].attn_lhqk, alone)
    assert_untouched(model)


def test_two_models_at_once() -> None:
    one, inputs, layouts, _ = prepared()
    other = decoder("llama_mha", seed=4)
    first, second = Session(one, layouts, FULL), Session(other, layouts, FULL)
    with first, second, torch.no_grad():
        one(**inputs)
        other(**inputs)
    assert torch.equal(first.finish()[0].attn_lhqk, run(one, Session(one, layouts, FULL), inputs))
    assert torch.equal(second.finish()[0].attn_lhqk, run(other, Session(other, layouts, FULL), inputs))


def test_memory_does_not_grow_in_a_loop() -> None:
    model, inputs, layouts, _ = prepared()
    counts = []
    for turn in range(12):
        run(model, Session(model, layouts, FULL), inputs)
        if turn in (3, 11):
            gc.collect()
            counts.append(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()))
    assert counts[1] <= counts[0] + 2


def test_a_paused_session_sees_nothing() -> None:
    model, inputs, layouts, _ = prepared()
    session = Session(model, layouts, FULL)
    with session, torch.no_grad():
        with session.paused():
            model(**inputs)
        with pytest.raises(CaptureError, match="did not run"):
            session.finish()
        model(**inputs)
    assert len(session.finish()) == 1


@torch.no_grad()
def test_a_worker_thread_may_run_the_model() -> None:
    model, inputs, layouts, _ = prepared()
    session = Session(model, layouts, CaptureSpec(rows="answer"), max_new_tokens=4)
    with session:
        worker = threading.Thread(target=model.generate, kwargs={**inputs, "max_new_tokens": 4, "do_sample": False})
        worker.start()
        worker.join()
    assert len(session.finish()[0].positions) == 4


def test_one_model_in_two_threads_is_refused() -> None:
    model, inputs, layouts, _ = prepared()
    inside, go = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def slow(module: nn.Module, args: Any, output: Any) -> None:
        inside.set()
        go.wait(10)

    def second() -> None:
        inside.wait(10)
        try:
            with torch.no_grad():
                model(**inputs)
        except ConcurrentUse as error:
            errors.append(error)
        go.set()

    handle = model.model.layers[0].register_forward_hook(slow)
    thread = threading.Thread(target=second)
    with Session(model, layouts, FULL) as session:
        thread.start()
        with torch.no_grad():
            model(**inputs)
        thread.join()
    handle.remove()
    assert len(errors) == 1
    assert "two threads" in str(errors[0])
    assert len(session.finish()) == 1


@torch.no_grad()
def test_another_model_in_another_thread_is_left_alone() -> None:
    model, inputs, layouts, _ = prepared()
    other = decoder("llama_mha", seed=4)
    before = other(**inputs).logits
    results: list[bool] = []
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            with torch.no_grad():
                results.append(torch.equal(other(**inputs).logits, before))

    thread = threading.Thread(target=spin)
    thread.start()
    rows = [run(model, Session(model, layouts, FULL), inputs) for _ in range(5)]
    stop.set()
    thread.join()
    assert results
    assert all(results)
    assert all(torch.equal(rows[0], r) for r in rows)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("how", ["in_place", "wrapped"])
def test_a_compiled_model_keeps_the_same_rows(how: str) -> None:
    model, inputs, layouts, _ = prepared()
    plain = run(model, Session(model, layouts, FULL), inputs)
    compiled = model
    if how == "in_place":
        model.compile(backend="eager")
    else:
        compiled = torch.compile(model, backend="eager")
    compiled(**inputs)
    assert torch.allclose(run(compiled, Session(compiled, layouts, FULL), inputs), plain, atol=1e-6)
    torch._dynamo.reset()


@torch.no_grad()
def test_a_model_spread_by_accelerate_keeps_the_same_rows() -> None:
    from accelerate import cpu_offload

    model, inputs, layouts, _ = prepared()
    plain = run(model, Session(model, layouts, FULL), inputs)
    spread = cpu_offload(model, execution_device="cpu")
    assert torch.equal(run(spread, Session(spread, layouts, FULL), inputs), plain)


def test_gradients_flow_while_rows_are_kept() -> None:
    model, inputs, layouts, _ = prepared()
    with Session(model, layouts, FULL) as session:
        model(**inputs).logits.sum().backward()
    assert model.model.layers[0].self_attn.q_proj.weight.grad is not None
    assert not session.finish()[0].attn_lhqk.requires_grad


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cu_seq_lens_q": torch.tensor([0, 4])}, "packed or paged"),
        ({"cache": object()}, "packed or paged"),
        ({"indices": torch.tensor([0])}, "sparse"),
        ({"mystery": torch.ones(3)}, "unknown attention input 'mystery'"),
        ({"s_aux": torch.ones(7)}, r"attention sinks of shape \(7,\)"),
        ({"sinks": torch.ones(1, 4, 2, 1)}, r"expected one per head and query, \(1, 4, 3, 1\)"),
    ],
)
def test_calls_that_cannot_be_reproduced_are_refused(options: dict[str, Any], message: str) -> None:
    from vlmattn.capture.rows import check_call

    q = torch.ones(1, 4, 3, 8)
    with pytest.raises(UnsupportedAttention, match=message):
        check_call(door.AttentionCall("sdpa", nn.Identity(), q, q, q, None, options))


@pytest.mark.parametrize(("kernel", "told"), [("eager", True), ("sdpa", True), ("flash_mla", False)])
def test_chosen_keys_are_reproduced_where_the_mask_tells_them(kernel: str, told: bool) -> None:
    from vlmattn.capture.rows import check_call

    q, mask = torch.ones(1, 4, 3, 8), torch.ones(1, 1, 3, 3, dtype=torch.bool)
    call = door.AttentionCall(kernel, nn.Identity(), q, q, q, mask, {"block_indices": torch.tensor([0])})
    with nullcontext() if told else pytest.raises(UnsupportedAttention, match="sparse"):
        check_call(call)


@torch.no_grad()
def test_a_layer_that_runs_twice_in_a_pass_is_refused() -> None:
    model, inputs, layouts, _ = prepared()
    model.model.layers[2] = model.model.layers[1]
    session = Session(model, layouts, FULL)
    with session, pytest.raises(UnsupportedAttention, match="layer 1 runs several times in one pass"):
        model(**inputs, use_cache=False)


def test_a_paged_kernel_is_refused() -> None:
    from vlmattn.capture.rows import check_call

    q = torch.ones(1, 4, 3, 8)
    with pytest.raises(UnsupportedAttention, match="paged cache"):
        check_call(door.AttentionCall("paged|sdpa", nn.Identity(), q, q, q, None, {}))


@torch.no_grad()
def test_a_layer_that_goes_its_own_way_is_named() -> None:
    model, inputs, layouts, _ = prepared()

    def own_way(hidden_states: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, None]:
        return hidden_states, None

    model.model.layers[2].self_attn.forward = own_way
    with Session(model, layouts, FULL) as session:
        model(**inputs)
    with pytest.raises(UnsupportedAttention, match=r"layers \[2\] bypassed"):
        session.finish()


def test_a_model_without_the_dispatch_is_refused() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.Linear(2, 2)

        def get_decoder(self) -> nn.Module:
            return self

    with pytest.raises(UnsupportedAttention, match="attention dispatch"):
        model_sites(Own())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"layers": [9]}, r"no attention in layer \[9\]"),
        ({"layers": []}, "none given"),
        ({"heads": [4]}, r"heads \[4\] of layer 0 do not exist"),
        ({"rows": 99}, "row 99 is outside the prompt"),
    ],
)
def test_choices_that_do_not_exist_are_refused_before_anything_runs(spec: dict[str, Any], message: str) -> None:
    model, _, layouts, _ = prepared()
    given = {k: (v,) if k == "rows" else v for k, v in spec.items()}
    with pytest.raises(SpecError, match=message), Session(model, layouts, CaptureSpec(**given)):
        pytest.fail("must not get here")
    assert_untouched(model)


@pytest.mark.parametrize(
    "spec",
    [{"rows": "all"}, {"rows": ()}, {"dtype": "int8"}, {"reduce": "sum"}, {"convention": "both"}, {"budget": 0}],
)
def test_options_that_do_not_exist_are_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        CaptureSpec(**spec)


def test_finishing_without_running_is_refused() -> None:
    model, _, layouts, _ = prepared()
    with Session(model, layouts, FULL) as session:
        pass
    with pytest.raises(CaptureError, match="did not run"):
        session.finish()


def test_a_batch_that_was_not_encoded_is_refused() -> None:
    model, _, layouts, pads = prepared(lengths=(15, 12))
    three, _ = padded_batch((15, 12, 11))
    with pytest.raises(CaptureError, match="not a multiple"), Session(model, layouts, FULL, pad_left=pads):
        model(**three)
    assert_untouched(model)


# -- what it costs -----------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"reduce": "mean"}, {"layers": [1], "dtype": "float32"}, {"heads": [0]}])
def test_the_estimate_is_what_is_kept(options: dict[str, Any]) -> None:
    model, inputs, layouts, pads = prepared(lengths=(15, 12))
    spec = CaptureSpec(rows=("last", "answer"), **options)
    estimate = spec.estimate(model, layouts, max_new_tokens=5)
    with Session(model, layouts, spec, pad_left=pads, max_new_tokens=5) as session:
        model.generate(**inputs, max_new_tokens=5, do_sample=False)
    buffers = session.recordings[-1].rows
    for name, part in (("attn", "image columns"), ("mass", "segment masses")):
        held = buffers.get(name)
        assert held is not None
        assert held.nbytes == estimate.by_part[part]


def test_value_head_and_hidden_records_are_right() -> None:
    model, inputs, layouts, _ = prepared()
    spec = CaptureSpec(
        rows="prompt", dtype="float32", value_norms="projected", head_norms=True, hidden=True, hidden_coords=(0, 5)
    )
    values: dict[int, torch.Tensor] = {}
    outputs: dict[int, torch.Tensor] = {}
    for index, layer in enumerate(model.model.layers):
        layer.self_attn.v_proj.register_forward_hook(lambda m, a, o, i=index: values.__setitem__(i, o.detach()))
        layer.self_attn.o_proj.register_forward_pre_hook(lambda m, a, i=index: outputs.__setitem__(i, a[0].detach()))
    with Session(model, layouts, spec) as session, torch.no_grad():
        hidden = model(**inputs, output_hidden_states=True).hidden_states
    kept = session.finish()[0]
    assert kept.value_norm_lhk is not None
    assert kept.head_norm_lhq is not None
    assert kept.hidden is not None
    for index, layer in enumerate(model.model.layers):
        v = values[index][0].view(15, 2, 16).repeat_interleave(2, dim=1)[2:10]
        w = layer.self_attn.o_proj.weight.detach().view(64, 4, 16)
        want = torch.einsum("khd,ohd->kho", v, w).norm(dim=-1).T
        assert torch.allclose(kept.value_norm_lhk[index], want, atol=1e-4)
        assert torch.allclose(kept.head_norm_lhq[index], outputs[index][0].view(15, 4, 16).norm(dim=-1).T, atol=1e-5)
        x = hidden[index][0]
        assert torch.allclose(kept.hidden.rms_ln[index], x.pow(2).mean(-1).sqrt(), atol=1e-5)
        assert torch.allclose(kept.hidden.peak_ln[index], x.abs().amax(-1), atol=1e-6)
        assert torch.equal(kept.hidden.coord_lnc[index], x[:, [0, 5]])
    assert np.array_equal(kept.hidden.peak_coord_ln[0], hidden[0][0].abs().argmax(-1))
