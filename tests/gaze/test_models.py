"""Scanpaths of maps, of chance and of NeVA: against plain loops, and what must hold for any of them."""

from __future__ import annotations

import doctest
import sys
from typing import Any

import numpy as np
import pytest

from vlmattn.core.errors import ImageError, MapError, SpecError
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.gaze import Fixations, Scanpath
from vlmattn.gaze.models import (
    Durations,
    Inhibition,
    Neva,
    centre_scanpath,
    drawn_places,
    itti_koch,
    neva_places,
    other_scanpath,
    place_of,
    places_scanpath,
    random_walk,
    reading_scanpath,
    sampled_scanpath,
    spectral_residual,
    uniform_scanpath,
    winner_take_all,
)
from vlmattn.grid import PatchMap, PixelMap


@pytest.mark.parametrize("name", ["attention", "chance", "reading_order", "timing"])
def test_examples(name: str) -> None:
    result = doctest.testmod(sys.modules[f"vlmattn.gaze.models.{name}"])
    assert result.attempted
    assert not result.failed


def plain_winners(values: Any, count: int, radius: float, recovery: float) -> list[tuple[float, float]]:
    """Winner-take-all pixel by pixel."""
    height, width = values.shape
    level = np.zeros(values.shape)
    found = []
    for _ in range(count):
        best, at = -np.inf, None
        for row in range(height):
            for column in range(width):
                left = values[row, column] * (1 - level[row, column])
                if level[row, column] < 1 and left > best:
                    best, at = left, (row, column)
        if at is None:
            break
        x, y = at[1] + 0.5, at[0] + 0.5
        found.append((x, y))
        for row in range(height):
            for column in range(width):
                on = (column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 <= radius**2
                level[row, column] = max(level[row, column] * (1 - recovery), 1.0 if on else 0.0)
    return found


@pytest.mark.parametrize(("radius", "recovery"), [(2.0, 0.0), (3.5, 0.0), (3.0, 0.3), (2.0, 1.0), (40.0, 0.0)])
def test_winner_take_all_is_that_of_a_plain_loop(radius: float, recovery: float) -> None:
    values = np.random.default_rng(3).random((13, 17))
    path = winner_take_all(values, count=9, inhibition=Inhibition(radius, recovery=recovery))
    assert [tuple(p) for p in path.xy.tolist()] == plain_winners(values, 9, radius, recovery)


def test_a_gaussian_inhibition_is_that_of_its_formula() -> None:
    level = Inhibition(2.0, "gaussian", recovery=0.5).after(np.full((9, 9), 0.4), 4.5, 4.5)
    rows, columns = np.mgrid[:9, :9]
    expected = np.maximum(0.2, np.exp(-((rows - 4) ** 2 + (columns - 4) ** 2) / 8))
    np.testing.assert_allclose(level, expected, atol=1e-12)


def test_a_patch_is_looked_at_in_its_middle_and_a_plateau_too() -> None:
    layout = ImageLayout((60, 40), (Tile("base", (2, 3), (0.0, 0.0, 60.0, 40.0)),))
    patch_map = PatchMap(([[0.0, 1.0, 0.0], [0.0, 0.0, 5.0]],), layout)
    path = winner_take_all(patch_map, count=1)
    assert abs(path.x[0] - 50) <= 10
    assert abs(path.y[0] - 30) <= 10
    assert winner_take_all(np.kron([[0.0, 2.0]], np.ones((4, 6))), count=1).xy.tolist() == [[9.0, 2.0]]


def test_it_may_begin_in_the_middle_and_be_drawn_to_it() -> None:
    values = np.ones((40, 40))
    values[2, 2] = 1.2
    assert winner_take_all(values, count=2, start="centre").xy[0].tolist() == [20.0, 20.0]
    assert winner_take_all(values, count=1).xy[0].tolist() == [2.5, 2.5]
    assert np.hypot(*(winner_take_all(values, count=1, centre=0.2).xy[0] - 20)) < 2


def test_drawn_places_follow_the_map_and_cold_ones_the_winner() -> None:
    rng = np.random.default_rng(0)
    values = np.array([[1.0, 3.0], [0.0, 4.0]])
    places = np.floor(drawn_places(values, 20_000, rng)).astype(int)
    counts = np.zeros((2, 2))
    np.add.at(counts, (places[:, 1], places[:, 0]), 1)
    np.testing.assert_allclose(counts / 20_000, values / 8, atol=0.015)
    cold = [sampled_scanpath(values, count=1, temperature=0.02, rng=rng).xy[0].tolist() for _ in range(50)]
    assert cold == [[1.5, 1.5]] * 50
    warm = [sampled_scanpath(values, count=1, temperature=2.0, rng=rng).xy[0] for _ in range(2000)]
    share = np.mean([tuple(p) == (0.5, 0.5) for p in warm])
    assert abs(share - 1 / (1 + 3**0.5 + 2)) < 0.03


def test_a_short_reach_keeps_saccades_short() -> None:
    values = np.ones((60, 60))
    rng = np.random.default_rng(0)
    some = Inhibition(1.0)
    near = sampled_scanpath(values, count=60, reach_px=4.0, inhibition=some, rng=rng)
    steps = np.hypot(*np.diff(near.xy, axis=0).T)
    assert 3 < np.sqrt((steps**2).mean() / 2) < 5  # the deviation across and down
    far = sampled_scanpath(values, count=60, inhibition=some, rng=rng)
    assert np.hypot(*np.diff(far.xy, axis=0).T).mean() > 3 * steps.mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count"),
        ({"start": "left"}, "start"),
        ({"inhibition": "no"}, "Inhibition"),
        ({"temperature": 0.0}, "temperature"),
        ({"reach_px": -1.0}, "reach_px"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        sampled_scanpath(np.eye(3), **options)


@pytest.mark.parametrize("given", [{"radius_px": 0.0}, {"edge": "square"}, {"recovery": 1.5}])
def test_wrong_inhibitions_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        Inhibition(**given)


# -- times and order ---------------------------------------------------------------------------------------------------


def test_durations_follow_their_model() -> None:
    assert Durations().of(2).tolist() == [0.214, 0.214]
    drawn = Durations("drawn", seconds=0.3, spread=0.4).of(20_000, rng=np.random.default_rng(0))
    assert abs(drawn.mean() - 0.3) < 0.005
    assert abs(np.log(drawn).std() - 0.4) < 0.01
    held = Durations("weight", seconds=0.2, shortest=0.1).of(3, weights=[0.0, 1.0, 2.0])
    assert held.tolist() == [0.1, 0.2, 0.4]
    assert Durations(saccade=0.05).starts(np.array([0.2, 0.3, 0.1])).round(6).tolist() == [0.0, 0.25, 0.6]
    for wrong in ({"kind": "none"}, {"seconds": 0.0}, {"spread": -1.0}, {"saccade": -0.1}):
        with pytest.raises(SpecError):
            Durations(**wrong)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="weights"):
        Durations("weight").of(2, weights=[1.0])


def test_places_in_a_row_that_are_one_make_one_longer_fixation() -> None:
    places = [(5.0, 5.0), (5.2, 5.0), (9.0, 9.0), (5.0, 5.0)]
    path = places_scanpath(places, (10, 10), durations=Durations("weight", seconds=0.3))
    assert path.xy.tolist() == [[5.0, 5.0], [9.0, 9.0], [5.0, 5.0]]
    np.testing.assert_allclose(np.asarray(path.duration), [0.45, 0.225, 0.225])
    assert len(places_scanpath(places, (10, 10), merge_px=0.0)) == 4


def test_centroid_and_peak_and_flat_maps() -> None:
    seen = np.ones((2, 4), bool)
    seen[:, 0] = False
    one = PixelMap(np.array([[9.0, 1.0, 1.0, 3.0], [9.0, 1.0, 1.0, 2.0]]), seen)
    assert place_of(one) == (3.5, 0.5)
    x, y = place_of(one, "centroid") or (0, 0)
    assert (x, round(y, 6)) == (3.5, round((2 * 0.5 + 1 * 1.5) / 3, 6))
    flat = PixelMap(np.ones((2, 4)), np.ones((2, 4), bool))
    assert place_of(flat) is None
    path = reading_scanpath([one, flat, one])
    assert (len(path), path.trial["flat_maps"]) == (1, 1)
    with pytest.raises(MapError, match="at least one"):
        reading_scanpath([])
    with pytest.raises(MapError, match="several sizes"):
        reading_scanpath([one, PixelMap(np.eye(3), np.ones((3, 3), bool))])
    with pytest.raises(SpecError, match="peak"):
        place_of(one, "top")  # type: ignore[arg-type]


# -- chance ------------------------------------------------------------------------------------------------------------


def test_chance_is_where_it_should_be() -> None:
    rng = np.random.default_rng(0)
    wh = (200, 100)
    even = uniform_scanpath(wh, count=5000, rng=rng)
    assert np.abs(even.xy.mean(axis=0) - (100, 50)).max() < 3
    assert np.abs(even.xy.std(axis=0) - np.array(wh) / 12**0.5).max() < 2
    middle = centre_scanpath(wh, count=5000, rng=rng, width=0.1)
    assert np.abs(middle.xy.std(axis=0) - (20, 10)).max() < 1
    corner = np.zeros((100, 200))
    corner[3, 7] = 1.0
    assert np.floor(centre_scanpath(wh, count=9, rng=rng, density=corner).xy).tolist() == [[7.0, 3.0]] * 9
    walk = random_walk(wh, count=3000, rng=rng, step=0.02)
    assert walk.on_image().all()
    assert walk.xy[0].tolist() == [100.0, 50.0]
    steps = np.diff(walk.xy, axis=0)
    assert abs(steps.std() / (0.02 * np.hypot(*wh)) - 1) < 0.05
    with pytest.raises(SpecError, match="step"):
        random_walk(wh, rng=rng, step=0.0)


def test_another_pictures_scanpath_is_moved_to_this_size() -> None:
    one = Scanpath([10.0, 90.0], [10.0, 40.0], (100, 50), duration=[0.1, 0.2], image="b", subject="s")
    looked = Fixations((one, Scanpath([1.0], [1.0], (10, 10), image="a")))
    path = other_scanpath(looked, "a", (10, 10), rng=np.random.default_rng(0), least=2)
    assert path.xy.tolist() == [[1.0, 2.0], [9.0, 8.0]]
    assert (path.trial["from_image"], path.trial["from_subject"]) == ("b", "s")
    with pytest.raises(SpecError, match="no other picture"):
        other_scanpath(looked, "b", (10, 10), rng=np.random.default_rng(0), least=2)


# -- saliency ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [itti_koch, spectral_residual])
def test_the_odd_one_out_stands_out(make: Any) -> None:
    pixels = np.full((120, 160, 3), 120, np.uint8)
    for row in range(20, 110, 30):
        for column in range(20, 150, 30):
            pixels[row : row + 8, column : column + 8] = (40, 160, 60)
    pixels[50:58, 110:118] = (214, 40, 40)
    values = make(pixels)
    assert values.shape == (120, 160)
    assert abs(values.sum() - 1) < 1e-6
    assert values.min() >= 0
    if make is itti_koch:
        row, column = np.unravel_index(values.argmax(), values.shape)
        assert np.hypot(row - 54, column - 114) < 12


def test_a_blank_picture_is_even_and_a_wrong_one_refused() -> None:
    assert np.ptp(itti_koch(np.full((30, 40, 3), 7, np.uint8))) < 1e-12
    with pytest.raises(ImageError):
        itti_koch(np.zeros((3, 3)))  # type: ignore[arg-type]


# -- NeVA --------------------------------------------------------------------------------------------------------------


def plain_neva(pixels: Any, loss: Any, s: Neva, rng: np.random.Generator) -> Any:
    """One picture, one start: NevaClip's loop as published, in plain steps."""
    import torch

    side = pixels.shape[-1]
    sigma = s.blur * side
    reach = round(2 * sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = np.outer(weights, weights) / weights.sum() ** 2
    held = np.pad(pixels[0].numpy(), ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
    blurred = np.empty_like(pixels[0].numpy())
    for row in range(side):
        for column in range(side):
            part = held[:, row : row + 2 * reach + 1, column : column + 2 * reach + 1]
            blurred[:, row, column] = (part * kernel).sum(axis=(1, 2))
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, side, dtype=torch.float64)] * 2, indexing="ij"), -1)
    blur, memory, places = torch.tensor(blurred) - pixels[0], torch.zeros(side, side, dtype=torch.float64), []
    for _ in range(s.fixations):
        p, best, lowest = np.zeros(2), np.zeros(2), np.inf
        for _ in range(s.steps):
            place = torch.tensor(p, requires_grad=True)
            sharp = memory + torch.exp(-((grid - place) ** 2).sum(-1) / s.width)
            value = loss((pixels[0] + blur * (1 - sharp).clamp(0, 1))[None], torch.zeros(1, dtype=torch.long))
            value.sum().backward()
            stepped = p - s.rate * np.sign(np.asarray(place.grad))
            if s.restart == "random":
                elsewhere = rng.uniform(-1, 1, (1, 2))[0]
            else:
                elsewhere = stepped + rng.uniform(-s.rate / 2, s.rate / 2, (1, 2))[0]
            if value.item() < lowest:
                lowest, best, p = value.item(), stepped if s.store == "stepped" else p, stepped
            else:
                p = elsewhere
        memory = s.forgetting * memory + torch.exp(-((grid - torch.tensor(best)) ** 2).sum(-1) / s.width)
        places.append(best)
    return np.array(places)


@pytest.mark.parametrize(("forgetting", "store", "restart"), [(0.0, "stepped", "random"), (0.7, "evaluated", "jitter")])
def test_the_published_search_is_that_of_a_plain_loop(forgetting: float, store: Any, restart: Any) -> None:
    import torch

    pixels = torch.zeros(1, 1, 17, 17, dtype=torch.float64)
    for row, column, height in ((3, 12, 1.0), (13, 4, 0.8), (9, 9, 0.5)):
        pixels[0, 0, row, column] = height
    settings = Neva(3, steps=7, candidates=1, followed=1, restart=restart, forgetting=forgetting, store=store,
                    blur=0.1, width=0.2, inside=False)  # fmt: skip
    found = neva_places(bright, pixels, settings, seeds=[5])
    np.testing.assert_allclose(
        found.places[0], plain_neva(pixels, bright, settings, np.random.default_rng(5)), atol=1e-9
    )
    assert len(np.unique(found.places[0].round(6), axis=0)) == 3


def bright(seen: Any, _whose: Any) -> Any:
    """Less the sharper the bright spots are seen: the lowest where the fovea is on one."""
    return -(seen**2).mean(dim=(1, 2, 3))


def test_the_fovea_goes_to_what_serves_the_aim_and_batches_do_not_matter() -> None:
    import torch

    pixels = torch.zeros(3, 1, 41, 41, dtype=torch.float64)
    spots = [(8, 30), (33, 10), (20, 35)]
    for n, (row, column) in enumerate(spots):
        pixels[n, 0, row - 1 : row + 2, column - 1 : column + 2] = 1.0
    found = neva_places(bright, pixels, Neva(2), seeds=[7, 8, 9])
    for n, spot in enumerate(spots):
        at = (found.places[n, 0] + 1) / 2 * 40
        assert np.hypot(*(at - spot)) < 6
    alone = neva_places(bright, pixels[1:2], Neva(2), seeds=[8])
    np.testing.assert_allclose(alone.places[0], found.places[1], atol=1e-12)
    assert (found.loss[:, 1] <= found.loss[:, 0] + 1e-12).all()


def test_places_stay_within_their_limits() -> None:
    import torch

    pixels = torch.rand(1, 1, 21, 21, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    limits = np.array([[[-0.5, -1.0], [0.5, 1.0]]])
    found = neva_places(bright, pixels, Neva(4), seeds=[1], limits=limits)
    assert np.abs(found.places[..., 0]).max() <= 0.5
    with pytest.raises(SpecError, match="seeds"):
        neva_places(bright, pixels, Neva(1), seeds=[1, 2])


@pytest.mark.parametrize(
    "wrong",
    [
        {"fixations": 0},
        {"steps": True},
        {"rate": 0.0},
        {"followed": 99},
        {"forgetting": 2.0},
        {"restart": "never"},
        {"store": "none"},
        {"blur": -1.0},
    ],
)
def test_wrong_searches_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        Neva(**wrong)
