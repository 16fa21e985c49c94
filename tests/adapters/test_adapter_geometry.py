"""Where image tokens lie: measured to the pixel on tiny models, and in numbers for published checkpoints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from tests.published_configs import PUBLISHED, processor_of, published
from tests.tiny_models import build, pinpoints
from vlmattn.adapters import Adapter, adapter_for
from vlmattn.adapters.anyres import _large_view, best_resolution, kept_cells
from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.paint import merged_embeddings, paint_faults, unmixed
from vlmattn.adapters.preprocess import crop_offset, resized_wh
from vlmattn.core.errors import ImageError, LayoutError, UnsupportedModel
from vlmattn.core.layout import Tile
from vlmattn.grid import PatchMap, cell_at, cell_coverage, cells_of_box, to_pixels

EDGE = {"shortest_edge": 56}
CROP = {"height": 56, "width": 56}


def pil(model_and_processor: tuple[Any, Any], kind: Any, **settings: Any) -> tuple[Any, Any]:
    """The same model with an image processor of the PIL backend."""
    model, processor = model_and_processor
    processor.image_processor = kind(**({"size": EDGE, "crop_size": CROP} | settings))
    return model, processor


def changed_cells(adapter: Adapter, image_wh: tuple[int, int], tile: int) -> tuple[list[set[int]], list[set[int]]]:
    """For each pixel column, the grid columns whose tokens change when it is painted; the same for rows."""
    plain = np.full((image_wh[1], image_wh[0], 3), 90, dtype=np.uint8)

    def run(pixels: Any) -> Any:
        encoded = adapter.encode([Image.fromarray(pixels)], "?")
        return merged_embeddings(adapter.model, encoded.inputs)[0].numpy(), encoded.layouts[0]

    with unmixed(adapter.model):
        before, layout = run(plain)
        mine = layout.tile == tile
        found: tuple[list[set[int]], list[set[int]]] = ([], [])
        for axis, size in ((0, image_wh[0]), (1, image_wh[1])):
            for line in range(size):
                pixels = plain.copy()
                pixels[(slice(None), line) if axis == 0 else (line, slice(None))] = 255
                moved = (np.abs(run(pixels)[0] - before) > 1e-6).any(axis=1) & mine
                found[axis].append(set((layout.col if axis == 0 else layout.row)[moved].tolist()))
    return found


def named_cells(adapter: Adapter, image_wh: tuple[int, int], tile: int) -> tuple[list[set[int]], list[set[int]]]:
    """The same by the layout: the cells whose box holds the line's middle."""
    t = adapter.plan(image_wh).layout.tiles[tile]
    rows, cols = t.grid_hw
    in_x = [(b[0], b[2]) for b in (t.cell_box(0, col) for col in range(cols))]
    in_y = [(b[1], b[3]) for b in (t.cell_box(row, 0) for row in range(rows))]

    def cells(size: int, spans: list[tuple[float, float]]) -> list[set[int]]:
        return [{c for c, (low, high) in enumerate(spans) if low <= i + 0.5 < high} for i in range(size)]

    return cells(image_wh[0], in_x), cells(image_wh[1], in_y)


UNSCALED: dict[str, tuple[Any, tuple[int, int], int]] = {
    "centre crop, wide": (lambda: build("llava"), (80, 56), 0),
    "centre crop, odd": (lambda: build("llava"), (81, 56), 0),
    "centre crop, tall": (lambda: build("llava"), (56, 83), 0),
    "centre crop, PIL": (lambda: pil(build("llava"), CLIPImageProcessorPil), (56, 83), 0),
    "smaller than the crop": (lambda: build("llava", do_resize=False), (50, 45), 0),
    "smaller than the crop, PIL": (lambda: pil(build("llava"), CLIPImageProcessorPil, do_resize=False), (50, 45), 0),
    "one side smaller": (lambda: build("llava", do_resize=False), (71, 45), 0),
    "padded to a square": (lambda: build("llava", do_pad=True), (56, 40), 0),
    "padded, odd": (lambda: build("llava", do_pad=True), (41, 56), 0),
    "padded, PIL": (lambda: pil(build("llava"), LlavaImageProcessorPil, do_pad=True), (56, 41), 0),
    "stretched": (lambda: build("llava", tower="siglip"), (56, 56), 0),
    "pixels left over": (lambda: build("llava", tower="siglip", image_size=60), (60, 60), 0),
    "CLS kept": (lambda: build("llava", strategy="full", tower="clip"), (70, 56), 0),
    "vipllava": (lambda: build("vipllava"), (56, 70), 0),
    "next, base": (lambda: build("llava_next"), (56, 56), 0),
    "next, tiles": (lambda: build("llava_next"), (112, 112), 1),
    "next, tiles padded": (lambda: build("llava_next"), (112, 80), 1),
    "next, tiles padded, odd": (lambda: build("llava_next"), (77, 112), 1),
    "next, tiles, PIL": (
        lambda: pil(build("llava_next"), LlavaNextImageProcessorPil, image_grid_pinpoints=pinpoints(56)),
        (112, 75),
        1,
    ),
    "onevision, tiles": (lambda: build("llava_onevision"), (112, 95), 1),
    "onevision, tiles, no limit": (lambda: build("llava_onevision", aspect="anyres_max_9"), (168, 97), 1),
}


@pytest.mark.parametrize("case", UNSCALED)
def test_every_pixel_changes_the_cell_that_holds_it_and_no_other(case: str) -> None:
    make, image_wh, tile = UNSCALED[case]
    adapter = adapter_for(*make())
    measured, named = changed_cells(adapter, image_wh, tile), named_cells(adapter, image_wh, tile)
    assert measured == named
    assert any(named[0])
    assert any(named[1])


GAPS: dict[str, tuple[Any, tuple[int, int]]] = {
    "whole tiles": (lambda: build("llava_onevision", image_size=60, aspect="anyres_max_9"), (180, 180)),
    "padding above": (lambda: build("llava_onevision", image_size=60, aspect="anyres_max_9"), (180, 97)),
    "padding beside": (lambda: build("llava_onevision", image_size=60, aspect="anyres_max_9"), (95, 120)),
    "one row of tiles": (lambda: build("llava_onevision", image_size=60, aspect="anyres_max_9"), (180, 60)),
    "llava-next": (lambda: build("llava_next", tower="siglip", image_size=60), (120, 180)),
}


@pytest.mark.parametrize("case", GAPS)
def test_every_edge_of_joined_cells_is_exact_where_pixels_were_dropped(case: str) -> None:
    """60-pixel tiles of 14-pixel patches drop 4 pixels each, which then belong to no cell."""
    make, image_wh = GAPS[case]
    adapter = adapter_for(*make())
    tile = adapter.plan(image_wh).layout.tiles[1]
    measured = changed_cells(adapter, image_wh, 1)
    assert measured == named_cells(adapter, image_wh, 1)
    for lines, spans in zip(measured, (tile.col_spans, tile.row_spans), strict=True):
        inner = [i for i, cells in enumerate(lines) if not cells and any(lines[:i]) and any(lines[i:])]
        assert bool(inner) == (spans is not None)


def test_the_gaps_between_joined_tiles_are_not_seen() -> None:
    adapter = adapter_for(*build("llava_onevision", image_size=60, aspect="anyres_max_9"))
    layout = adapter.plan((180, 180)).layout
    tile = layout.tiles[1]
    assert tile.grid_hw == (12, 12)
    assert tile.source_box_xyxy == (0.0, 0.0, 176.0, 176.0)
    assert tile.cell_box(3, 4) == (60.0, 42.0, 74.0, 56.0)
    values = tuple(np.random.default_rng(0).random(t.grid_hw) for t in layout.tiles)
    pixels = to_pixels(PatchMap(values, layout), merge="tiles")
    dropped = [*range(56, 60), *range(116, 120), *range(176, 180)]
    assert np.flatnonzero(~pixels.seen.any(axis=0)).tolist() == dropped
    assert np.flatnonzero(~pixels.seen.any(axis=1)).tolist() == dropped
    assert pixels.total == pytest.approx(values[1].sum())
    assert pixels.outside == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "image_wh", "rows", "cols"),
    [
        ("llava-v1.6-mistral-7b", (672, 672), False, False),
        ("llava-onevision-qwen2-7b", (384, 384), False, False),
        ("llava-onevision-qwen2-7b", (640, 480), True, True),
        ("llava-onevision-qwen2-7b", (1152, 384), False, True),
    ],
)
def test_spans_are_told_only_where_pixels_were_dropped(
    name: str, image_wh: tuple[int, int], rows: bool, cols: bool
) -> None:
    base, tile = adapter_for(*published(name)).plan(image_wh).layout.tiles
    assert (base.row_spans, base.col_spans) == (None, None)
    assert (tile.row_spans is not None, tile.col_spans is not None) == (rows, cols)


def test_a_shrunk_grid_keeps_clear_of_the_gaps() -> None:
    """A limit of one tile and 2 x 2 tiles of 4 x 4 cells: two joined cells make one, and none lies across a gap."""
    adapter = adapter_for(*build("llava_onevision", image_size=60, aspect="anyres_max_1"))
    tile = adapter.plan((120, 120)).layout.tiles[1]
    spans = ((0.0, 28.0), (28.0, 56.0), (60.0, 88.0), (88.0, 116.0))
    assert tile == Tile("tiles", (4, 4), (0.0, 0.0, 116.0, 116.0), spans, spans)


def test_a_shrunk_grid_without_gaps_divides_its_box_evenly() -> None:
    adapter = adapter_for(*build("llava_onevision", aspect="anyres_max_1"))
    tile = adapter.plan((112, 112)).layout.tiles[1]
    assert tile == Tile("tiles", (4, 4), (0.0, 0.0, 112.0, 112.0))


def interpolated(adapter: Adapter, image_wh: tuple[int, int]) -> list[tuple[Any, Any, int]]:
    """Per side of the shrunk grid: (centres that interpolation mixes, edges of the cells' boxes, cells joined)."""
    from torch import arange, float64
    from torch.nn.functional import interpolate

    rule: Any = adapter.rule  # type: ignore[attr-defined]
    best = best_resolution(rule, image_wh)
    rows, cols = kept_cells(rule, image_wh, best)
    tile, view = adapter.plan(image_wh).layout.tiles[1], _large_view(image_wh, best)
    tower = rule.tower
    found = []
    for axis, (span, count) in enumerate(((cols, tile.grid_hw[1]), (rows, tile.grid_hw[0]))):
        low, high = float(view.edges[axis]), float(view.edges[axis + 2])
        cell = arange(span.first, span.last, dtype=float64)
        pixel = cell // tower.side * tower.image_size + cell % tower.side * tower.patch_size + tower.patch_size / 2
        mixed = interpolate(pixel[None, None, :, None], size=(count, 1), mode="bilinear")[0, 0, :, 0].numpy()
        boxes = [tile.cell_box(0, k) if axis == 0 else tile.cell_box(k, 0) for k in range(count)]
        edges = np.array([(box[axis], box[axis + 2]) for box in boxes])
        found.append((low + mixed * (high - low) / view.wh[axis], edges, span.count))
    return found


@pytest.mark.parametrize(
    "image_wh",
    [(1600, 1200), (1920, 1080), (2304, 2304), (3000, 1000), (4000, 3000), (2304, 1536), (1000, 3000), (5000, 1999)],
)
def test_boxes_of_a_shrunk_grid_lie_where_interpolation_looks(image_wh: tuple[int, int]) -> None:
    adapter = adapter_for(*published("llava-onevision-qwen2-7b"))
    for centres, edges, joined in interpolated(adapter, image_wh):
        assert joined > len(edges)
        length = np.diff(edges, axis=1)[:, 0]
        # Exact but for cells that mix joined cells from both sides of a gap.
        away = np.abs(centres - edges.mean(axis=1)) / length
        assert away.max() < 0.16
        assert np.median(away) < 1e-9
        assert ((edges[:, 0] < centres) & (centres < edges[:, 1])).all()


def test_the_cell_of_a_shrunk_grid_that_changes_is_the_one_that_holds_the_paint() -> None:
    adapter = adapter_for(
        *build("llava_onevision", image_size=60, aspect="anyres_max_2", image_grid_pinpoints=[[180] * 2])
    )
    image_wh = (180, 180)
    tile = adapter.plan(image_wh).layout.tiles[1]
    assert tile.grid_hw[0] < 12
    faults, painted = paint_faults(adapter, image_wh, np.random.default_rng(0), spots=20, most=200)
    assert not faults
    assert painted >= 30


@pytest.mark.parametrize(
    ("name", "image_wh", "tokens", "grids"),
    [
        ("llava-1.5-7b", (640, 480), 576, [(24, 24)]),
        ("llava-1.5-13b", (50, 8000), 576, [(24, 24)]),
        ("llava-v1.6-mistral-7b", (672, 672), 2928, [(24, 24), (48, 48)]),
        ("llava-v1.6-mistral-7b", (640, 480), 2340, [(24, 24), (36, 48)]),
        ("llava-v1.6-mistral-7b", (1008, 336), 2328, [(24, 24), (24, 72)]),
        ("llava-v1.6-vicuna-13b", (8000, 50), 576, [(24, 24)]),
        ("llava-onevision-qwen2-0.5b", (384, 384), 1485, [(27, 27), (27, 27)]),
        ("llava-onevision-qwen2-7b", (2304, 2304), 7371, [(27, 27), (81, 81)]),
        ("llava-onevision-qwen2-7b", (640, 480), 2929, [(27, 27), (40, 54)]),
    ],
)
def test_published_checkpoints(name: str, image_wh: tuple[int, int], tokens: int, grids: list[tuple[int, int]]) -> None:
    adapter = adapter_for(*published(name))
    plan = adapter.plan(image_wh)
    assert len(plan) == tokens
    assert [t.grid_hw for t in plan.layout.tiles] == grids
    layout = adapter.encode([Image.new("RGB", image_wh)], "What?").layouts[0]
    assert (layout.input_ids == adapter.image_token_id).sum() == tokens


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_shapes_and_no_weights(name: str) -> None:
    model, _ = published(name)
    assert all(p.device.type == "meta" for p in model.parameters())
    billions = sum(p.numel() for p in model.parameters()) / 1e9
    told = {"7b": (7.0, 8.1), "13b": (13.0, 13.5), "0.5b": (0.85, 0.95)}[name.rsplit("-", 1)[-1]]
    assert told[0] < billions < told[1]


@pytest.mark.parametrize("name", ["llava-1.5-7b", "llava-v1.6-mistral-7b", "llava-onevision-qwen2-7b"])
@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 4000), height=st.integers(1, 4000))
def test_the_plan_counts_as_the_processor_does(name: str, width: int, height: int) -> None:
    processor = processor_of(name)
    adapter = adapter_for(*published(name))
    if max(width, height) / min(width, height) > 2000:
        return
    counted = processor._get_num_multimodal_tokens(image_sizes=[(height, width)])["num_image_tokens"][0]
    plan = adapter.plan((width, height))
    assert len(plan) == counted
    for tile in plan.layout.tiles:
        x0, y0, x1, y1 = tile.source_box_xyxy
        assert x0 < width
        assert y0 < height
        assert x1 > 0
        assert y1 > 0


def test_a_llava_grid_does_not_stretch_over_what_was_cropped_away() -> None:
    plan = adapter_for(*published("llava-1.5-7b")).plan((640, 480))
    assert plan.layout.tiles[0].source_box_xyxy == (80.0, 0.0, 560.0, 480.0)


def test_padding_is_cut_in_whole_cells_only() -> None:
    """640 x 480 fills 768 x 576 of 768 x 768 pixels: 40.5 of 54 rows, of which 40 are kept, 7 cut on either side."""
    tile = adapter_for(*published("llava-onevision-qwen2-7b")).plan((640, 480)).layout.tiles[1]
    assert tile.grid_hw == (40, 54)
    top, bottom = (7 * 14 - 96) / 1.2, (384 + (46 - 27) * 14 + 14 - 96) / 1.2
    assert tile.source_box_xyxy == pytest.approx((0.0, top, 762 / 1.2, bottom))


def test_a_rounding_error_of_the_processor_is_followed() -> None:
    """4000 x 3000 should become 672 x 504, but 3000 * 0.168 rounds up to 505 rows, and the padding shifts by one."""
    adapter = adapter_for(*published("llava-v1.6-mistral-7b"))
    tile = adapter.plan((4000, 3000)).layout.tiles[1]
    assert tile.grid_hw == (36, 48)
    assert tile.source_box_xyxy == pytest.approx((0.0, 3000 / 505, 4000.0, 3000.0))


@pytest.mark.parametrize(
    ("size", "crop", "floor", "expected"),
    [
        (80, 56, False, 12),
        (81, 56, False, 12),
        (81, 56, True, 12),
        (56, 56, False, 0),
        (55, 56, False, 0),
        (55, 56, True, -1),
        (53, 56, False, -1),
        (53, 56, True, -2),
    ],
)
def test_crop_offset(size: int, crop: int, floor: bool, expected: int) -> None:
    assert crop_offset(size, crop, floor=floor) == expected


@pytest.mark.parametrize(
    ("wh", "size", "expected"),
    [
        ((640, 480), {"shortest_edge": 336}, (448, 336)),
        ((480, 640), {"shortest_edge": 336}, (336, 448)),
        ((1000, 333), {"shortest_edge": 336}, (1009, 336)),
        ((7, 7), {"shortest_edge": 336}, (336, 336)),
        ((640, 480), {"height": 384, "width": 300}, (300, 384)),
    ],
)
def test_resized(wh: tuple[int, int], size: dict[str, int], expected: tuple[int, int]) -> None:
    assert resized_wh(wh, size) == expected


def test_a_size_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(LayoutError, match="height and width, or shortest_edge"):
        resized_wh((5, 5), {"longest_edge": 336})


def test_canvas_keeps_exact_fractions() -> None:
    canvas = Canvas.of((450, 300)).squared().resized(56, 56)
    assert canvas.box_xyxy == (0.0, -75.0, 450.0, 375.0)
    assert canvas.window(0, 0, 28, 56).window(0, 0, 7, 56).box_xyxy == (0.0, -75.0, 56.25, 375.0)
    with pytest.raises(ImageError, match="at least 1 x 1"):
        Canvas.of((0, 5))
    with pytest.raises(LayoutError, match="holds no patch"):
        Canvas.of((5, 5)).grid(14)


def test_a_dropped_first_patch_is_not_seen() -> None:
    """SigLIP has no CLS token, so the strategy that drops it drops the top-left patch instead."""
    model, processor = build("llava", tower="siglip", strategy="default")
    adapter = adapter_for(model, processor)
    assert changed_cells(adapter, (56, 56), 0) == named_cells(adapter, (56, 56), 0)
    layout = adapter.encode([Image.new("RGB", (56, 56))], "?").layouts[0]
    picture = layout.images[0]
    assert len(layout.image_positions) == picture.cells == 15
    assert (layout.row[layout.image_positions[0]], layout.col[layout.image_positions[0]]) == (0, 1)
    one = PatchMap.from_vector(np.arange(1, 16.0), layout)
    assert one.visible is not None
    assert np.argwhere(~one.visible[0]).tolist() == [[0, 0]]
    assert one.values[0][0].tolist() == [0, 1, 2, 3]
    seen = to_pixels(one, kind="density").seen
    assert not seen[:14, :14].any()
    assert seen[14:].all()
    assert seen[:, 14:].all()
    assert cell_at(picture, 3, 3) == []
    assert cells_of_box(picture, (0, 0, 20, 10)) == [(0, 0, 1)]
    assert cell_coverage(picture, (0, 0, 56, 56))[0].sum() == 15


@pytest.mark.parametrize("lost", [((0, 4),), ((-1, 0),), ((0, 0), (0, 0))])
def test_lost_cells_lie_on_the_grid(lost: Any) -> None:
    with pytest.raises(LayoutError, match="lost must be different cells of the grid of 4 x 4"):
        Tile("base", (4, 4), (0, 0, 56, 56), lost=lost)


@pytest.mark.parametrize(
    ("family", "options", "error", "match"),
    [
        ("llava_next", {"tower": "siglip", "strategy": "default"}, UnsupportedModel, "top-left patch would be lost"),
        ("llava_onevision", {"strategy": "default"}, UnsupportedModel, "top-left patch would be lost"),
        ("vipllava", {"tower": "siglip"}, UnsupportedModel, "vision tower 'siglip_vision_model' is not supported"),
        ("llava_next", {"tower": "clip", "strategy": "full"}, LayoutError, "cannot join such tiles"),
        ("llava_next", {"size": {"shortest_edge": 60}}, LayoutError, "one side for size and crop_size"),
        ("llava_next", {"image_grid_pinpoints": [[56, 100]]}, LayoutError, "must be multiples"),
        ("llava_onevision", {"aspect": "square"}, LayoutError, "anyres_max_"),
        ("llava", {"do_pad": True, "size": {"longest_edge": 56}}, LayoutError, "shortest_edge"),
    ],
)
def test_geometry_that_is_not_known_is_refused(
    family: str, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        adapter_for(*build(family, **options)).plan((100, 70))


def test_pixtral_says_why() -> None:
    from transformers import PixtralVisionConfig

    model, processor = build("vipllava")
    model.config.vision_config = PixtralVisionConfig()
    with pytest.raises(UnsupportedModel, match="'pixtral' is not supported with 'vipllava': its input has no fixed"):
        adapter_for(model, processor)


def test_the_tower_tells_families_of_one_model_type_apart() -> None:
    from transformers import PixtralVisionConfig

    model, processor = build("llava")
    model.config.vision_config = PixtralVisionConfig()
    with pytest.raises(UnsupportedModel, match="pixtral needs a PixtralProcessor, got LlavaProcessor"):
        adapter_for(model, processor)


def test_padding_that_is_not_known_is_refused() -> None:
    model, processor = build("llava")
    processor.image_processor.do_pad = True
    with pytest.raises(LayoutError, match="what it pads is not known"):
        adapter_for(model, processor).plan((100, 70))
