"""The quick peak is the peak of the map in pixels, for every kind of tile, and needs no such map."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vlmattn.api import look as look_module
from vlmattn.api.look import Look
from vlmattn.api.peaks import peak_of
from vlmattn.core.errors import MapError
from vlmattn.core.images import load_image
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.grid import PatchMap, to_pixels

KINDS = ("base", "thumbnail", "tiles", "crop")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_it_is_the_peak_of_the_pixel_map(data: st.DataObject) -> None:
    width, height = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    tiles, values = [], []
    for kind in data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3)):
        grid = (data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7)))
        x0, y0 = rng.uniform(-5, width / 2), rng.uniform(-5, height / 2)
        box = (x0, y0, x0 + rng.uniform(1, width + 9), y0 + rng.uniform(1, height + 9))
        tiles.append(Tile(kind, grid, tuple(float(v) for v in box)))
        values.append(rng.integers(0, 5, grid) / 4.0)
    patch_map = PatchMap(tuple(values), ImageLayout((width, height), tuple(tiles)))
    whole = to_pixels(patch_map, merge="mean", kind="density")
    assume(whole.seen.any())
    if whole.is_flat:
        with pytest.raises(MapError, match="flat"):
            peak_of(patch_map)
    else:
        assert peak_of(patch_map) == pytest.approx(whole.peak_xy, abs=1e-6)


def test_a_picture_that_was_not_seen_has_no_peak() -> None:
    layout = ImageLayout((4, 4), (Tile("base", (1, 1), (10.0, 10.0, 20.0, 20.0)),))
    with pytest.raises(MapError, match="there is no peak"):
        peak_of(PatchMap((np.ones((1, 1)),), layout))


def test_cells_out_of_the_attention_window_do_not_count() -> None:
    layout = ImageLayout((6, 2), (Tile("base", (1, 3), (0.0, 0.0, 6.0, 2.0)),))
    hidden = (np.array([[False, True, True]]),)
    patch_map = PatchMap((np.array([[5.0, 2.0, 1.0]]),), layout, visible=hidden)
    assert peak_of(patch_map) == to_pixels(patch_map, kind="density", merge="mean").peak_xy == (3.0, 1.0)


def test_a_peak_makes_no_map_in_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = ImageLayout((6000, 4000), (Tile("base", (24, 24), (0.0, 0.0, 6000.0, 4000.0)),))
    values = np.zeros((24, 24))
    values[3, 7] = 1
    monkeypatch.setattr(look_module, "to_pixels", lambda *_, **__: pytest.fail("a map in pixels was made"))
    look = Look(PatchMap((values,), layout), load_image(np.zeros((2, 2, 3), np.uint8)))
    started = time.process_time()
    assert look.peak_xy == pytest.approx((7.5 * 250, 3.5 * 4000 / 24), abs=1)
    assert time.process_time() - started < 1
