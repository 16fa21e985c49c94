"""The contract holds for every family, and breaks for adapters that are wrong in the ways adapters go wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.published_configs import NEXT_PINPOINTS, ONEVISION_PINPOINTS
from tests.tiny_models import FAMILIES, build, tiny
from vlmattn.adapters import ImagePlan, adapter_for
from vlmattn.adapters.contract import check_adapter
from vlmattn.adapters.paint import merged_embeddings, paint_faults, unmixed
from vlmattn.adapters.plan import raster
from vlmattn.core.errors import LayoutError, ModelError
from vlmattn.core.layout import ImageLayout, Tile

MADE = [
    ("llava", {}),
    ("llava", {"do_pad": True}),
    ("llava", {"tower": "siglip"}),
    ("llava", {"tower": "siglip", "image_size": 60}),
    ("llava", {"tower": "siglip", "strategy": "default"}),
    ("llava", {"strategy": "full", "tower": "clip"}),
    ("vipllava", {}),
    ("llava_next", {}),
    ("llava_next", {"tower": "siglip"}),
    ("llava_onevision", {}),
    ("llava_onevision", {"aspect": "anyres_max_9", "image_size": 60}),
]
SMALL = ((64, 64), (90, 60))
WIDE = ((180, 120), (400, 100), (100, 400))


@pytest.mark.parametrize(("family", "options"), MADE)
def test_every_family_keeps_the_contract(family: str, options: dict[str, Any]) -> None:
    report = check_adapter(*tiny(family, **options), raises=False)
    assert report.ok, str(report)
    assert report.checks[-1].cases >= 15
    assert "keeps the contract" in str(report)


@pytest.mark.parametrize(
    ("family", "options", "painted"),
    [
        ("llava", {"image_size": 336}, ((640, 480), (480, 2000))),
        ("llava_next", {"image_size": 336, "image_grid_pinpoints": NEXT_PINPOINTS}, ((640, 480), (500, 1400))),
        (
            "llava_onevision",
            {
                "image_size": 384,
                "aspect": "anyres_max_9",
                "image_grid_pinpoints": ONEVISION_PINPOINTS,
                "positions": 16384,
            },
            ((1999, 1511),),
        ),
    ],
)
def test_the_contract_holds_at_published_sizes(family: str, options: dict[str, Any], painted: Any) -> None:
    """The real input, patch and tile sizes, with narrow layers: among them a grid that is shrunk."""
    report = check_adapter(*build(family, **options), sizes=((1, 1), (333, 777)), painted=painted, raises=False)
    assert report.ok, str(report)


def moved(plan: ImagePlan, change: Callable[[Tile], Tile]) -> ImagePlan:
    layout = ImageLayout(plan.layout.image_wh, tuple(change(t) for t in plan.layout.tiles))
    return ImagePlan(layout, plan.place, plan.view_hw, plan.views)


def stretched(plan: ImagePlan) -> ImagePlan:
    """The classic fault: the grid stretched over the uncropped, unpadded original."""
    w, h = plan.layout.image_wh
    return moved(plan, lambda t: Tile(t.kind, t.grid_hw, (0.0, 0.0, float(w), float(h))))


def one_cell_off(plan: ImagePlan) -> ImagePlan:
    def change(tile: Tile) -> Tile:
        x0, y0, x1, y1 = tile.source_box_xyxy
        step = (x1 - x0) / tile.grid_hw[1]
        return Tile(tile.kind, tile.grid_hw, (x0 + step, y0, x1 + step, y1))

    return moved(plan, change)


def columns_first(plan: ImagePlan) -> ImagePlan:
    place = plan.place.copy()
    base = np.flatnonzero(place[:, 0] == 0)
    place[base] = place[base][:, [0, 2, 1]]
    return ImagePlan(plan.layout, place, plan.view_hw, plan.views)


def newline_first(plan: ImagePlan) -> ImagePlan:
    place = plan.place.copy()
    tail = np.flatnonzero(place[:, 0] != 0)
    place[tail] = np.roll(place[tail], 1, axis=0)
    return ImagePlan(plan.layout, place, plan.view_hw, plan.views)


def tiles_first(plan: ImagePlan) -> ImagePlan:
    rest = plan.place[plan.place[:, 0] != 0]
    place = np.concatenate([rest, raster(0, plan.layout.tiles[0].grid_hw)])
    return ImagePlan(plan.layout, place, plan.view_hw, plan.views)


WRONG = [
    ("llava", {}, stretched),
    ("llava", {"do_pad": True}, stretched),
    ("llava", {}, one_cell_off),
    ("llava", {}, columns_first),
    ("llava_next", {}, one_cell_off),
    ("llava_next", {}, newline_first),
    ("llava_next", {}, tiles_first),
    ("llava_onevision", {}, newline_first),
    ("llava_onevision", {}, columns_first),
]


@pytest.mark.parametrize(("family", "options", "wrong"), WRONG)
def test_paint_finds_wrong_geometry(
    family: str, options: dict[str, Any], wrong: Callable[[ImagePlan], ImagePlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = tiny(family, **options)
    cls = type(adapter_for(model, processor))
    plan = cls.plan
    monkeypatch.setattr(cls, "plan", lambda self, *a, **k: wrong(plan(self, *a, **k)))
    report = check_adapter(model, processor, sizes=SMALL, painted=WIDE, raises=False)
    assert not report.checks[-1].ok
    assert not report.ok
    assert "BREAKS THE CONTRACT" in str(report)


def test_a_wrong_count_breaks_the_contract_and_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = build("llava")
    processor.num_additional_image_tokens = 2
    with pytest.raises(LayoutError, match="writes 17 image tokens, the model makes 16"):
        check_adapter(model, processor, sizes=SMALL, painted=())


@pytest.mark.parametrize("family", FAMILIES)
def test_measuring_leaves_the_model_as_it_was(family: str) -> None:
    model, processor = build(family)
    adapter = adapter_for(model, processor)
    encoded = adapter.encode([Image.new("RGB", (70, 60), (9, 99, 200))], "?")
    with torch.no_grad():
        before = model(**encoded.inputs).logits
        paint_faults(adapter, (70, 60), np.random.default_rng(0), spots=1)
        with pytest.raises(RuntimeError, match="stop"), unmixed(model):
            raise RuntimeError("stop")
        after = model(**encoded.inputs).logits
    assert torch.equal(before, after)
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_merged_embeddings_hold_words_and_pictures_in_place() -> None:
    model, processor = tiny("llava")
    encoded = adapter_for(model, processor).encode([Image.new("RGB", (56, 56))], "What?")
    merged = merged_embeddings(model, encoded.inputs)[0]
    words = model.get_input_embeddings()(encoded.inputs["input_ids"])[0]
    layout = encoded.layouts[0]
    text = torch.from_numpy(layout.image < 0)
    assert torch.equal(merged[text], words[text])
    assert not torch.isclose(merged[~text], words[~text]).all(dim=1).any()


def test_a_model_without_a_tower_or_embeddings_says_so() -> None:
    class Nothing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = torch.nn.Identity()

        def get_decoder(self) -> torch.nn.Module:
            return self.decoder

        def forward(self) -> Any:
            return self.decoder(torch.zeros(1))

    with pytest.raises(ModelError, match="no layers of a vision tower"), unmixed(Nothing()):
        pass
    with pytest.raises(ModelError, match="does not hand merged embeddings"):
        merged_embeddings(Nothing(), {})
