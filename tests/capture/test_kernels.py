"""Every kernel's own masking rule: flash (two-dimensional masks), flex (block masks), none at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention.flex_attention import create_block_mask
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, flash_attention_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tests.capture.decoders import decoder, eager_twin, layouts_of, padded_batch
from vlmattn.capture import CaptureSpec, Session
from vlmattn.capture.door import AttentionCall
from vlmattn.capture.rows import row_mask, take_rows
from vlmattn.core.errors import UnsupportedAttention

FLASH = "stand_in_flash"
FULL = CaptureSpec(rows=("prompt", "answer"), columns="all", dtype="float32")


def stand_in_flash(
    module: Any, query: Any, key: Any, value: Any, mask: Any, sliding_window: int | None = None, **options: Any
) -> tuple[torch.Tensor, None]:
    """What a flash kernel computes: causal from the lower right, a window, padding given as (B, K)."""
    queries, keys = query.shape[2], key.shape[2]
    distance = (torch.arange(queries)[:, None] + keys - queries) - torch.arange(keys)[None]
    seen = (distance >= 0) & (distance < (sliding_window or keys + 1))
    seen = seen[None, None].expand(query.shape[0], 1, -1, -1)
    if mask is not None:
        seen = seen & mask[:, None, None, :].bool()
    output = nn.functional.scaled_dot_product_attention(
        query, key, value, seen, scale=options["scaling"], enable_gqa=True
    )
    return output.nan_to_num().transpose(1, 2).contiguous(), None


@pytest.fixture
def flash() -> Iterator[str]:
    ALL_ATTENTION_FUNCTIONS.register(FLASH, stand_in_flash)
    ALL_MASK_ATTENTION_FUNCTIONS.register(FLASH, flash_attention_mask)
    yield FLASH
    for mapping in (ALL_ATTENTION_FUNCTIONS, ALL_MASK_ATTENTION_FUNCTIONS):
        mapping._global_mapping.pop(FLASH)


@torch.no_grad()
@pytest.mark.parametrize("lengths", [(23, 17), (23, 23)])
@pytest.mark.parametrize("name", ["llama_gqa", "mistral_window", "cohere2_window"])
def test_rows_under_flash_rules_equal_eager(name: str, lengths: tuple[int, ...], flash: str) -> None:
    model = decoder(name)
    eager = eager_twin(model)
    model.config._attn_implementation_internal = flash
    inputs, pads = padded_batch(lengths)
    plain = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    with Session(model, layouts_of(inputs, pads), FULL, pad_left=pads, max_new_tokens=5) as session:
        output = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    assert torch.equal(plain, output)
    mask = torch.cat([inputs["attention_mask"], torch.ones(2, 5, dtype=torch.long)], dim=1)
    reference = eager(input_ids=output, attention_mask=mask, output_attentions=True).attentions
    for item, kept in enumerate(session.finish(sequences=output)):
        for slot, full in enumerate(reference):
            want = full[item, :, pads[item] :, pads[item] :][:, kept.positions][..., kept.columns]
            assert float((want - kept.attn_lhqk[slot]).abs().max()) < 2e-6


def call_with(mask: Any, kernel: str, queries: int = 5, keys: int = 12) -> AttentionCall:
    query, key = torch.zeros(2, 4, queries, 8), torch.zeros(2, 2, keys, 8)
    return AttentionCall(kernel, nn.Identity(), query, key, key, mask, {})


def windowed_rule(item: Any, head: Any, query: Any, key: Any) -> Any:
    padding = torch.tensor([[False] * 3 + [True] * 9, [True] * 12])
    at = query + 7
    return (key <= at) & (key > at - 6) & padding[item, key]


@pytest.mark.parametrize("rows", [slice(0, 5), slice(3, 5), torch.tensor([0, 4]), torch.tensor([[0, 2], [1, 4]])])
def test_block_masks_say_what_the_dense_mask_says(rows: Any) -> None:
    block = create_block_mask(windowed_rule, 2, None, 5, 12, device="cpu", BLOCK_SIZE=4)
    got = row_mask(call_with(block, "flex_attention"), rows)
    item, query, key = torch.meshgrid(torch.arange(2), torch.arange(5), torch.arange(12), indexing="ij")
    dense = windowed_rule(item, None, query, key)
    assert got is not None
    for line in range(2):
        index = torch.arange(5)[rows] if isinstance(rows, slice) or rows.ndim == 1 else rows[line]
        assert torch.equal(got[line, 0], dense[line, index])
    assert 0 < int(dense.sum()) < dense.numel()


@pytest.mark.parametrize(
    ("kernel", "causal", "expected"),
    [("sdpa", True, "upper left"), ("sdpa", False, None), ("eager", True, None), (FLASH, True, "lower right")],
)
def test_without_a_mask_each_kernel_has_its_own_rule(kernel: str, causal: bool, expected: str | None) -> None:
    call = call_with(None, kernel)
    call.options["is_causal"] = causal
    got = row_mask(call, slice(0, 5))
    if expected is None:
        assert got is None
        return
    shift = 0 if expected == "upper left" else 12 - 5
    assert got is not None
    assert torch.equal(got[0, 0], torch.arange(12)[None] <= torch.arange(5)[:, None] + shift)


@pytest.mark.parametrize("mask", [torch.ones(2, 12), torch.ones(2, 1, 5, 7)])
def test_masks_of_another_shape_are_refused(mask: torch.Tensor) -> None:
    with pytest.raises(UnsupportedAttention, match="passed a mask"):
        row_mask(call_with(mask, "sdpa"), slice(0, 5))


@torch.no_grad()
@pytest.mark.parametrize(
    ("positions", "packed"),
    [
        (torch.arange(20), False),
        (torch.arange(20) + 5, False),
        (torch.arange(20) * 2, False),
        (torch.cat([torch.arange(12), torch.arange(8)]), True),
        (torch.cat([torch.arange(5, 17), torch.arange(8)]), True),
    ],
)
def test_sequences_packed_by_position_are_refused_under_flash(positions: Any, packed: bool, flash: str) -> None:
    inputs, pads = padded_batch((20,))
    for kernel in ("sdpa", flash):
        model = decoder("llama_gqa")
        model.config._attn_implementation_internal = kernel
        run = {"input_ids": inputs["input_ids"], "position_ids": positions[None]}
        with Session(model, layouts_of(inputs, pads), CaptureSpec(rows="last")) as session:
            if packed and kernel == flash:
                with pytest.raises(UnsupportedAttention, match="several sequences packed into one"):
                    model(**run)
                continue
            model(**run)
        assert len(session.finish()) == 1


@pytest.mark.parametrize("index", [torch.tensor([0, 4, 7]), torch.tensor([[0, 4, 7]])])
def test_rows_are_found_on_the_device_of_the_layer(index: torch.Tensor) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        there = torch.empty(1, 4, 20, 8, device="cuda:1")
        here = index.to("cuda:0")
        assert take_rows(there, here).device == torch.device("cuda:1")
        call = AttentionCall("sdpa", nn.Identity(), there, there, there, None, {"is_causal": True})
        mask = row_mask(call, here)
        assert mask is not None
        assert mask.device == torch.device("cuda:1")
