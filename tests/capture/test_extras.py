"""The vision tower's own attention, and what published models would cost, without running them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

from tests.tiny_models import build
from vlmattn.capture import CaptureSpec, Session
from vlmattn.core.errors import BudgetExceeded
from vlmattn.core.layout import plain_layout


def llava(images: int) -> tuple[Any, dict[str, torch.Tensor], list[Any]]:
    model, _ = build("llava")
    image = int(model.config.image_token_id)
    line = torch.tensor([1, 5, *[image] * 16, 6, 7, 8])
    generator = torch.Generator().manual_seed(2)
    inputs = {
        "input_ids": line.expand(images, -1).contiguous(),
        "attention_mask": torch.ones(images, len(line), dtype=torch.long),
        "pixel_values": torch.randn(images, 3, 56, 56, generator=generator),
    }
    return model, inputs, [plain_layout(line.numpy(), np.arange(2, 18)) for _ in range(images)]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["cls", "received"])
@pytest.mark.parametrize("images", [1, 2])
def test_the_towers_attention_equals_eager(kind: Any, images: int) -> None:
    model, inputs, layouts = llava(images)
    plain = model(**inputs).logits
    spec = CaptureSpec(rows="last", vision=kind)
    with Session(model, layouts, spec) as session:
        assert torch.equal(model(**inputs).logits, plain)
    tower = model.model.vision_tower
    tower.set_attn_implementation("eager")
    reference = torch.stack(tower(inputs["pixel_values"], output_attentions=True).attentions)
    for item, kept in enumerate(session.finish()):
        assert kept.vision is not None
        full = reference[:, item]
        want = full[:, :, 0] if kind == "cls" else full.mean(2)
        got = kept.vision[:, 0] if kept.vision.shape[1] == 1 else kept.vision[:, item]
        assert torch.allclose(got[..., -want.shape[-1] :], want, atol=1e-6)


@torch.no_grad()
def test_image_columns_with_gaps_are_picked_one_by_one() -> None:
    model, inputs, _ = llava(1)
    line = inputs["input_ids"][0].numpy()
    columns = np.array([2, 3, 5, 8, 9, 15])
    gaps = plain_layout(line, columns)
    with Session(model, [gaps], CaptureSpec(rows="prompt", dtype="float32")) as some:
        model(**inputs)
    with Session(model, [gaps], CaptureSpec(rows="prompt", columns="all", dtype="float32")) as every:
        model(**inputs)
    kept, full = some.finish()[0], every.finish()[0]
    assert kept.columns.tolist() == columns.tolist()
    assert torch.equal(kept.attn_lhqk, full.attn_lhqk[..., columns])


@pytest.fixture(scope="module")
def published() -> Any:
    config = tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
            patch_size=14,
        ),
        text_config=tf.LlamaConfig(vocab_size=32064),
        image_token_index=32000,
    )  # fmt: skip
    with torch.device("meta"):
        return tf.LlavaForConditionalGeneration(config)


def published_layout() -> Any:
    return plain_layout(np.arange(5 + 576 + 20), np.arange(5, 581))


@pytest.mark.parametrize(
    ("options", "mib"),
    [
        ({}, 32 * 32 * 64 * 576 * 2 / 2**20),
        ({"reduce": "mean"}, 32 * 64 * 576 * 2 / 2**20),
        ({"layers": list(range(14, 20)), "heads": [3]}, 6 * 64 * 576 * 2 / 2**20),
        ({"rows": ("after_image", "answer"), "dtype": "float32"}, 32 * 32 * (20 + 63) * 576 * 4 / 2**20),
    ],
)
def test_the_cost_of_a_7b_model_is_known_without_its_weights(
    published: Any, options: dict[str, Any], mib: float
) -> None:
    estimate = CaptureSpec(**options).estimate(published, [published_layout()], max_new_tokens=64)
    assert estimate.by_part["image columns"] / 2**20 == mib
    assert str(estimate).startswith(f"{estimate.total / 2**20:.1f} MiB (image columns")


def test_a_7b_model_over_the_budget_is_told_what_to_turn(published: Any) -> None:
    estimate = CaptureSpec(rows="prompt", columns="all").estimate(published, [published_layout()])
    with pytest.raises(BudgetExceeded, match=r"choose layers=, reduce='mean', fewer rows=, dtype='float16'"):
        estimate.check(256 << 20, free=1 << 40)
    estimate.check(0.5, free=1 << 40)
