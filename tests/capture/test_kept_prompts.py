"""A cache that keeps the whole prompt, and of the answer only what a window holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from tests.tiny import TINY
from vlmattn.adapters import adapter_for
from vlmattn.capture import CaptureSpec, Session

NEW = 14
WRITES = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "return_dict_in_generate": True}


@torch.no_grad()
def kept_and_eager(**settings: Any) -> tuple[Any, Any]:
    """Rows of an answer of 14 tokens with a window of 4, and what eager attention says of each step."""
    model, processor = TINY["unlimited_ocr"]()
    encoded = adapter_for(model, processor).encode([Image.effect_noise((150, 70), 90).convert("RGB")], "What is it?")
    spec = CaptureSpec(rows="answer", dtype="float32", budget=0.5)
    with Session(model, encoded.layouts, spec, max_new_tokens=NEW) as session:
        output = model.generate(**encoded.inputs, **WRITES, **settings)
    kept = session.finish(sequences=output.sequences)[0]
    model.config.text_config._attn_implementation = "eager"
    eager = model.generate(**encoded.inputs, **WRITES, output_attentions=True)
    assert torch.equal(eager.sequences, output.sequences)
    return kept, [torch.stack([layer[0, :, -1] for layer in step]) for step in eager.attentions]


@pytest.mark.parametrize("settings", [{}, {"cache_implementation": "static"}])
def test_columns_of_the_prompt_stay_when_the_window_moves(settings: dict[str, Any]) -> None:
    kept, steps = kept_and_eager(**settings)
    prompt = kept.layout.answer_start
    assert [s.shape[-1] - prompt for s in steps] == [0, 1, 2, 3, *[4] * 10]
    answer = kept.segments.index("answer")
    for number, rows in enumerate(steps):
        assert torch.allclose(kept.attn_lhqk[:, :, number], rows[..., kept.columns], atol=1e-6)
        assert torch.allclose(kept.mass_lhqs[:, :, number, answer], rows[..., prompt:].sum(-1), atol=1e-6)
