"""Heat lies on exactly the pixels it belongs to; nothing is divided by zero or coloured without being seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.images import load_image
from vlmattn.core.provenance import Provenance
from vlmattn.grid import PixelMap
from vlmattn.overlay import COLOUR_MAPS, colour_table, overlay
from vlmattn.overlay.colours import lightness
from vlmattn.overlay.figure import Caption, _ramp, text_size
from vlmattn.overlay.heat import peak_xy, scale_of
from vlmattn.overlay.marks import draw_box, draw_contours

RNG = np.random.default_rng(0)


@dataclass
class Plain:
    """The least that can be drawn."""

    values: NDArray[np.float32]
    seen: NDArray[np.bool_]
    label: str = "word"
    provenance: Provenance = field(default_factory=Provenance)


def photo(width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def hot_box(x0: int, y0: int, x1: int, y1: int, width: int = 64, height: int = 48) -> PixelMap:
    values = np.zeros((height, width), np.float32)
    values[y0:y1, x0:x1] = 1
    return PixelMap(values, np.ones((height, width), bool))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_hot_box_changes_exactly_its_pixels(data: st.DataObject) -> None:
    width, height = data.draw(st.integers(2, 150)), data.draw(st.integers(2, 150))
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    one = hot_box(x0, y0, x1, y1, width, height)
    if one.is_flat:
        return
    pixels = np.zeros((height, width, 3), np.uint8)
    changed = (np.asarray(overlay(pixels, one, peak=False).image) != pixels).any(axis=2)
    assert np.array_equal(changed, one.values > 0)


def test_cold_pixels_are_the_original_bit_for_bit_and_hot_ones_are_the_stated_mix() -> None:
    pixels, one = photo(), hot_box(10, 20, 30, 40)
    out = np.asarray(overlay(pixels, one, peak=False, alpha_max=0.75).image)
    cold = one.values == 0
    assert np.array_equal(out[cold], pixels[cold])
    expected = pixels[~cold] * 0.25 + colour_table()[255] * 0.75
    assert np.abs(out[~cold] - expected).max() <= 1.5


@pytest.mark.parametrize("source", ["array", "PIL", "picture"])
def test_every_kind_of_picture_is_drawn_on_alike_and_left_alone(source: str) -> None:
    pixels, one = photo(), hot_box(1, 2, 5, 9)
    before = pixels.copy()
    given_ = {"array": pixels, "PIL": Image.fromarray(pixels), "picture": load_image(pixels)}[source]
    assert np.array_equal(np.asarray(overlay(given_, one).image), np.asarray(overlay(before, one).image))
    assert np.array_equal(pixels, before)


def test_unseen_pixels_are_hatched_grey_and_never_coloured() -> None:
    pixels, values, seen = photo(), RNG.random((48, 64), dtype=np.float32), np.ones((48, 64), bool)
    seen[:, :20] = False
    out = np.asarray(overlay(pixels, PixelMap(np.where(seen, values, 0), seen), peak=False).image)
    grey = out[~seen]
    assert (grey[:, 0] == grey[:, 1]).all()
    assert (grey[:, 0] == grey[:, 2]).all()
    whole = np.asarray(overlay(pixels, PixelMap(np.where(seen, values, 0), seen | True), peak=False).image)
    assert np.array_equal(out[seen], whole[seen])


@pytest.mark.parametrize("value", [0.0, 0.5, -3.0])
@pytest.mark.parametrize("scale", [None, (0.0, 1.0)])
def test_a_flat_map_draws_nothing_and_says_so(value: float, scale: Any) -> None:
    pixels = photo()
    drawn = overlay(pixels, Plain(np.full((48, 64), value, np.float32), np.ones((48, 64), bool)), scale=scale)
    assert np.array_equal(np.asarray(drawn.image), pixels)
    assert drawn.record["flat"] is True
    assert drawn.caption.flat


def test_a_map_without_a_seen_pixel_is_flat_and_all_hatched() -> None:
    drawn = overlay(photo(), PixelMap(np.zeros((48, 64)), np.zeros((48, 64), bool)), contours=True)
    assert drawn.record["flat"]
    assert drawn.record["seen_share"] == 0


@pytest.mark.parametrize(
    ("values", "unseen", "given_scale", "expected"),
    [
        ([[0.2, 0.8]], [], None, (0.0, 0.8)),
        ([[-1.0, 0.5]], [], None, (-1.0, 0.5)),
        ([[0.2, 0.8]], [1], None, (0.0, 0.2)),
        ([[0.2, 0.8]], [0, 1], None, (0.0, 0.0)),
        ([[0.2, 0.8]], [], (0, 2), (0.0, 2.0)),
    ],
)
def test_the_scale_rule(values: Any, unseen: list[int], given_scale: Any, expected: tuple[float, float]) -> None:
    seen = np.ones((1, 2), bool)
    seen[0, unseen] = False
    assert scale_of([Plain(np.array(values, np.float32), seen)], given_scale) == pytest.approx(expected)


def test_one_scale_makes_half_the_value_look_weaker() -> None:
    pixels, one = np.zeros((48, 64, 3), np.uint8), hot_box(0, 0, 9, 9)
    half = PixelMap(one.values / 2, one.seen)
    alone, shared = overlay(pixels, half, peak=False), overlay(pixels, half, peak=False, scale=(0, 1))
    assert np.asarray(alone.image).sum() > np.asarray(shared.image).sum()
    assert shared.record["scale"] == [0.0, 1.0]


def test_values_below_and_beyond_the_scale_are_held_at_its_ends() -> None:
    values = np.array([[-5.0, 0.0, 1.0, 9.0]], np.float32)
    pixels, seen = np.zeros((1, 4, 3), np.uint8), np.ones((1, 4), bool)
    out = np.asarray(overlay(pixels, Plain(values, seen), scale=(0, 1), peak=False).image)[0]
    assert np.array_equal(out[0], out[1])
    assert np.array_equal(out[2], out[3])


def patchwork(rows: int = 5, cols: int = 7, size: int = 8) -> PixelMap:
    values = np.kron(RNG.random((rows, cols)), np.ones((size, size))).astype(np.float32)
    seen = np.ones(values.shape, bool)
    seen[:, :size] = False
    return PixelMap(np.where(seen, values, 0), seen)


def test_the_mark_stands_where_the_map_says_its_peak_is() -> None:
    for one in (patchwork(), hot_box(3, 4, 8, 10), PixelMap(-patchwork().values - 1, np.ones((40, 56), bool))):
        assert peak_xy(one) == one.peak_xy


@pytest.mark.parametrize("wh", [(1, 1), (1, 10000), (8000, 50), (3, 2), (200, 200)])
def test_marks_and_figure_hold_for_every_shape(wh: tuple[int, int]) -> None:
    width, height = wh
    values = np.arange(width * height, dtype=np.float32).reshape(height, width)
    one = PixelMap(values, np.ones((height, width), bool), label="a rather long title " * 8)
    drawn = overlay(np.zeros((height, width, 3), np.uint8), one, box=(0, 0, width, height), contours=True)
    assert drawn.image.size == wh
    assert drawn.figure.width >= max(480, width)
    assert drawn.figure.height > height


def test_the_figure_holds_the_picture_pixel_for_pixel() -> None:
    pixels, one = photo(500, 300), hot_box(50, 60, 90, 99, 500, 300)
    drawn = overlay(pixels, one)
    figure, inner = np.asarray(drawn.figure), np.asarray(drawn.image)
    at = [y for y in range(figure.shape[0] - 299) if np.array_equal(figure[y : y + 300], inner)]
    assert len(at) == 1


@pytest.mark.parametrize("boxes", [(1, 2, 9, 8), [(1, 2, 9, 8), (20, 20, 30, 30)], np.array([[1, 2, 9, 8]]), []])
def test_boxes_come_in_every_form(boxes: Any) -> None:
    pixels = np.full((48, 64, 3), 128, np.uint8)
    out = np.asarray(overlay(pixels, hot_box(40, 30, 41, 31), box=boxes, peak=False).image)
    # On the line itself light; beside it dark: visible on any background.
    assert (out[2, 5] == 255).all() == bool(len(boxes))


NAN = np.zeros((48, 64), np.float32)
NAN[0, 0] = np.nan


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"cmap": "jet"}, SpecError, "there are"),
        ({"alpha": 1.5}, SpecError, "alpha"),
        ({"alpha": "much"}, SpecError, "alpha"),
        ({"alpha_max": 2}, SpecError, "alpha_max"),
        ({"alpha_max": "a"}, SpecError, "alpha_max must be a number"),
        ({"cmap": ["ember"]}, SpecError, "there are"),
        ({"box": 3}, SpecError, "a box must be"),
        ({"title": 3}, SpecError, "title must be text"),
        ({"scale": (1, 1)}, SpecError, "low < high"),
        ({"scale": (0, float("nan"))}, SpecError, "low < high"),
        ({"box": (0, 0, 0, 5)}, SpecError, "positive width"),
        ({"box": (0, 0, float("inf"), 5)}, SpecError, "positive width"),
        ({"box": (0, 0, 5)}, SpecError, "positive width"),
        ({"pixel_map": Plain(NAN, np.ones((48, 64), bool))}, MapError, "NaN"),
        ({"pixel_map": Plain(NAN.T, np.ones((64, 48), bool))}, MapError, "do not belong together"),
        ({"pixel_map": Plain(np.zeros((48, 64), np.float32), np.ones((2, 2), bool))}, MapError, "do not belong"),
        ({"picture": np.zeros((48, 64), np.uint8)}, MapError, "must be RGB"),
        ({"picture": np.zeros((48, 64, 3))}, MapError, "must be RGB"),
    ],
)
def test_each_wrong_option_gets_one_clear_error(options: dict[str, Any], error: type[Exception], says: str) -> None:
    asked: dict[str, Any] = {"picture": photo(), "pixel_map": hot_box(1, 1, 5, 5)} | options
    with pytest.raises(error, match=says):
        overlay(asked.pop("picture"), asked.pop("pixel_map"), **asked)


@pytest.mark.parametrize("name", COLOUR_MAPS)
def test_lightness_rises_evenly(name: str) -> None:
    light = lightness(colour_table(name))
    steps = np.diff(light[::15])
    assert colour_table(name).shape == (256, 3)
    assert (steps > 0).all()
    assert steps.max() / steps.min() < 2


def test_a_tiny_picture_is_enlarged_before_it_is_marked() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    one = hot_box(2, 3, 4, 5, 8, 8)
    plain = overlay(pixels, one, peak=False)
    marked = overlay(pixels, one, box=(1, 1, 7, 7), contours=True)
    assert np.array_equal(np.asarray(marked.image), np.asarray(plain.image))
    shown, before = (np.asarray(o.enlarged) for o in (marked, plain))
    assert shown.shape == (480, 480, 3)
    assert "60x enlarged" in marked.caption.small_print
    changed = (shown != before).any(axis=2)
    assert 0 < changed.mean() < 0.2
    assert changed[60:420, 60].all()  # the box's left edge, at x = 1 of 8
    with pytest.raises(SpecError, match="positive width"):
        overlay(pixels, one, box=(1, 1, 1, 7))
    assert overlay(photo(), hot_box(1, 2, 3, 4)).enlarged is not None
    assert overlay(photo(300, 200), hot_box(1, 2, 3, 4, 300, 200)).enlarged is None


@pytest.mark.parametrize("wh", [(900, 700), (300, 300)])
def test_lines_at_the_border_are_whole(wh: tuple[int, int]) -> None:
    width, height = wh
    inner, outer = (np.full((height, width, 3), 128, np.uint8) for _ in range(2))
    draw_box(inner, (100, 100, width - 100, height - 100))
    draw_box(outer, (0, 0, width, height))
    middle = height // 2
    line = (inner[middle, : width // 2] != 128).any(axis=1)
    assert (outer[middle, : width // 2] != 128).any(axis=1).sum() == line.sum()
    assert (outer[middle, width // 2 :] != 128).any(axis=1).sum() == line.sum()
    far = np.full((height, width, 3), 128, np.uint8)
    draw_box(far, (9000, 9000, 9100, 9100))
    assert (far == 128).all()


def test_contours_are_dashed_and_boxes_are_not() -> None:
    pixels = np.full((400, 400, 3), 128, np.uint8)
    box, contour = pixels.copy(), pixels.copy()
    draw_box(box, (100, 100, 300, 300))
    values = np.zeros((400, 400), np.float32)
    values[100:300, 100:300] = 1
    draw_contours(contour, values, [0.5])
    top = slice(110, 290)
    assert (box[100, top] == 255).all()
    light = (contour[100, top] == 255).all(axis=1)
    assert 0.3 < light.mean() < 0.7
    assert (contour[100, top][~light] == 0).all()


def test_the_colour_bar_fades_as_the_picture_does() -> None:
    fading, full = (_ramp(Caption("", "", (0, 1), "ember", alpha=alpha), 400, 20) for alpha in ("value", 1.0))
    assert set(map(tuple, fading[:, 0])) == {(255, 255, 255), (205, 205, 205)}  # the ground shows through
    assert set(map(tuple, full[:, 0])) == {tuple(colour_table("ember")[0])}
    mixed = 0.25 * np.array([255, 205])[:, None] + 0.75 * colour_table("ember")[255]
    assert np.abs(np.unique(fading[:, -1], axis=0) - np.sort(mixed, axis=0)).max() <= 1.5


@pytest.mark.parametrize(("wh", "least"), [((3000, 100), 30), ((100, 3000), 15), ((640, 480), 15), ((4000, 3000), 80)])
def test_type_is_large_enough_for_long_pictures(wh: tuple[int, int], least: int) -> None:
    assert text_size(*wh) >= least
    assert text_size(*wh) <= 96
