"""What a capture keeps of the residual stream and of received attention, against whole matrices; what steering sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.capture.decoders import decoder, layouts_of, padded_batch
from vlmattn.capture import CaptureSpec, Seen, Session, Steering
from vlmattn.core.errors import SpecError
from vlmattn.core.layout import TokenKind

LENGTHS = (19, 14)


def kept_of(name: str, spec: CaptureSpec, **options: Any) -> tuple[Any, Any, list[int]]:
    model = decoder(name)
    inputs, pads = padded_batch(LENGTHS)
    with Session(model, layouts_of(inputs, pads), spec, pad_left=pads, **options) as session, torch.no_grad():
        model(**inputs)
    model.config._attn_implementation, before = "eager", model.config._attn_implementation
    with torch.no_grad():
        plain = model(**inputs, output_hidden_states=True, output_attentions=True)
    model.config._attn_implementation = before
    return session.finish(), plain, pads


def test_the_largest_coordinates_and_the_median_are_those_of_the_states() -> None:
    kept, plain, pads = kept_of("llama_gqa", CaptureSpec(rows="last", hidden=True, hidden_coords=(3, 8), hidden_top=5))
    for item, (one, pad) in enumerate(zip(kept, pads, strict=True)):
        hidden = one.hidden
        assert hidden.width == 64
        for layer in range(4):
            x = plain.hidden_states[layer][item, pad:]
            order = np.argsort(-x.abs().numpy(), axis=-1, kind="stable")[:, :5]
            assert np.array_equal(hidden.top_coord_lnk[layer].numpy(), order)
            assert torch.allclose(hidden.top_value_lnk[layer], x.gather(1, torch.as_tensor(order)), atol=1e-5)
            assert torch.allclose(hidden.median_ln[layer], x.abs().median(-1).values, atol=1e-5)
            assert torch.allclose(hidden.peak_ln[layer], x.abs().amax(-1), atol=1e-5)


@pytest.mark.parametrize("name", ["llama_gqa", "gemma2_softcap", "mistral_window", "gpt_oss_sinks"])
def test_received_attention_is_the_mean_of_the_rows_that_see_a_token(name: str) -> None:
    kept, plain, pads = kept_of(name, CaptureSpec(rows="last", received=True))
    for item, (one, pad) in enumerate(zip(kept, pads, strict=True)):
        count = LENGTHS[item]
        assert one.received_lhn.shape == (4, 4, count)
        for layer in range(4):
            full = plain.attentions[layer][item, :, pad:, pad : pad + count].numpy()
            seen = np.tril(np.ones((count, count), dtype=bool)) & (full > 0).any(0)
            want = full.sum(1) / seen.sum(0)
            assert np.abs(one.received_lhn[layer].numpy() - want).max() < 1e-5


def test_received_attention_of_a_given_answer_is_that_of_the_prompt_alone() -> None:
    from vlmattn.core.layout import extend_layout

    model = decoder("llama_gqa")
    inputs, pads = padded_batch((12,))
    layout = layouts_of(inputs, pads)[0]
    spec = CaptureSpec(rows=("last", "answer"), received=True)
    with Session(model, [layout], CaptureSpec(rows="last", received=True)) as session, torch.no_grad():
        model(**inputs)
    alone = session.finish()[0].received_lhn
    longer = extend_layout(layout, np.array([7, 9]), "", np.full((2, 2), -1, dtype=np.int32))
    ids = torch.cat([inputs["input_ids"], torch.tensor([[7, 9]])], dim=1)
    with Session(model, [longer], spec) as session, torch.no_grad():
        model(input_ids=ids, use_cache=False)
    assert torch.allclose(session.finish()[0].received_lhn, alone, atol=1e-6)


def test_answers_of_different_lengths_in_a_batch_count_for_nothing() -> None:
    import vlmattn as va
    from tests.tiny_models import tiny

    vlm = va.load(*tiny("llava"))
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    items, answers = [(picture, "What?"), (picture, "What is there?")], ["a long answer to it", "no"]
    spec = CaptureSpec(rows="last", received=True)
    batch = vlm.ask_many(items, answers=answers, capture=spec)
    for item, answer, run in zip(items, answers, batch, strict=True):
        alone = vlm.ask(*item, answer=answer, capture=spec)
        assert np.abs(run.trace.received_lhn - alone.trace.received_lhn).max() < 1e-5


class Watcher(Steering):
    """Notes what it is shown."""

    def __init__(self, seen: list[tuple[int, int, torch.Tensor, torch.Tensor]]) -> None:
        self.seen, self.runs = seen, 0

    def edit_rows(self, probs_bhrk: torch.Tensor, where: Any) -> None:
        return None

    def see_hidden(self, hidden_bqd: torch.Tensor, seen: Seen) -> None:
        self.seen.append((seen.layer_idx, seen.start, hidden_bqd, seen.kinds))

    def fresh(self) -> Watcher:
        self.runs += 1
        return Watcher(self.seen)


def test_steering_sees_the_residual_stream_of_prompts_and_begins_anew_with_every_run() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch(LENGTHS)
    watcher = Watcher([])
    with Session(model, layouts_of(inputs, pads), None, [watcher], pad_left=pads), torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
        assert [layer for layer, *_ in watcher.seen] == [0, 1, 2, 3]
        for layer, start, hidden, kinds in watcher.seen:
            assert start == 0
            assert torch.equal(hidden, states[layer])
            assert torch.equal((kinds == -1).sum(1), torch.tensor(pads))
            assert kinds[0, pads[0]] == TokenKind.BOS
        watcher.seen.clear()
        model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert len(watcher.seen) == 4
    assert watcher.runs == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_top": 3}, "hidden_top is kept with the hidden states"),
        ({"hidden_top": -1, "hidden": True}, "whole number"),
        ({"received": 1.5}, "received must be one of"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        CaptureSpec(**options)


def test_received_attention_of_steered_rows_is_refused() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((12,))
    with pytest.raises(SpecError, match="changes it"):
        Session(model, layouts_of(inputs, pads), CaptureSpec(rows="last", received=True), [Watcher([])])
