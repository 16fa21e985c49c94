"""Windows that leave the picture behind, step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.capture.decoders import decoder, eager_twin, layouts_of, padded_batch
from vlmattn.capture import CaptureSpec, Session
from vlmattn.core.errors import CaptureError

SPEC = CaptureSpec(rows="answer", dtype="float32")


@torch.no_grad()
def kept_of(name: str, prompt: int, new: int, **settings: Any) -> tuple[Any, torch.Tensor]:
    model = decoder(name)
    inputs, pads = padded_batch((prompt,))
    with Session(model, layouts_of(inputs, pads), SPEC, max_new_tokens=new) as session:
        output = model.generate(**inputs, max_new_tokens=new, do_sample=False, **settings)
    full = eager_twin(model)(input_ids=output, output_attentions=True).attentions
    return session.finish(sequences=output)[0], torch.stack([a[0] for a in full])


@pytest.mark.parametrize("settings", [{}, {"cache_implementation": "static"}])
@pytest.mark.parametrize("name", ["mistral_window", "gemma3_window", "cohere2_window"])
def test_a_window_passes_over_the_picture(name: str, settings: dict[str, Any]) -> None:
    kept, full = kept_of(name, 12, 12, **settings)
    assert kept.visible_lqk is not None
    # Window 9, picture at 2 to 9: the row at position p sees columns p - 8 to p.
    assert kept.visible_lqk[0].sum(-1).tolist() == [max(9 - max(p - 8, 2) + 1, 0) for p in range(11, 23)]
    assert torch.allclose(kept.attn_lhqk, full[:, :, kept.positions][..., kept.columns], atol=1e-6)
    assert float(kept.attn_lhqk[0, :, 0, 1:].min()) > 0


@pytest.mark.parametrize("settings", [{}, {"cache_implementation": "static"}])
def test_layers_that_read_the_keys_of_others_have_their_window(settings: dict[str, Any]) -> None:
    kept, full = kept_of("gemma4_shared", 12, 12, logits_to_keep=torch.tensor([-1]), **settings)
    assert kept.visible_lqk is not None
    for layer in (0, 2):
        assert kept.visible_lqk[layer].sum(-1).tolist() == [max(9 - max(p - 8, 2) + 1, 0) for p in range(11, 23)]
    assert torch.allclose(kept.attn_lhqk, full[:, :, kept.positions][..., kept.columns], atol=1e-6)


def test_layers_that_leave_rows_out_are_refused() -> None:
    with pytest.raises(CaptureError, match=r"computes only 1 of 12 rows.*logits_to_keep=torch.tensor\(\[-1\]\)"):
        kept_of("gemma4_shared", 12, 2)


@pytest.mark.parametrize("settings", [{}, {"cache_implementation": "static"}])
@pytest.mark.parametrize("name", ["mistral_window", "gpt_oss_sinks"])
def test_masses_stay_right_when_the_window_has_left_the_prompt(name: str, settings: dict[str, Any]) -> None:
    kept, full = kept_of(name, 12, 30, **settings)
    ids = torch.as_tensor(kept.layout.segment_ids())
    rows = full[:, :, kept.positions]
    for index, segment in enumerate(kept.segments):
        inside = ids == kept.layout.segments().index(segment)
        want = rows[..., :12][..., inside].sum(-1)
        want = want + (rows[..., 12:].sum(-1) if segment == "answer" else 0)
        assert torch.allclose(kept.mass_lhqs[..., index], want, atol=2e-6), segment
    answer = kept.segments.index("answer")
    assert float(kept.mass_lhqs[0, :, -1, answer].min()) > 0.3
