"""Runs that cannot be followed are refused; runs that can are kept apart."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tests.capture.decoders import decoder, eager_twin, layouts_of, padded_batch
from vlmattn.capture import CaptureSpec, Session, Steering, model_sites
from vlmattn.core.errors import CaptureError, ConcurrentUse, UnsupportedAttention
from vlmattn.core.layout import extend_layout

ANSWER = CaptureSpec(rows="answer", columns="all", dtype="float32")


@pytest.mark.parametrize("settings", [{"use_cache": False}, {"prompt_lookup_num_tokens": 2}])
def test_generation_that_runs_several_tokens_per_pass_is_refused(settings: dict[str, Any]) -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((23,))
    inputs["input_ids"][0, 12:] = inputs["input_ids"][0, 1:12]
    with pytest.raises(CaptureError, match="one token per pass"), Session(model, layouts_of(inputs, pads), ANSWER):
        model.generate(**inputs, max_new_tokens=8, do_sample=False, **settings)


@torch.no_grad()
def test_two_runs_that_take_turns_are_refused() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((12,))
    token = torch.tensor([[5]])
    with Session(model, layouts_of(inputs, pads), ANSWER) as session:
        first = model(**inputs).past_key_values
        with session.paused():
            aside = model(**inputs).past_key_values
        model(input_ids=token, past_key_values=first)
        second = model(**inputs).past_key_values
        model(input_ids=token, past_key_values=second)
        with pytest.raises(CaptureError, match="take turns"):
            model(input_ids=token, past_key_values=first)
    assert aside is not first
    assert session.finish()[0].positions.tolist() == [11, 12]


@torch.no_grad()
def test_a_run_that_changes_threads_is_refused() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((12,))
    errors: list[BaseException] = []

    def go_on(cache: Any) -> None:
        try:
            model(input_ids=torch.tensor([[5]]), past_key_values=cache)
        except ConcurrentUse as error:
            errors.append(error)

    with Session(model, layouts_of(inputs, pads), ANSWER):
        cache = model(**inputs).past_key_values
        worker = threading.Thread(target=go_on, args=(cache,))
        worker.start()
        worker.join()
    assert len(errors) == 1


class OwnAttention(nn.Module):
    """Attention written by hand, as remote code has it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.o_proj
        self.layer_idx = inner.layer_idx

    def forward(self, hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
        same = hidden_states[:, None]
        return self.inner(nn.functional.scaled_dot_product_attention(same, same, same)[:, 0]), None


def test_all_layers_of_a_model_with_hidden_attention_are_refused() -> None:
    model = decoder("llama_gqa")
    layer = model.model.layers[1]
    layer.self_attn = OwnAttention(layer.self_attn)
    inputs, pads = padded_batch((12,))
    layouts = layouts_of(inputs, pads)
    assert model_sites(model).bypassing == ("layers.1.self_attn",)

    class Half(Steering):
        def edit_rows(self, probs_bhrk: torch.Tensor, where: Any) -> torch.Tensor:
            return probs_bhrk * 0.5

    for spec, steering in ((ANSWER, ()), (None, (Half(),))):
        with pytest.raises(UnsupportedAttention, match=r"layers\.1\.self_attn compute attention past"):
            Session(model, layouts, spec, steering)
    spec = CaptureSpec(rows="last", layers=[0, 2, 3])
    with Session(model, layouts, spec) as session, torch.no_grad():
        model(**inputs)
    assert session.finish()[0].layers == (0, 2, 3)


@pytest.mark.parametrize(("name", "layers"), [("lfm2_hybrid", (1, 3)), ("qwen3_next_hybrid", (3,))])
def test_layers_without_attention_are_no_matter(name: str, layers: tuple[int, ...]) -> None:
    sites = model_sites(decoder(name))
    assert sites.bypassing == ()
    assert sites.layers == layers


def test_another_tools_patch_of_the_dispatch_is_put_back() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((12,))
    original = ALL_ATTENTION_FUNCTIONS.get_interface

    def theirs(name: str, default: Any) -> Any:
        return original(name, default)

    ALL_ATTENTION_FUNCTIONS.get_interface = theirs
    try:
        with Session(model, layouts_of(inputs, pads), ANSWER), torch.no_grad():
            model(**inputs)
        assert ALL_ATTENTION_FUNCTIONS.__dict__["get_interface"] is theirs
    finally:
        del ALL_ATTENTION_FUNCTIONS.get_interface


def test_models_are_not_kept_alive() -> None:
    for model in (decoder("llama_gqa"), decoder("llama_gqa").model):
        model_sites(model)
        ghost = weakref.ref(model)
        del model
        gc.collect()
    assert ghost() is None


@torch.no_grad()
def test_a_compiled_model_may_be_called_by_its_wrapper_while_the_session_has_the_plain_one() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((12,))
    layouts = layouts_of(inputs, pads)
    compiled = torch.compile(model, backend="eager")
    compiled(**inputs)
    with Session(model, layouts, ANSWER) as session:
        compiled(**inputs)
    with Session(model, layouts, ANSWER) as plain:
        model(**inputs)
    assert torch.allclose(session.finish()[0].attn_lhqk, plain.finish()[0].attn_lhqk, atol=1e-6)
    torch._dynamo.reset()


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*deprecated.*")
def test_int8_linears_change_nothing_in_the_engine() -> None:
    model = decoder("llama_gqa", attention="eager")
    small = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    inputs, pads = padded_batch((12,))
    spec = CaptureSpec(rows="prompt", columns="all", dtype="float32", value_norms="value")
    with Session(small, layouts_of(inputs, pads), spec) as session:
        reference = small(**inputs, output_attentions=True).attentions
    kept = session.finish()[0]
    assert torch.allclose(kept.attn_lhqk, torch.stack([a[0] for a in reference]), atol=1e-6)
    spec = CaptureSpec(rows="prompt", columns="all", dtype="float32", value_norms="projected")
    norms = []
    for again in (False, True):
        for layer in small.model.layers if again else ():  # the same weights, made float
            packed = layer.self_attn.o_proj
            layer.self_attn.o_proj = nn.Linear(packed.in_features, packed.out_features, bias=False)
            layer.self_attn.o_proj.weight.data = packed.weight().dequantize()
        with Session(small, layouts_of(inputs, pads), spec) as session:
            small(**inputs)
        norms.append(session.finish()[0].value_norm_lhk)
    assert torch.allclose(*norms, rtol=0.02)


@torch.no_grad()
def test_given_answers_of_different_length_have_their_own_statistics() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((20, 15))
    starts, layouts = (14, 12), []
    for ids, pad, start in zip(inputs["input_ids"], pads, starts, strict=True):
        prompt = layouts_of({"input_ids": ids[None, : pad + start]}, [pad])[0]
        rest = ids[pad + start :].numpy()
        layouts.append(extend_layout(prompt, rest, "", np.full((len(rest), 2), -1, dtype=np.int32)))
    with Session(model, layouts, ANSWER, pad_left=pads) as session:
        logits = model(**inputs).logits.log_softmax(-1)
    full = eager_twin(model)(**inputs, output_attentions=True).attentions
    for item, kept in enumerate(session.finish()):
        own = range(starts[item] - 1, len(layouts[item]) - 1)
        assert kept.positions.tolist() == list(own)
        want = torch.stack([a[item, :, pads[item] :, pads[item] :] for a in full])
        assert torch.allclose(kept.attn_lhqk, want[:, :, kept.positions][..., kept.columns], atol=1e-6)
        assert kept.candidates is not None
        chosen = [float(logits[item, pads[item] + p, inputs["input_ids"][item, pads[item] + p + 1]]) for p in own]
        assert np.allclose(kept.candidates.chosen_logp_t, chosen, atol=1e-5)
