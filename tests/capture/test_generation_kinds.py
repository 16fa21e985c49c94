"""Beam search, sampling, several returned sequences, and next-token statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.capture.decoders import decoder, eager_twin, layouts_of, padded_batch
from vlmattn.capture import CaptureSpec, Session

NEW = 6
SPEC = CaptureSpec(rows="answer", columns="all", dtype="float32", top_k=8)


@torch.no_grad()
def generate(**settings: Any) -> tuple[Any, Any, list[int], Any]:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch()
    common = {"max_new_tokens": NEW, "return_dict_in_generate": True, "output_logits": True} | settings
    with Session(model, layouts_of(inputs, pads), SPEC, pad_left=pads, max_new_tokens=NEW) as session:
        output = model.generate(**inputs, **common)
    return model, output, pads, session


def reference_rows(model: Any, sequences: torch.Tensor, pad: int, line: int) -> torch.Tensor:
    mask = torch.ones_like(sequences[line : line + 1])
    mask[:, :pad] = 0
    full = eager_twin(model)(input_ids=sequences[line : line + 1], attention_mask=mask, output_attentions=True)
    return torch.stack([a[0][:, pad:, pad:] for a in full.attentions])


@torch.no_grad()
@pytest.mark.parametrize(("beams", "returned"), [(3, 1), (4, 2)])
def test_beams_are_put_back_in_order(beams: int, returned: int) -> None:
    model, output, pads, session = generate(num_beams=beams, num_return_sequences=returned, do_sample=False)
    kept = session.finish(output.beam_indices, sequences=output.sequences)
    assert len(kept) == 2 * returned
    crossed = False
    for line, one in enumerate(kept):
        pad = pads[line // returned]
        rows = reference_rows(model, output.sequences, pad, line)
        want = rows[:, :, one.positions][..., one.columns]
        assert float((want - one.attn_lhqk).abs().max()) < 2e-6
        crossed |= len(set(output.beam_indices[line].tolist())) > 1
    assert crossed, "no beam ever changed places, so this test would not notice a wrong order"


@torch.no_grad()
def test_beams_left_in_running_order_would_be_noticed() -> None:
    model, output, pads, session = generate(num_beams=4, do_sample=False)
    wrong = torch.arange(2)[:, None].mul(4).expand_as(output.beam_indices)
    errors = []
    for line, one in enumerate(session.finish(wrong)):
        want = reference_rows(model, output.sequences, pads[line], line)[:, :, one.positions][..., one.columns]
        errors.append(float((want - one.attn_lhqk).abs().max()))
    assert max(errors) > 0.01


@torch.no_grad()
def test_sampling_writes_the_same_tokens_and_keeps_their_rows() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch()
    settings = {"max_new_tokens": NEW, "do_sample": True, "num_return_sequences": 2, "return_dict_in_generate": True}
    torch.manual_seed(5)
    plain = model.generate(**inputs, **settings)
    torch.manual_seed(5)
    with Session(model, layouts_of(inputs, pads), SPEC, pad_left=pads, max_new_tokens=NEW) as session:
        output = model.generate(**inputs, **settings)
    assert torch.equal(plain.sequences, output.sequences)
    for line, one in enumerate(session.finish(sequences=output.sequences)):
        want = reference_rows(model, output.sequences, pads[line // 2], line)[:, :, one.positions][..., one.columns]
        assert float((want - one.attn_lhqk).abs().max()) < 2e-6


@pytest.mark.parametrize("settings", [{"do_sample": False}, {"do_sample": True}, {"do_sample": False, "num_beams": 2}])
def test_next_token_statistics_are_those_of_the_models_own_logits(settings: dict[str, Any]) -> None:
    torch.manual_seed(3)
    _, output, _, session = generate(**settings)
    beams = getattr(output, "beam_indices", None)
    kept = session.finish(beams, sequences=output.sequences)
    for line, one in enumerate(kept):
        assert one.candidates is not None
        for step in range(NEW):
            row = line if beams is None else int(beams[line, step])
            logp = torch.log_softmax(output.logits[step][row].float(), dim=-1)
            top = logp.topk(8)
            assert one.candidates.top_ids_tk[step].tolist() == top.indices.tolist()
            assert np.allclose(one.candidates.top_logp_tk[step], top.values, atol=1e-5)
            entropy = float(-(logp.exp() * logp).sum())
            assert one.candidates.entropy_t[step] == pytest.approx(entropy, abs=1e-4)
            if beams is None:
                token = int(output.sequences[line, 23 + step])
                assert one.candidates.chosen_logp_t[step] == pytest.approx(float(logp[token]), abs=1e-5)


@torch.no_grad()
def test_answers_of_different_length_keep_their_own_rows() -> None:
    _, output, _, session = generate(do_sample=False)
    short, long = session.finish(lengths=[2, NEW], sequences=output.sequences)
    assert short.positions.tolist() == [22, 23]
    assert len(long.positions) == NEW
    assert short.candidates is not None
    assert len(short.candidates.entropy_t) == 2


@torch.no_grad()
def test_buffers_grow_when_no_length_was_announced() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((11,))
    with Session(model, layouts_of(inputs, pads), SPEC) as session:
        output = model.generate(**inputs, max_new_tokens=70, do_sample=False)
    kept = session.finish(sequences=output)[0]
    assert len(kept.positions) == 70
    want = reference_rows(model, output, 0, 0)[:, :, kept.positions][..., kept.columns]
    assert float((want - kept.attn_lhqk).abs().max()) < 5e-6
