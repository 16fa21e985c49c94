"""Scanpaths drawn on pictures: where circles lie, how large they are, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from vlmattn.core.errors import MapError
from vlmattn.gaze import Scanpath
from vlmattn.grid import PixelMap
from vlmattn.overlay import contact_sheet, draw_scanpath
from vlmattn.overlay.scanpaths import PEOPLE, radii

WH = (300, 200)
PATH = Scanpath([60.0, 240.0], [50.0, 150.0], WH, duration=[0.25, 1.0])


def blank(scale: int = 1) -> np.ndarray:
    return np.full((WH[1] * scale, WH[0] * scale, 3), 90, np.uint8)


def coloured(pixels: np.ndarray) -> np.ndarray:
    return (pixels == np.array(PEOPLE)).all(axis=2)


def test_a_circles_area_goes_with_its_duration() -> None:
    assert radii(PATH, 10.0).tolist() == [10.0, 20.0]
    long = Scanpath([1.0, 2.0], [1.0, 2.0], WH, duration=[0.001, 15.0])
    assert radii(long, 10.0).tolist() == [5.0, 25.0]
    assert radii(Scanpath([1.0], [1.0], WH), 10.0).tolist() == [10.0]
    pixels = blank()
    draw_scanpath(pixels, PATH, numbered=False)
    found = coloured(pixels)
    small, large = found[:, :150].sum(), found[:, 150:].sum()
    assert 2.5 < large / small < 6


@pytest.mark.parametrize("scale", [1, 2])
def test_circles_lie_where_the_fixations_do_whatever_the_pictures_size(scale: int) -> None:
    pixels = blank(scale)
    draw_scanpath(pixels, PATH, numbered=False)
    found = coloured(pixels)
    for x, y in ((60, 50), (240, 150)):
        assert found[y * scale, x * scale]
    ys, xs = np.nonzero(found[:, : 150 * scale])
    assert abs(xs.mean() / scale - 60) < 1
    assert abs(ys.mean() / scale - 50) < 1
    middle = pixels[95 * scale : 105 * scale, 140 * scale : 160 * scale]
    assert (middle > 240).any(), "the saccade's line"
    assert (pixels[: 10 * scale] == 90).all()


def test_numbers_are_dark_on_the_circles_and_may_be_left_out() -> None:
    plain, numbered = blank(), blank()
    draw_scanpath(plain, PATH, numbered=False)
    draw_scanpath(numbered, PATH)
    changed = (plain != numbered).any(axis=2)
    assert 5 < changed.sum() < 400
    assert changed[:, :45].sum() == 0
    many = Scanpath.from_points([(5.0, 5.0)] * 11 + [(299.0, 199.0)], WH)
    draw_scanpath(numbered, many)  # at the edge, with two digits


def test_what_is_off_the_picture_is_not_drawn_and_an_empty_path_draws_nothing() -> None:
    pixels = blank()
    draw_scanpath(pixels, Scanpath.from_points([(-5000.0, 90.0), (1e9, 90.0)], WH), numbered=True)
    assert not coloured(pixels).any()
    pixels = blank()
    draw_scanpath(pixels, Scanpath([], [], WH))
    assert (pixels == 90).all()


def test_a_picture_of_another_shape_is_refused() -> None:
    with pytest.raises(MapError, match="does not fit"):
        draw_scanpath(np.zeros((300, 300, 3), np.uint8), PATH)


def test_a_sheet_draws_each_path_on_its_own_cell() -> None:
    one = PixelMap(np.random.default_rng(0).random((200, 300)), np.ones((200, 300), bool))
    cells = [[("a", blank(), one), ("b", blank(), one)]]
    plain = np.asarray(contact_sheet(cells, cell_width=300).image)
    drawn = np.asarray(contact_sheet(cells, cell_width=300, paths=[[[], [(PATH, PEOPLE)]]]).image)
    changed = np.nonzero((plain != drawn).any(axis=(0, 2)))[0]
    assert changed.min() > 310
    assert coloured(drawn).any()
