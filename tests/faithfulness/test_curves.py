"""Curves and erasures on a picture whose score is known: the sum of what its regions are worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.faithfulness import Cells, cells_of, deletion, drop_and_rise, erasure, insertion, road
from vlmattn.grid import PatchMap

WORTH = np.array([0.4, 0.3, 0.2, 0.1])
COLUMNS = np.repeat(np.array([[0, 1, 2, 3]]), 3, axis=0)
WHITE = Image.fromarray(np.full((3, 4, 3), 255, np.uint8))


def light(pictures: Sequence[Image.Image]) -> np.ndarray:
    """What white columns are worth."""
    return np.array([float((np.asarray(p)[0, :, 0] / 255) @ WORTH) for p in pictures])


def cells(values: Sequence[float]) -> Cells:
    return Cells(COLUMNS, np.asarray(values, dtype=float))


def test_deletion_by_hand() -> None:
    curve = deletion(WHITE, cells([4, 3, 2, 1]), light, steps=4, baseline="black")
    assert curve.shares == (0, 0.25, 0.5, 0.75, 1)
    assert curve.scores == pytest.approx((1, 0.6, 0.3, 0.1, 0))
    assert curve.area == pytest.approx((1 / 2 + 0.6 + 0.3 + 0.1 + 0) / 4)


def test_insertion_by_hand() -> None:
    curve = insertion(WHITE, cells([1, 2, 3, 4]), light, steps=4, baseline="black")
    assert curve.scores == pytest.approx((0, 0.1, 0.3, 0.6, 1))
    assert curve.area == pytest.approx((0.1 + 0.3 + 0.6 + 1 / 2) / 4)


def test_steps_that_are_no_equal_shares() -> None:
    curve = deletion(WHITE, cells([4, 3, 2, 1]), light, steps=3, baseline="black")
    assert curve.shares == (0, 0.25, 0.75, 1)
    assert curve.area == pytest.approx(0.25 * 0.8 + 0.5 * 0.35 + 0.25 * 0.05)
    assert deletion(WHITE, cells([4, 3, 2, 1]), light, steps=99, baseline="black").shares == (0, 0.25, 0.5, 0.75, 1)


def test_erasure_by_hand() -> None:
    found = erasure(WHITE, cells([4, 3, 2, 1]), light, baseline="black", bins=(0.01, 0.5))
    assert found.comprehensiveness == pytest.approx((0.4 + 0.7) / 2)
    assert found.sufficiency == pytest.approx((0.6 + 0.3) / 2)


def test_drop_and_rise_by_hand() -> None:
    lost, rose = drop_and_rise(WHITE, cells([4, 1, 1, 1]), light)
    assert (lost, rose) == (pytest.approx(0.6), False)
    lost, rose = drop_and_rise(WHITE, cells([4, 1, 1, 1]), lambda seen: -light(seen) + 2)
    assert (lost, rose) == (0, True)
    with pytest.raises(MapError, match="no share"):
        drop_and_rise(WHITE, cells([4, 1, 1, 1]), lambda seen: 0 * light(seen))


def test_road_is_the_difference_of_both_orders() -> None:
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 255, (3, 4, 3), dtype=np.uint8))

    def same(seen: Sequence[Image.Image]) -> np.ndarray:
        """The worth of columns that are what they were."""
        kept = [(np.asarray(p) == np.asarray(noisy)).all(axis=(0, 2)) for p in seen]
        return np.array([one @ WORTH for one in kept])

    good = road(noisy, cells([4, 3, 2, 1]), same, shares=(0.25, 0.5))
    assert good == pytest.approx(((0.9 - 0.6) + (0.7 - 0.3)) / 2 / 2)
    assert road(noisy, cells([1, 2, 3, 4]), same, shares=(0.25, 0.5)) == pytest.approx(-good)


@given(st.permutations([4.0, 3.0, 2.0, 1.0]))
@settings(max_examples=24, deadline=None)
def test_no_order_beats_the_true_one(values: list[float]) -> None:
    mine, best = cells(values), cells([4, 3, 2, 1])
    for measure, sign in ((deletion, 1), (insertion, -1)):
        area = [sign * measure(WHITE, one, light, steps=4, baseline="black").area for one in (mine, best)]
        assert area[0] >= area[1] - 1e-12


def test_refused() -> None:
    flat = cells([0.3, 0.3 + 1e-9, 0.3, 0.3])
    assert flat.is_flat
    for measure in (deletion, insertion, erasure, drop_and_rise, road):
        with pytest.raises(MapError, match="flat"):
            measure(WHITE, flat, light)
    with pytest.raises(SpecError, match="steps"):
        deletion(WHITE, cells([1, 2, 3, 4]), light, steps=0)
    with pytest.raises(SpecError, match="bins"):
        erasure(WHITE, cells([1, 2, 3, 4]), light, bins=(1.0,))
    for shares in ((), (0.0,), (0.2, 1.0)):
        with pytest.raises(SpecError, match="shares"):
            road(WHITE, cells([1, 2, 3, 4]), light, shares=shares)
    with pytest.raises(MapError, match="one score per picture"):
        erasure(WHITE, cells([1, 2, 3, 4]), lambda _: np.array([1.0]))


# -- regions -----------------------------------------------------------------------------------------------------------


def test_cells_that_are_no_cells() -> None:
    for labels, values in (
        (COLUMNS, [1.0]),
        (COLUMNS - 2, [1.0] * 4),
        (COLUMNS, [1.0, 2.0, 3.0, np.nan]),
        (COLUMNS, []),
    ):
        with pytest.raises(MapError):
            Cells(labels, np.asarray(values))


def test_pixels_never_seen_never_go() -> None:
    labels = COLUMNS.copy()
    labels[:, 3] = -1
    mine = Cells(labels, np.array([1.0, 2.0, 3.0]))
    assert mine.order().tolist() == [2, 1, 0]
    assert not mine.mask(np.arange(3))[:, 3].any()
    assert mine.mask(np.array([2])).any(axis=0).tolist() == [False, False, True, False]
    assert mine.pixels()[0].tolist() == [1, 2, 3, 0]


def test_cells_of_a_crop_leave_out_what_was_cut() -> None:
    layout = ImageLayout((6, 2), (Tile("base", (1, 2), (1, 0, 5, 2)),))
    found = cells_of(PatchMap((np.array([[1.0, 3.0]]),), layout))
    assert found.labels_hw.tolist() == [[-1, 0, 0, 1, 1, -1]] * 2
    assert found.values[1] == pytest.approx(3 * found.values[0])


def test_cells_of_tiles_are_the_smallest_that_hold_a_pixel() -> None:
    tiles = (Tile("base", (1, 2), (0, 0, 8, 4)), Tile("tiles", (2, 2), (4, 0, 8, 4)))
    values = (np.array([[1.0, 1.0]]), np.array([[0.0, 0.0], [0.0, 5.0]]))
    found = cells_of(PatchMap(values, ImageLayout((8, 4), tiles)))
    assert np.ptp(found.labels_hw[:, :4]) == 0
    assert len(np.unique(found.labels_hw[:, 4:])) == 4
    assert found.order()[0] == found.labels_hw[3, 7]
    left, plain = found.values[found.labels_hw[0, 0]], found.values[found.labels_hw[0, 7]]
    assert left == pytest.approx(plain)  # the base counts below the tiles too


def test_a_picture_smaller_than_its_patches() -> None:
    found = cells_of(
        PatchMap((np.arange(16.0).reshape(4, 4),), ImageLayout((1, 1), (Tile("base", (4, 4), (0, 0, 1, 1)),)))
    )
    assert len(found.values) == 1
    assert found.is_flat


def test_a_hidden_patch_is_no_region() -> None:
    layout = ImageLayout((4, 2), (Tile("base", (1, 2), (0, 0, 4, 2)),))
    found = cells_of(PatchMap((np.array([[5.0, 1.0]]),), layout, visible=(np.array([[False, True]]),)))
    assert found.labels_hw.tolist() == [[-1, -1, 0, 0]] * 2
