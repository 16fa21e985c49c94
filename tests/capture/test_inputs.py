"""Every way an input may come: cached, in chunks, embedded, padded on either side; and those the layouts don't fit."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from tests.capture.decoders import decoder, eager_twin, layouts_of, padded_batch
from tests.traces import layout
from vlmattn.capture import CaptureSpec, KeptRows, Session
from vlmattn.core.errors import CaptureError
from vlmattn.core.layout import extend_layout, plain_layout

pytestmark = [
    pytest.mark.filterwarnings("ignore:The explicitly set RoPE scaling factor.*"),
    pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated.*"),  # older versions know no other name
]
EVERYTHING: dict[str, Any] = {"columns": "all", "dtype": "float32"}
NEW = 4


@torch.no_grad()
def reference(model: Any, sequence: torch.Tensor, pad: int = 0) -> torch.Tensor:
    """(L, H, N, N) eager attention over one finished sequence, padding left out."""
    mask = torch.ones_like(sequence)
    mask[:, :pad] = 0
    full = eager_twin(model)(input_ids=sequence, attention_mask=mask, output_attentions=True).attentions
    return torch.stack([a[0][:, pad:, pad:] for a in full])


def error_of(kept: KeptRows, full: torch.Tensor) -> float:
    return float((full[:, :, kept.positions][..., kept.columns] - kept.attn_lhqk).abs().max())


# -- going on from a cache ---------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama_gqa", "mistral_window", "gemma3_window", "gpt_oss_sinks"])
def test_rows_behind_a_cached_prefix_equal_eager(name: str) -> None:
    model = decoder(name)
    inputs, pads = padded_batch((23,))
    cache = model(input_ids=inputs["input_ids"][:, :14]).past_key_values
    spec = CaptureSpec(rows=(*range(14, 23), "answer"), **EVERYTHING)
    with Session(model, layouts_of(inputs, pads), spec, max_new_tokens=NEW) as session:
        output = model.generate(**inputs, past_key_values=cache, max_new_tokens=NEW, do_sample=False)
    kept = session.finish(sequences=output)[0]
    assert kept.positions.tolist() == list(range(14, 22 + NEW))
    assert error_of(kept, reference(model, output)) < 1e-6
    assert kept.candidates is not None
    assert not np.isnan(kept.candidates.chosen_logp_t).any()


@torch.no_grad()
def test_value_norms_of_cached_picture_tokens_are_kept() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((23,))
    spec = CaptureSpec(rows="answer", value_norms="value")
    norms = []
    for prefix in (0, 14):
        cache = model(input_ids=inputs["input_ids"][:, :prefix]).past_key_values if prefix else None
        with Session(model, layouts_of(inputs, pads), spec, max_new_tokens=NEW) as session:
            model.generate(**inputs, past_key_values=cache, max_new_tokens=NEW, do_sample=False)
        norms.append(session.finish()[0].value_norm_lhk)
    assert torch.allclose(norms[0], norms[1], atol=1e-5)
    assert float(norms[1].min()) > 0


@torch.no_grad()
@pytest.mark.parametrize(
    ("spec", "name", "message"),
    [
        ({"rows": "prompt"}, "llama_gqa", r"rows at positions \[0, 1, 2, 3, 4, 5, 6, 7\] are wanted, but the first 14"),
        ({"rows": ("question", "answer")}, "llama_gqa", r"rows at positions \[1, 10, 11, 12, 13\]"),
        ({"rows": "answer", "hidden": True}, "llama_gqa", "hidden states of the prompt are wanted"),
        ({"rows": "answer", "value_norms": "value"}, "mistral_window", "layer 0 has dropped their values"),
    ],
)
def test_what_a_cache_has_swallowed_is_refused(spec: dict[str, Any], name: str, message: str) -> None:
    model = decoder(name)
    inputs, pads = padded_batch((23,))
    cache = model(input_ids=inputs["input_ids"][:, :14]).past_key_values
    with pytest.raises(CaptureError, match=message), Session(model, layouts_of(inputs, pads), CaptureSpec(**spec)):
        model.generate(**inputs, past_key_values=cache, max_new_tokens=NEW, do_sample=False)


@torch.no_grad()
def test_a_second_run_from_a_cache_is_a_run_of_its_own() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((23,))
    prefix = model(input_ids=inputs["input_ids"][:, :14]).past_key_values
    spec = CaptureSpec(rows="answer", **EVERYTHING)
    with Session(model, layouts_of(inputs, pads), spec, max_new_tokens=NEW) as session:
        for _ in range(2):
            output = model.generate(
                **inputs, past_key_values=copy.deepcopy(prefix), max_new_tokens=NEW, do_sample=False
            )
    kept = session.finish(sequences=output)[0]
    assert kept.positions.tolist() == list(range(22, 22 + NEW))
    assert error_of(kept, reference(model, output)) < 1e-6


# -- chunks, embeddings, padding, words --------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"cache_implementation": "static"}])
@pytest.mark.parametrize("name", ["mistral_window", "gemma3_window", "gpt_oss_sinks", "cohere2_window"])
def test_prompts_in_chunks_on_windowed_layers_equal_eager(name: str, settings: dict[str, Any]) -> None:
    model = decoder(name)
    inputs, pads = padded_batch()
    spec = CaptureSpec(rows=("prompt", "answer"), **EVERYTHING)
    with Session(model, layouts_of(inputs, pads), spec, pad_left=pads, max_new_tokens=NEW) as session:
        output = model.generate(**inputs, max_new_tokens=NEW, do_sample=False, prefill_chunk_size=7, **settings)
    for line, kept in enumerate(session.finish(sequences=output)):
        assert len(kept.positions) == 22 - pads[line] + NEW
        assert error_of(kept, reference(model, output[line : line + 1], pads[line])) < 1e-6


@torch.no_grad()
def test_embedded_prompts_have_the_same_rows_and_statistics() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch()
    spec = CaptureSpec(rows=("question", "answer"), **EVERYTHING)
    states = model.get_input_embeddings()(inputs["input_ids"])
    with Session(model, layouts_of(inputs, pads), spec, pad_left=pads, max_new_tokens=NEW) as session:
        written = model.generate(
            inputs_embeds=states, attention_mask=inputs["attention_mask"], max_new_tokens=NEW, do_sample=False
        )
    for line, kept in enumerate(session.finish(sequences=written)):
        whole = torch.cat([inputs["input_ids"][line], written[line, -NEW:]])[None]
        assert error_of(kept, reference(model, whole, pads[line])) < 1e-6
        assert kept.candidates is not None
        assert not np.isnan(kept.candidates.chosen_logp_t).any()


def right_padded() -> tuple[dict[str, torch.Tensor], list[Any]]:
    inputs, pads = padded_batch()
    layouts = layouts_of(inputs, pads)
    return {
        name: torch.stack([line.roll(-p) for line, p in zip(t, pads, strict=True)]) for name, t in inputs.items()
    }, layouts


@torch.no_grad()
def test_padding_on_the_right_needs_no_word() -> None:
    model = decoder("llama_gqa")
    inputs, layouts = right_padded()
    with Session(model, layouts, CaptureSpec(rows="prompt", **EVERYTHING)) as session:
        model(**inputs)
    for line, kept in enumerate(session.finish()):
        alone = inputs["input_ids"][line : line + 1, : len(layouts[line])]
        assert error_of(kept, reference(model, alone)) < 1e-6


@torch.no_grad()
def test_generating_behind_padding_on_the_right_is_refused() -> None:
    model = decoder("llama_gqa")
    inputs, layouts = right_padded()
    with pytest.raises(CaptureError, match="padded on the left"), Session(model, layouts, CaptureSpec(rows="answer")):
        model.generate(**inputs, max_new_tokens=NEW, do_sample=False)


@torch.no_grad()
def test_rows_of_a_word_come_from_the_places_where_it_stands() -> None:
    model = decoder("llama_gqa")
    words = layout()
    ids = torch.as_tensor(words.input_ids[None])
    rows = {}
    for rule in ("word:red", "prompt"):
        with Session(model, [words], CaptureSpec(rows=rule, **EVERYTHING)) as session:
            model(input_ids=ids)
        rows[rule] = session.finish()[0]
    assert rows["word:red"].positions.tolist() == [11, 13]
    assert torch.allclose(rows["word:red"].attn_lhqk, rows["prompt"].attn_lhqk[:, :, [11, 13]], atol=1e-6)


# -- inputs that are not the layouts' ----------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("rows", ["question", "answer"])
@pytest.mark.parametrize(
    ("pads", "cut", "message"),
    [
        (None, None, r"sequence 1: the attention mask has its tokens at 6 to 22, but .* say 0 to 16: pass pad_left="),
        ([6, 0], None, r"sequence 0: the attention mask has its tokens at 0 to 22"),
        ([0, 6], 15, r"the model got 23 tokens per sequence, but .* say 21: pass the layouts of this input"),
    ],
)
def test_wrong_padding_and_layouts_of_another_length_are_refused(
    rows: str, pads: Any, cut: int | None, message: str
) -> None:
    model = decoder("llama_gqa")
    inputs, own = padded_batch()
    layouts = layouts_of(inputs, own)
    if cut is not None:
        layouts = [plain_layout(one.input_ids[:cut], np.arange(2, 10)) for one in layouts]
    with pytest.raises(CaptureError, match=message), Session(model, layouts, CaptureSpec(rows=rows), pad_left=pads):
        model.generate(**inputs, max_new_tokens=NEW, do_sample=False)


@torch.no_grad()
def test_prompt_rows_survive_generation_without_a_cache() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((23,))
    spec = CaptureSpec(rows="question", **EVERYTHING)
    with Session(model, layouts_of(inputs, pads), spec) as session:
        output = model.generate(**inputs, max_new_tokens=NEW, do_sample=False, use_cache=False)
    assert len(session.recordings) == 1
    assert error_of(session.finish()[0], reference(model, output)) < 1e-6


@torch.no_grad()
@pytest.mark.parametrize("settings", [{"logits_to_keep": 1}, {}])
def test_a_given_answer_without_all_its_logits_is_refused(settings: dict[str, Any]) -> None:

    model = decoder("llama_gqa")
    inputs, _ = padded_batch((12,))
    ids = inputs["input_ids"]
    prompt = plain_layout(ids[0, :10].numpy(), np.arange(2, 9))
    given = extend_layout(prompt, ids[0, 10:].numpy(), "", np.full((2, 2), -1, dtype=np.int32))
    with Session(model, [given], CaptureSpec(rows="answer")) as session:
        if settings:
            with pytest.raises(CaptureError, match="all its logits in one pass"):
                model(**inputs, **settings)
            return
        model(**inputs)
    assert session.finish()[0].candidates is not None
