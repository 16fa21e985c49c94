"""Published checkpoints planned without their weights: tokens, grids, rows and bytes from the configurations alone."""

from __future__ import annotations

import numpy as np
import pytest

import vlmattn as va
from tests.published_configs import PUBLISHED, published
from vlmattn.core.errors import BudgetExceeded

PHOTO = np.zeros((400, 600, 3), dtype=np.uint8)
QUESTION = "What is on the table?"
# layers, heads, grids (rows, columns) of a 600 x 400 photograph
EXPECTED = {
    "llava-1.5-7b": (32, 32, [(24, 24)]),
    "llava-1.5-13b": (40, 40, [(24, 24)]),
    "llava-v1.6-mistral-7b": (32, 32, [(24, 24), (32, 48)]),
    "llava-v1.6-vicuna-13b": (40, 40, [(24, 24), (32, 48)]),
    "llava-onevision-qwen2-0.5b": (24, 14, [(27, 27), (36, 54)]),
    "llava-onevision-qwen2-7b": (28, 28, [(27, 27), (36, 54)]),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_plan(name: str) -> None:
    vlm = va.load(*published(name))
    layout, cost = vlm.plan(PHOTO, QUESTION, max_new_tokens=64)
    layers, heads, grids = EXPECTED[name]
    assert [tile.grid_hw for tile in layout.images[0].tiles] == grids
    cells = sum(rows * cols for rows, cols in grids)
    assert len(layout.image_positions) == cells
    asked = int((layout.kinds == 4).sum())
    assert (cost.layers, cost.heads, cost.columns, cost.rows) == (layers, heads, cells, asked + 64)
    assert cost.by_part["image columns"] == layers * heads * (asked + 64) * cells * 2
    assert all(weight.is_meta for weight in vlm.model.parameters())


def test_a_capture_over_budget_is_refused_before_anything_runs() -> None:
    vlm = va.load(*published("llava-1.5-13b"))
    _, cost = vlm.plan(PHOTO, QUESTION, capture=va.CaptureSpec(rows="prompt", columns="all", dtype="float32"))
    with pytest.raises(BudgetExceeded, match=r"40 layers x 40 heads .* choose layers=, reduce='mean'"):
        cost.check(0.25, free=2**32)
    cost.check(0.9, free=2**40)
