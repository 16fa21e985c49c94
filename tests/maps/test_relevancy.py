"""Relevancy and gradient-weighted attention against eager attention with every matrix in the graph of gradients."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch

from tests.capture.decoders import EAGER_ONLY, SHARING, decoder, eager_twin
from tests.maps.eager_pass import EagerPass, close, eager_pass
from vlmattn.capture import door
from vlmattn.capture.whole import WholePass
from vlmattn.core.errors import CaptureError, MapError, SpecError
from vlmattn.maps.relevancy import gradient_rows, relevancy, weighted_attention

DECODERS = (
    "llama_gqa", "llama_mha", "mistral_window", "gemma2_softcap", "gemma3_window", "gpt_oss_sinks", "deepseek_mla",
    "cohere2_window", "llama4_chunked", "inkling2_hybrid_sinks", *SHARING,
)  # fmt: skip
TOKENS, ROWS, IDS = 29, [21, 27], [11, 40]


def inputs(count: int = TOKENS) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 97, (1, count), generator=torch.Generator().manual_seed(3))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def passed(model: Any, rows: list[int] = ROWS, ids: list[int] | None = IDS, of: Any = "logit") -> WholePass:
    return WholePass(model).run(inputs(), rows, ids, of).differentiate()


def plain(model: Any, rows: list[int] = ROWS, ids: list[int] | None = IDS, of: str = "logit") -> EagerPass:
    return eager_pass(eager_twin(model), inputs(), rows, ids, of)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("of", ["logit", "log_probability"])
def test_relevancy_is_that_of_whole_matrices(name: str, of: Any) -> None:
    model = decoder(name)
    found, wanted = passed(model, of=of), plain(model, of=of)
    close(relevancy(found, ROWS), wanted.relevancy()[ROWS])
    if name != "inkling2_hybrid_sinks":
        close(relevancy(found, ROWS, heads=[2, 0]), wanted.relevancy([2, 0])[ROWS])


@pytest.mark.parametrize("name", DECODERS)
def test_every_matrix_and_its_gradient_are_those_of_eager_attention(name: str) -> None:
    model = decoder(name)
    found, wanted = passed(model), plain(model)
    assert wanted.slope_lhqk is not None
    assert list(found.layers) == list(range(len(wanted.attention_lhqk)))
    for layer, held in found.layers.items():
        close(held.attention(slice(0, TOKENS)).numpy(), wanted.attention_lhqk[layer])
        # Eager attention has a gradient for keys that are masked, too; they weigh nothing.
        seen = wanted.attention_lhqk[layer] > 0
        close(held.attention_slope(slice(0, TOKENS)).numpy() * seen, wanted.slope_lhqk[layer] * seen)
    close(gradient_rows(found, ROWS, layers=[1, 3]), (wanted.weighted(1) + wanted.weighted(3))[ROWS] / 2)


@pytest.mark.parametrize("fault", ["slope", "key", "value"])
def test_a_fault_in_what_is_held_would_be_seen(fault: str) -> None:
    model = decoder("gemma3_window")
    found, wanted = passed(model), plain(model)
    held = found.layers[2]
    if fault == "slope":
        assert held.slope is not None
        held.slope = held.slope.roll(1, 1)
    else:
        setattr(held.call, fault, getattr(held.call, fault).flip(1))
    with pytest.raises(AssertionError):
        close(relevancy(found, ROWS), wanted.relevancy()[ROWS])


def test_chunks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = passed(decoder("gpt_oss_sinks"))
    whole = relevancy(found, ROWS)
    sizes = []

    def counted(held: Any, rows: slice, *rest: Any) -> torch.Tensor:
        sizes.append(rows.stop - rows.start)
        return weighted_attention(held, rows, *rest)

    monkeypatch.setattr("vlmattn.capture.whole.rows_per_chunk", lambda call: 4)
    monkeypatch.setattr(sys.modules[relevancy.__module__], "weighted_attention", counted)
    np.testing.assert_allclose(relevancy(found, ROWS), whole, rtol=1e-5, atol=1e-9)
    assert max(sizes) == 4


def test_with_one_layer_it_is_gradient_times_attention() -> None:
    model = decoder("llama_gqa")
    found = WholePass(model, [3]).run(inputs(), ROWS, IDS, "logit").differentiate()
    np.testing.assert_allclose(relevancy(found, ROWS), gradient_rows(found, ROWS, layers=[3]), rtol=1e-6, atol=1e-9)
    close(relevancy(found, ROWS), plain(model).weighted(3)[ROWS])


def test_normalised_lines_are_shares() -> None:
    model = decoder("gemma2_softcap")
    found, wanted = passed(model), plain(model).relevancy()[ROWS]
    shares = relevancy(found, ROWS, normalised=True)
    close(shares, wanted / wanted.sum(-1, keepdims=True))
    for held in found.layers.values():
        held.slope = None if held.slope is None else torch.zeros_like(held.slope)
    assert (relevancy(found, ROWS, normalised=True) == 0).all()


def test_a_score_asked_for_without_ids_is_that_of_the_likeliest_token() -> None:
    model = decoder("llama_mha")
    close(relevancy(passed(model, ids=None), ROWS), plain(model, ids=None).relevancy()[ROWS])


def test_several_words_share_one_forward_pass() -> None:
    model = decoder("mistral_window")
    runs = []
    counting = model.register_forward_hook(lambda *_: runs.append(1))
    shared = WholePass(model).run(inputs(), ROWS, IDS, "logit")
    for n, row in enumerate(ROWS):
        shared.differentiate([float(n == k) for k in range(len(ROWS))], again=row != ROWS[-1])
        alone = plain(model, [row], [IDS[n]])
        close(relevancy(shared, [row]), alone.relevancy()[[row]])
    counting.remove()
    assert len(runs) == 1


@pytest.mark.parametrize("frozen", [True, False])
def test_the_model_is_left_as_it_was(frozen: bool) -> None:
    model = decoder("llama_gqa").requires_grad_(not frozen)
    modes = []
    watching = model.model.layers[1].register_forward_hook(lambda module, *_: modes.append(module.training))
    found = relevancy(passed(model), ROWS)
    watching.remove()
    assert found.max() > 0
    assert modes == [False]
    assert all(weight.requires_grad != frozen and weight.grad is None for weight in model.parameters())
    assert torch.is_grad_enabled()
    assert not door.is_open()


def test_gradient_checkpointing_changes_nothing() -> None:
    model = decoder("llama_gqa")
    before = relevancy(passed(model), ROWS)
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    np.testing.assert_array_equal(relevancy(passed(model), ROWS), before)
    assert not model.training


def test_it_works_where_gradients_are_off() -> None:
    model = decoder("llama_gqa")
    before = relevancy(passed(model), ROWS)
    with torch.no_grad():
        np.testing.assert_array_equal(relevancy(passed(model), ROWS), before)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        np.testing.assert_array_equal(relevancy(passed(model), ROWS), before)


@pytest.mark.parametrize("place", ["cpu", "disk"])
def test_weights_off_loaded_by_accelerate_give_the_same(place: str, tmp_path: Any) -> None:
    import accelerate

    model = decoder("llama_gqa")
    before = passed(model)
    spread = decoder("llama_gqa")
    if place == "cpu":
        accelerate.cpu_offload(spread, execution_device="cpu")
    else:
        accelerate.disk_offload(spread, tmp_path, execution_device="cpu")
    found = passed(spread)
    assert found.scores is not None
    assert before.scores is not None
    assert spread.device.type == "meta"
    np.testing.assert_array_equal(found.scores.detach().numpy(), before.scores.detach().numpy())
    close(relevancy(found, ROWS), relevancy(before, ROWS))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near(dtype: torch.dtype) -> None:
    full, half = decoder("llama_gqa"), decoder("llama_gqa").to(dtype)
    close(relevancy(passed(half), ROWS), relevancy(passed(full), ROWS), 0.03)


class _NoWayBack(torch.autograd.Function):
    """A layer as of packed weights: forwards only."""

    @staticmethod
    def forward(ctx: Any, given: torch.Tensor) -> torch.Tensor:
        return given * 1.0

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        raise NotImplementedError("packed weights have no gradient")


def test_weights_without_gradient_are_refused() -> None:
    model = decoder("llama_gqa")
    hook = model.model.layers[2].register_forward_hook(lambda m, a, out: _NoWayBack.apply(out))
    with pytest.raises(MapError, match=r"no gradient .*packed weights"):
        passed(model)
    hook.remove()
    cut = model.lm_head.register_forward_hook(lambda m, a, out: out.detach())
    with pytest.raises(MapError, match="gradients do not reach"):
        passed(model)
    cut.remove()
    cut = model.model.layers[3].register_forward_pre_hook(lambda m, a: (a[0].detach(), *a[1:]))
    with pytest.raises(MapError, match="does not depend"):
        passed(model)
    cut.remove()
    assert not door.is_open()


def test_no_memory_left_is_not_told_as_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("full")

    started = WholePass(decoder("llama_gqa")).run(inputs(), ROWS, IDS, "logit")
    monkeypatch.setattr(torch.autograd, "grad", full)
    with pytest.raises(torch.OutOfMemoryError):
        started.differentiate()


def test_gradients_that_are_no_numbers_are_refused() -> None:
    model = decoder("llama_gqa")

    def spoil(module: Any, given: Any, out: torch.Tensor) -> None:
        out.register_hook(lambda slope: slope * float("nan"))

    hook = model.model.layers[2].register_forward_hook(spoil)
    with pytest.raises(MapError, match=r"layer 0 is NaN or infinite"):
        passed(model)
    hook.remove()


def test_what_it_refuses() -> None:
    model = decoder("llama_gqa")
    with pytest.raises(SpecError, match=r"no attention in layer \[9\]"):
        WholePass(model, [9])
    with pytest.raises(CaptureError, match="no scores"):
        WholePass(model).run(inputs()).differentiate()
    with pytest.raises(CaptureError, match="no score was differentiated"):
        relevancy(WholePass(model).run(inputs(), ROWS, IDS, "logit"), ROWS)
    found = passed(model)
    for rows in ([], [29], [-1]):
        with pytest.raises(SpecError, match="rows"):
            relevancy(found, rows)
    for heads in ([], [4]):
        with pytest.raises(SpecError, match="heads"):
            relevancy(found, ROWS, heads=heads)
        with pytest.raises(SpecError, match="heads"):
            gradient_rows(found, ROWS, layers=[0], heads=heads)
    with pytest.raises(SpecError, match="layers"):
        gradient_rows(found, ROWS, layers=[])
    two = {name: tensor.repeat(2, 1) for name, tensor in inputs().items()}
    with pytest.raises(SpecError, match="one sequence"):
        WholePass(model).run(two)
    assert not door.is_open()


def test_kernels_agree() -> None:
    """The model's own kernel runs; eager and scaled-dot-product attention give the same."""
    assert not {"llama_gqa", "cohere2_window"} & EAGER_ONLY
    for name in ("llama_gqa", "cohere2_window"):
        fast, slow = decoder(name), decoder(name, attention="eager")
        assert fast.config._attn_implementation == "sdpa"
        close(relevancy(passed(fast), ROWS), relevancy(passed(slow), ROWS))
