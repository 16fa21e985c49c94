"""Masks, regions, windows and refined pictures against plain loops; bad maps; settings that change nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from scipy import ndimage

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.grid import PatchMap, PixelMap, to_pixels
from vlmattn.refine import RECIPES, Recipe, place_of, refine_picture
from vlmattn.refine.pictures import MOST_ENLARGED, magnified
from vlmattn.refine.places import around, best_window, grown, high_mask

PLAIN = Recipe("plain", "test")


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def one_tile(values: Any, image_wh: tuple[int, int], box: tuple[float, ...] | None = None) -> PatchMap:
    grid = np.asarray(values, dtype=float)
    place = box or (0.0, 0.0, float(image_wh[0]), float(image_wh[1]))
    return PatchMap((grid,), ImageLayout(image_wh, (Tile("base", grid.shape, place),)))


def pixels_of(patch_map: PatchMap) -> PixelMap:
    return to_pixels(patch_map, merge="mean", kind="density")


def plain_window(grid: np.ndarray, side: int, ratios: tuple[float, ...], image_wh: tuple[int, int]) -> tuple[int, ...]:
    """ViCrop's search as its paper tells it, with loops over patches."""
    rows, cols = grid.shape
    cell_w, cell_h = image_wh[0] / cols, image_wh[1] / rows
    best, chosen = -np.inf, None
    for ratio in ratios:
        w, h = min(int(side * ratio / cell_w), cols), min(int(side * ratio / cell_h), rows)
        if (w, h) == (cols, rows) and ratio == ratios[0]:
            return (0, 0, *image_wh)
        sums = {(r, c): grid[r : r + h, c : c + w].sum() for r in range(rows - h + 1) for c in range(cols - w + 1)}
        top = max(sums, key=lambda key: sums[key])
        near = [sums[k] for k in [(top[0] - 1, top[1]), (top[0] + 1, top[1]), (top[0], top[1] - 1),
                                  (top[0], top[1] + 1)] if k in sums]  # fmt: skip
        sharpness = (sums[top] - (np.mean(near) if near else sums[top])) / (w * h)
        if sharpness > best:
            middle = (top[1] + w / 2) * cell_w, (top[0] + h / 2) * cell_h
            best, chosen = sharpness, around(middle, int(side * ratio), image_wh, (1, 1))
    assert chosen is not None
    return chosen


@pytest.mark.parametrize("seed", range(8))
def test_the_window_is_the_papers_on_an_uncropped_tile(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid, wh = rng.random((6, 8)), (160, 90)
    ratios = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
    got = best_window(pixels_of(one_tile(grid, wh)), 42, ratios, (20, 15))
    assert got == plain_window(grid, 42, ratios, wh)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 0.95), st.sampled_from([4, 8]), st.sampled_from(["sum", "area"]))
def test_mask_and_regions_are_those_of_a_plain_computation(seed: int, share: float, touch: Any, rank: Any) -> None:
    rng = np.random.default_rng(seed)
    patch_map = one_tile(rng.random((7, 9)), (63, 49))
    pixels = pixels_of(patch_map)
    place = place_of(patch_map, pixels, PLAIN.but(place="regions", share=share, neighbours=touch, rank=rank, keep=None))
    values = pixels.values.astype(np.float64)
    mask = (values >= np.percentile(values, 100 * (1 - share))) & (values > values.min())
    labels, count = ndimage.label(mask, np.ones((3, 3)) if touch == 8 else None)
    score = [(values[labels == n].sum() if rank == "sum" else (labels == n).sum()) for n in range(1, count + 1)]
    kept = np.argsort(-np.array(score), kind="stable")[: max(3, int(0.2 * count))] + 1
    expected = np.isin(labels, kept)
    if rank == "sum" or len(set(score)) == count:
        assert (place.mask == expected).all()
    ys, xs = np.nonzero(place.mask)
    assert place.box_xyxy == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert [r.area for r in place.regions] == [int((labels == n).sum()) for n in kept] or rank == "area"


def test_a_flat_map_has_no_place() -> None:
    flat = one_tile(np.ones((4, 4)), (40, 40))
    for name in RECIPES:
        with pytest.raises(MapError, match="flat"):
            refine_picture(picture(40, 40), flat, RECIPES[name])


def test_ties_never_make_the_mask_everything() -> None:
    values = np.zeros((4, 4))
    values[1, 2] = 1.0
    mask = high_mask(pixels_of(one_tile(values, (40, 40))), 0.5)
    assert mask.sum() == 100
    assert mask[10:20, 20:30].all()


def test_what_was_not_seen_is_never_in_the_mask() -> None:
    # A centre crop: the left and right fifths were cut off.
    patch_map = one_tile(np.arange(16.0).reshape(4, 4), (100, 60), (20.0, 0.0, 80.0, 60.0))
    pixels = pixels_of(patch_map)
    for share in (0.1, 0.5, 0.9, 0.999):
        mask = high_mask(pixels, share)
        assert mask.any()
        assert not mask[:, :20].any()
        assert not mask[:, 80:].any()
    window = best_window(pixels, 30, (1.0,), (15, 15), (20, 0))
    assert window == (50, 30, 80, 60)


def test_the_place_is_where_the_patch_lies_not_where_a_stretched_grid_would_put_it() -> None:
    values = np.zeros((4, 4))
    values[0, 0] = 1.0
    patch_map = one_tile(values, (100, 60), (20.0, 0.0, 80.0, 60.0))
    place = refine_picture(picture(100, 60), patch_map, PLAIN.but(window_px=20)).place
    assert place.box_xyxy == (18, 0, 38, 20)  # a stretched grid would say (2, 0, 22, 20)


@pytest.mark.parametrize("name", [n for n, r in RECIPES.items() if r.outside != "fade"])
def test_a_mask_of_everything_changes_nothing_bit_for_bit(name: str) -> None:
    image, patch_map = picture(90, 60), one_tile(np.random.default_rng(0).random((4, 6)), (90, 60))
    recipe = RECIPES[name].but(place="regions", share=1.0)
    made = refine_picture(image, patch_map, recipe)
    assert made.place.box_xyxy == (0, 0, 90, 60)
    assert made.image.tobytes() == image.tobytes()


def test_a_window_as_large_as_the_picture_is_the_picture() -> None:
    image, patch_map = picture(50, 30), one_tile([[1.0, 2.0], [0.0, 5.0]], (50, 30))
    for changes in ({"place": "peak"}, {"place": "window", "ratios": (1.0, 2.0)}):
        made = refine_picture(image, patch_map, PLAIN.but(window_px=900, **changes))
        assert made.place.box_xyxy == (0, 0, 50, 30)
        assert made.image.tobytes() == image.tobytes()


def test_a_box_smaller_than_a_patch_grows_to_one() -> None:
    patch_map = one_tile(np.eye(4), (80, 80))
    assert refine_picture(picture(80, 80), patch_map, PLAIN.but(window_px=3)).place.box_xyxy == (0, 0, 20, 20)
    assert grown((5, 5, 6, 6), (80, 80), (20, 20)) == (0, 0, 20, 20)
    assert grown((0, 0, 4, 4), (10, 10), (20, 20)) == (0, 0, 10, 10)


def test_one_pixel_wide_pictures_and_thin_crops() -> None:
    patch_map = one_tile([[1.0], [2.0], [4.0]], (1, 30))
    made = refine_picture(picture(1, 30), patch_map, RECIPES["carve"].but(layers=None))
    assert made.image.size[0] >= 1
    assert max(magnified(picture(2, 4000), (4000, 4000), "cover").size) <= MOST_ENLARGED


def test_masks_blacken_blur_and_fade_what_lies_outside() -> None:
    image, patch_map = picture(40, 40), one_tile(np.diag([1.0, 2.0, 3.0, 9.0]), (40, 40))
    colours = np.asarray(image).astype(int)
    keep = RECIPES["mask"].but(share=0.0625)
    made = {o: refine_picture(image, patch_map, keep.but(outside=o)) for o in ("black", "mean", "blur", "fade")}
    mask = made["black"].place.mask
    assert mask[30:, 30:].all()
    assert mask.sum() == 100
    for outside in ("black", "mean", "blur"):
        shown = np.asarray(made[outside].image).astype(int)
        assert (shown[mask] == colours[mask]).all()
        assert not (shown[~mask] == colours[~mask]).all()
    assert not np.asarray(made["black"].image)[~mask].any()
    faded = np.asarray(made["fade"].image).astype(int)
    assert np.abs(faded[:10, :10] - colours[:10, :10] / 9).max() <= 0.51
    assert (faded[30:, 30:] == colours[30:, 30:]).all()


def test_the_blur_is_a_fiftieth_of_the_longer_side() -> None:
    image, patch_map = picture(200, 40), one_tile([[0.0, 0.0, 0.0, 1.0]], (200, 40))
    made = refine_picture(image, patch_map, RECIPES["blur"].but(share=0.25))
    expected = np.asarray(image.filter(ImageFilter.GaussianBlur(4.0)))
    assert (np.asarray(made.image)[:, :150] == expected[:, :150]).all()


@pytest.mark.parametrize(
    ("changes", "box"),
    [
        ({"window_px": 20}, (80, 20, 100, 40)),
        ({"window_px": 20, "margin": 0.5}, (70, 10, 110, 50)),
        ({"window_px": 20, "margin": 9.0}, (0, 0, 200, 80)),
        ({"place": "regions", "share": 0.05}, (80, 20, 100, 40)),
        ({"place": "regions", "share": 0.05, "margin": 0.25}, (75, 15, 105, 45)),
        ({"place": "window", "window_px": 20, "margin": 0.5}, (70, 10, 110, 50)),
    ],
)
def test_a_margin_is_a_share_of_the_boxs_own_sides(changes: dict[str, Any], box: tuple[int, ...]) -> None:
    values = np.zeros((4, 10))
    values[1, 4] = 1.0
    made = refine_picture(picture(200, 80), one_tile(values, (200, 80)), PLAIN.but(**changes))
    assert made.place.box_xyxy == box
    if made.recipe.place != "regions":
        assert (np.argwhere(made.place.mask).min(0) == (box[1], box[0])).all()
        assert made.place.mask.sum() == (box[2] - box[0]) * (box[3] - box[1])
    wide = np.zeros((4, 10))
    wide[1, 3:6] = (1.0, 1.1, 1.2)
    flat = refine_picture(
        picture(200, 80), one_tile(wide, (200, 80)), PLAIN.but(place="regions", margin=0.5, share=0.1)
    )
    assert flat.place.box_xyxy == (30, 10, 150, 50), "60 by 20 pixels: 30 more on each side, 10 above and below"


@pytest.mark.parametrize(("how", "size"), [("none", (30, 20)), ("fit", (90, 60)), ("cover", (180, 120))])
def test_magnifying_keeps_proportions(how: Any, size: tuple[int, int]) -> None:
    assert magnified(picture(30, 20), (90, 120), how).size == size


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"share": 0.0}, "share"), ({"share": 1.1}, "share"), ({"share": float("nan")}, "share"),
        ({"keep": 0}, "keep"), ({"window_px": 0}, "window_px"), ({"window_px": None, "window_share": None}, "window"),
        ({"signal": "magic"}, "signal"), ({"ratios": ()}, "ratios"), ({"outside": "red"}, "outside"),
        ({"nonsense": 1}, "no field"), ({"weights": "number"}, "contrast"), ({"margin": -1}, "margin"),
        ({"clip": 0}, "clip"), ({"floor": -1}, "floor"), ({"suffix": 3}, "suffix"),
        ({"margin": float("inf")}, "margin"), ({"signal": "gradient", "steps": "last"}, "first answer token"),
        ({"ratios": (float("inf"),)}, "ratios"),
    ],
)  # fmt: skip
def test_recipes_that_cannot_be(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        PLAIN.but(**wrong)


@pytest.mark.parametrize(
    ("name", "changes", "why"),
    [
        ("peak", {"share": 0.3}, "place='peak'"),
        ("peak", {"ratios": (1.0, 2.0)}, "place='peak'"),
        ("peak", {"floor": 0.5}, "signal='raw'"),
        ("carve", {"window_px": 90}, "place='regions'"),
        ("carve-crop", {"keep": 2}, "place='peak'"),
        ("vicrop", {"clip": 0.9}, "signal='relative'"),
        ("vicrop", {"rank": "area"}, "place='window'"),
        ("vicrop-gradient", {"floor": 0.1}, "signal='gradient'"),
        ("vicrop-pure-gradient", {"layers": [1]}, "signal='pure_gradient'"),
        ("mask", {"magnify": "fit"}, "crop=False"),
    ],
)
def test_a_change_that_would_decide_nothing_is_refused(name: str, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(SpecError, match=f"{next(iter(changes))} decides nothing with {why}"):
        RECIPES[name].but(**changes)


@pytest.mark.parametrize("name", RECIPES)
def test_fields_that_are_said_to_decide_nothing_do_so(name: str) -> None:
    """Of the fields that a place reads; those of signals are covered where maps are made."""
    other = {"share": 0.4, "neighbours": 8, "rank": "area", "keep": 1, "least_share": 0.3, "window_px": 37,
             "window_share": None, "ratios": (1.7,), "magnify": "cover"}  # fmt: skip
    recipe, image = RECIPES[name], picture(90, 60)
    patch_map = one_tile(np.random.default_rng(1).random((6, 9)), (90, 60))
    idle = {n: v for n, v in other.items() if n in recipe.idle}
    if ("window_px" in idle) != ("window_share" in idle):
        raise AssertionError("both sides of a window are idle, or none")
    made, same = (refine_picture(image, patch_map, r) for r in (recipe, replace(recipe, **idle)))
    assert made.place.box_xyxy == same.place.box_xyxy
    assert made.image.tobytes() == same.image.tobytes()
    window = recipe.place != "regions"
    assert ("share" in idle, "window_px" in idle) == (window, not window)


def test_pictures_of_other_modes_are_taken_as_rgb() -> None:
    grey, patch_map = picture(40, 40).convert("L"), one_tile(np.eye(4), (40, 40))
    for name in ("mask", "blur", "fade", "peak"):
        made = refine_picture(grey, patch_map, RECIPES[name]).image
        assert made.mode == "RGB"
        assert made.tobytes() == refine_picture(grey.convert("RGB"), patch_map, RECIPES[name]).image.tobytes()


def test_a_map_of_another_picture_is_refused() -> None:
    with pytest.raises(MapError, match="belongs to a picture"):
        refine_picture(picture(30, 30), one_tile(np.eye(3), (40, 40)), PLAIN)


def test_regions_that_are_all_too_small_are_an_error() -> None:
    with pytest.raises(MapError, match="least_share"):
        refine_picture(
            picture(40, 40), one_tile(np.eye(4) + 0.1 * np.random.default_rng(0).random((4, 4)), (40, 40)),
            PLAIN.but(place="regions", share=0.5, least_share=0.99),
        )  # fmt: skip
