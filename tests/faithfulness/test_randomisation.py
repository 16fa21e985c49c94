"""Layers made random from the top down, and every bit given back."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.tiny import TINY
from vlmattn.capture import model_sites
from vlmattn.core.errors import MapError
from vlmattn.faithfulness import cascade

FAMILIES = ("qwen2_vl", "fast_vlm", "mllama", "idefics2")


def state(model: Any) -> dict[str, bytes]:
    return {name: value.detach().contiguous().view(torch.uint8).numpy().tobytes() for name, value in tensors(model)}


def tensors(model: Any) -> list[tuple[str, torch.Tensor]]:
    return [(n, t if t.dim() else t[None]) for n, t in [*model.named_parameters(), *model.named_buffers()]]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_goes_from_the_top_down_and_comes_back_bit_for_bit(family: str) -> None:
    model, _ = TINY[family]()
    before = state(model)
    blocks = dict(model_sites(model).blocks)
    inside = {id(p): f"layer {n}" for n, block in blocks.items() for p in block.parameters()}
    head = model.get_output_embeddings()
    with cascade(model, seed=1) as random:
        assert [s for s in random.stages if s != "output"] == [f"layer {n}" for n in sorted(blocks, reverse=True)]
        for count, stage in enumerate(random.stages, 1):
            random.randomise(stage)
            after = state(model)
            changed = [p for n, p in model.named_parameters() if after[n] != before[n]]
            stages = {inside.get(id(p), "output" if p is head.weight else "elsewhere") for p in changed}
            assert stages == set(random.stages[:count])
    assert state(model) == before


def test_tied_heads_are_left_alone() -> None:
    model, _ = TINY["qwen2_vl"]()
    model.get_output_embeddings().weight = model.get_input_embeddings().weight
    with cascade(model) as random:
        assert "output" not in random.stages


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_inside_changes_nothing(error: type[BaseException]) -> None:
    model, _ = TINY["qwen2_vl"]()
    next(model.parameters()).data.view(-1)[0] = float("nan")  # bits, not values
    before = state(model)

    def fail() -> None:
        with cascade(model) as random:
            random.randomise(random.stages[0])
            random.randomise(random.stages[1])
            assert state(model) != before
            raise error

    with pytest.raises(error):
        fail()
    assert state(model) == before


def test_what_is_drawn_has_the_tensors_own_mean_and_spread_and_a_seed() -> None:
    model, _ = TINY["qwen2_vl"]()
    block = dict(model_sites(model).blocks)[0]
    weight = max(block.parameters(), key=torch.numel)
    kept = weight.detach().clone()
    drawn = []
    for seed in (1, 1, 2):
        with cascade(model, seed=seed) as random:
            random.randomise("layer 0")
            drawn.append(weight.detach().clone())
            random.randomise("layer 0")  # again: of the first weights, not of random ones
            assert weight.std().item() == pytest.approx(kept.std().item(), rel=0.1)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert drawn[0].std().item() == pytest.approx(kept.std().item(), rel=0.1)
    assert drawn[0].mean().item() == pytest.approx(kept.mean().item(), abs=0.1 * kept.std().item())
    assert abs(torch.corrcoef(torch.stack([drawn[0].flatten(), kept.flatten()]))[0, 1].item()) < 0.1


def test_weights_that_cannot_be_drawn() -> None:
    model, _ = TINY["qwen2_vl"]()
    model.is_quantized = True
    with pytest.raises(MapError, match="quantised"), cascade(model):
        pass
    model.is_quantized = False
    block = dict(model_sites(model).blocks)[0]
    block.to("meta")
    with pytest.raises(MapError, match="layer 0 are quantised or kept elsewhere"), cascade(model):
        pass
