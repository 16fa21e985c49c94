"""Measures of maps: against plain computations, and what must hold of any map and any fixations."""

from __future__ import annotations

import doctest
import itertools
import math
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage, stats

from vlmattn import gaze as vg
from vlmattn.core.errors import MapError, SpecError
from vlmattn.gaze import MAP_METRICS, Fixations, HeldMap, Pictures, Scanpath
from vlmattn.gaze.compiled import compiled
from vlmattn.gaze.density import fourier_blur, gaussian, sigma_of_cutoff
from vlmattn.gaze.measures import MapCase
from vlmattn.gaze.ranks import KERNELS, counts_below
from vlmattn.grid import PixelMap

SHAPE = st.tuples(st.integers(2, 9), st.integers(2, 9))
# Whole numbers, so that ties are common and nothing is lost in rounding.
MAPS = SHAPE.flatmap(lambda s: arrays(np.float64, s, elements=st.integers(0, 12).map(float)))


@st.composite
def cases(draw: Any, fewest: int = 1) -> tuple[np.ndarray, np.ndarray]:
    values = draw(MAPS)
    h, w = values.shape
    points = draw(st.lists(st.tuples(st.integers(0, w - 1), st.integers(0, h - 1)), min_size=fewest, max_size=6))
    return values, np.asarray(points, float).reshape(-1, 2) + draw(st.sampled_from([0.0, 0.5, 0.99]))


@pytest.mark.parametrize("name", ["roc", "map_metrics", "density", "baselines", "scores"])
def test_examples(name: str) -> None:
    result = doctest.testmod(sys.modules[f"vlmattn.gaze.{name}"])
    assert result.attempted
    assert not result.failed


def at(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.asarray([values[int(y), int(x)] for x, y in points])


def plain_auc(positives: np.ndarray, negatives: np.ndarray) -> float:
    wins = [(p > q) + 0.5 * (p == q) for p in positives for q in negatives]
    return float(np.mean(wins))


@given(cases())
@settings(max_examples=40, deadline=None)
def test_exact_auc_counts_pairs(case: tuple) -> None:
    values, points = case
    assert vg.auc(values, points) == pytest.approx(plain_auc(at(values, points), values.ravel()))
    fixated = np.zeros(values.shape, bool)
    for x, y in points:
        fixated[int(y), int(x)] = True
    if not fixated.all():
        expected = plain_auc(at(values, points), values[~fixated])
        assert vg.auc(values, points, negatives="unfixated") == pytest.approx(expected)
    else:
        assert math.isnan(vg.auc(values, points, negatives="unfixated"))
    others = points[::-1, :] * 0 + 1.5
    assert vg.auc(values, points, negatives=others) == pytest.approx(plain_auc(at(values, points), at(values, others)))
    assert vg.auc_each(values, points).mean() == pytest.approx(vg.auc(values, points))


@given(cases())
@settings(max_examples=40, deadline=None)
def test_auc_takes_the_order_only(case: tuple) -> None:
    values, points = case
    for grown in (values * 3 - 7, np.exp(values), values**3):
        for measure in (vg.auc, vg.auc_judd):
            np.testing.assert_allclose(measure(grown, points), measure(values, points), atol=1e-12)
    np.testing.assert_allclose(vg.auc(-values, points), 1 - vg.auc(values, points), atol=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_judd_is_the_exact_area_and_half_a_step(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.permutation(60).reshape(6, 10).astype(float)  # no ties
    pixels = rng.choice(60, n, replace=False)
    points = np.column_stack([pixels % 10, pixels // 10])
    lowest = values.ravel()[pixels].min()
    false_alarms = (np.delete(values.ravel(), pixels) > lowest).mean()
    expected = vg.auc(values, points, negatives="unfixated") + false_alarms / (2 * n)
    assert vg.auc_judd(values, points) == pytest.approx(expected)
    # A fixation that is repeated changes nothing there.
    assert vg.auc_judd(values, np.concatenate([points, points[:1]])) == pytest.approx(expected)


def plain_stepped(positives: np.ndarray, negatives: np.ndarray, weights: np.ndarray, levels: np.ndarray) -> float:
    points = [(0.0, 0.0)]
    for level in sorted(levels, reverse=True):
        points.append((weights[negatives >= level].sum() / weights.sum(), (positives >= level).mean()))
    points.append((1.0, 1.0))
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_stepped_areas(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, n = rng.random((6, 8)), int(rng.integers(2, 9))
    pixels = rng.integers(0, 48, n)
    others = rng.integers(0, 48, 30)
    spread = ((values - values.min()) / np.ptp(values)).ravel()
    once = np.unique(pixels)
    if len(once) > 1:
        drawn = rng.integers(0, 48, (3, len(once)))
        expected = []
        for row in drawn:
            top = max(spread[once].max(), spread[row].max())
            levels = np.array([k * 0.1 for k in range(11) if k * 0.1 <= top + 1e-12])
            expected.append(plain_stepped(spread[once], spread[row], np.ones(len(row)), levels))
        assert vg.auc_borji(values, pixels, drawn=drawn) == pytest.approx(np.mean(expected))
    free, counts = np.unique(others[~np.isin(others, pixels)], return_counts=True)
    if len(free):
        top = max(spread[pixels].max(), spread[free].max())
        levels = np.arange(0, top, 0.01)
        for variant, weights in (("salicon", counts.astype(float)), ("gazexplain", np.ones(len(free)))):
            expected_area = plain_stepped(spread[pixels], spread[free], weights, levels)
            assert vg.auc_shuffled(values, pixels, others, variant=variant) == pytest.approx(expected_area)


def test_draws_come_from_the_generator() -> None:
    rng = np.random.default_rng(0)
    values, pixels, others = rng.random((9, 9)), rng.integers(0, 81, 12), rng.integers(0, 81, 40)
    runs = {
        "borji": lambda g: vg.auc_borji(values, pixels, rng=g),
        "shuffled": lambda g: vg.auc_shuffled(values, pixels, others, variant="mit", rng=g),
        "salicon": lambda g: vg.auc_salicon(values, pixels, rng=g),
        "judd": lambda g: vg.auc_judd(np.round(values), pixels, jitter=g or np.random.default_rng(0)),
    }
    for name, run in runs.items():
        one, same, another = (run(np.random.default_rng(s)) for s in (1, 1, 2))
        assert one == same, name
        assert one != another, name
        assert run(None) == run(np.random.default_rng(0)), name
    assert runs["salicon"](None) == pytest.approx(vg.auc(values, pixels), abs=0.01)
    assert runs["judd"](None) > vg.auc_judd(np.round(values), pixels)


@given(cases(), st.floats(0.1, 50), st.floats(-100, 100))
@settings(max_examples=40, deadline=None)
def test_nss_takes_no_scale(case: tuple, factor: float, shift: float) -> None:
    values, points = case
    for variant in ("pysaliency", "mit", "hat"):
        one, other = (vg.nss(m, points, variant=variant) for m in (values, values * factor + shift))
        assert one == pytest.approx(other, nan_ok=True)
    if np.ptp(values):
        expected = np.mean([(v - values.mean()) / values.std() for v in at(values, points)])
        assert vg.nss(values, points) == pytest.approx(expected)
        assert vg.nss(values, points, variant="hat") == pytest.approx(
            expected * np.sqrt((values.size - 1) / values.size)
        )


@given(MAPS)
@settings(max_examples=40, deadline=None)
def test_a_map_agrees_best_with_itself(values: np.ndarray) -> None:
    rng = np.random.default_rng(int(values.sum()))
    other = rng.permutation(values.ravel()).reshape(values.shape)
    for variant in ("pysaliency", "mit"):
        if np.ptp(values):
            assert vg.cc(values, values, variant=variant) == pytest.approx(1)
            assert vg.sim(values, values, variant=variant) == pytest.approx(1)
            assert -1 <= vg.cc(values, other, variant=variant) <= 1
            assert 0 <= vg.sim(values, other, variant=variant) <= 1 + 1e-12
        assert vg.kl(values, values, variant=variant) == pytest.approx(0, abs=1e-9)
        assert vg.kl(values, other, variant=variant) >= -1e-9


@given(MAPS, st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_against_scipy(values: np.ndarray, seed: int) -> None:
    density = np.random.default_rng(seed).random(values.shape)
    if np.ptp(values):
        expected = stats.pearsonr(values.ravel(), density.ravel()).statistic
        assert vg.cc(values, density) == pytest.approx(expected, abs=1e-9)
        assert vg.cc(density, values) == pytest.approx(expected, abs=1e-9)
    p, q = values + 1, density
    assert vg.kl(p, q) == pytest.approx(stats.entropy(q.ravel(), p.ravel()), abs=1e-9)
    both = np.minimum(p / p.sum(), q / q.sum()).sum()
    assert vg.sim(p, q) == pytest.approx(both)
    assert vg.sim(q, p) == pytest.approx(both)


@given(MAPS)
@settings(max_examples=40, deadline=None)
def test_mirrored_pictures_score_alike(values: np.ndarray) -> None:
    h, w = values.shape
    rng = np.random.default_rng(h * 10 + w)
    points = rng.uniform(0, (w, h), (5, 2))
    mirrored = np.column_stack([w - points[:, 0], points[:, 1]])
    for measure in (vg.auc, vg.auc_judd, vg.nss):
        np.testing.assert_allclose(measure(values[:, ::-1], mirrored), measure(values, points), atol=1e-12)
    # Rows and columns are told apart.
    for measure in (vg.auc, vg.nss):
        np.testing.assert_allclose(measure(values.T, points[:, ::-1]), measure(values, points), atol=1e-12)


@given(cases())
@settings(max_examples=40, deadline=None)
def test_information_gain(case: tuple) -> None:
    values, points = case
    density = values + 1
    n = density.size
    expected = np.mean(np.log2(at(density, points) / density.sum() * n))
    assert vg.information_gain(density, points) == pytest.approx(expected)
    assert vg.information_gain(density, points, density) == pytest.approx(0)
    assert vg.information_gain(3 * density, points) == pytest.approx(expected)
    # Over another map: gains over uniform differ by that map's own.
    base = np.random.default_rng(0).random(values.shape) + 0.1
    difference = vg.information_gain(density, points) - vg.information_gain(base, points)
    assert vg.information_gain(density, points, base) == pytest.approx(difference)
    mixed = 0.75 * density / density.sum() + 0.25 / n
    assert vg.information_gain(density, points, mix=0.25) == pytest.approx(vg.information_gain(mixed, points))


def test_zeros_of_the_map() -> None:
    values = np.array([[0.0, 1.0], [1.0, 2.0]])
    assert vg.information_gain(values, [(0.5, 0.5)]) == -math.inf
    assert math.isfinite(vg.information_gain(values, [(0.5, 0.5)], variant="hat"))
    assert math.isfinite(vg.information_gain(values, [(0.5, 0.5)], mix=0.01))
    gold = np.array([[1.0, 0.0], [0.0, 0.0]])
    assert vg.kl(values, gold) > vg.kl(values, gold, variant="mit") > vg.kl(values, gold, variant="mit", mix=0.01) > 1
    assert vg.kl(values, gold, epsilon=1e-9) < vg.kl(values, gold)


@pytest.mark.parametrize("name", list(MAP_METRICS))
def test_every_measure_says_what_it_does(name: str) -> None:
    metric, rng = MAP_METRICS[name], np.random.default_rng(3)
    density = HeldMap(gaussian(rng.random((12, 16)), 1.5))
    gone = MapCase(HeldMap(rng.random((12, 16))), np.zeros(0, np.int64), (0,), density, None, np.arange(9))
    assert math.isnan(metric(gone))
    values, places = [], rng.choice(192, 40, p=density.flat / density.total)
    for held in (density, HeldMap(rng.random((12, 16))), HeldMap(np.full((12, 16), 2.0))):
        case = MapCase(held, places, (0,), density, None, rng.integers(0, 192, 300))
        values.append(metric(case))
    known, random, constant = values
    assert metric.lowest <= known <= metric.highest
    assert (known > random) if metric.better == "higher" else (known < random)
    expected = {"0.5": 0.5, "0": 0.0}.get(metric.constant)
    if expected is not None:
        assert constant == pytest.approx(expected)
    assert math.isnan(constant) == (metric.constant == "NaN")
    if metric.constant == "below 0.5":
        assert constant < 0.5
    if metric.constant == "about 0.5":
        assert constant == pytest.approx(0.5, abs=0.15)
    chance = [
        metric(MapCase(HeldMap(rng.random((12, 16))), places, (0,), density, None, np.arange(192))) for _ in range(60)
    ]
    if metric.chance is not None:
        assert np.mean(chance) == pytest.approx(metric.chance, abs=0.04)


@pytest.mark.parametrize("need", ["density", "others"])
def test_what_a_measure_needs_must_be_there(need: str) -> None:
    name = {"density": "cc[pysaliency]", "others": "sauc[exact]"}[need]
    with pytest.raises(SpecError, match=need[:5] if need == "density" else "other pictures"):
        MAP_METRICS[name](MapCase(HeldMap(np.eye(3)), np.array([1])))


BAD = [np.zeros((0, 3)), np.zeros(3), [[math.nan, 1.0]], [[math.inf, 1.0]], [["a"]], [[1.0], [1.0, 2.0]]]


@pytest.mark.parametrize("values", BAD)
@pytest.mark.parametrize(
    "measure",
    [vg.auc, vg.auc_judd, vg.auc_borji, vg.nss, vg.information_gain, lambda m, p: vg.cc(m, [[1.0]]),
     lambda m, p: vg.auc_shuffled(m, p, p)],
)  # fmt: skip
def test_maps_that_are_none(values: Any, measure: Any) -> None:
    with pytest.raises(MapError):
        measure(values, [(0.5, 0.5)])


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([(math.nan, 1.0)], "finite points"),
        ([1.0, 2.0, 3.0], "shape"),
        ([[1.0, 2.0, 3.0]], "shape"),
        (np.array([99]), "row by row"),
        (Scanpath([1.0], [1.0], (4, 4)), "3x3 pixels, the picture that was looked at 4x4"),
        (Fixations((Scanpath([1.0], [1.0], (3, 3), image="a"), Scanpath([1.0], [1.0], (3, 3), image="b"))), "several"),
    ],
)
def test_fixations_that_are_none(points: Any, message: str) -> None:
    with pytest.raises(MapError, match=message):
        vg.nss(np.eye(3), points)


@pytest.mark.parametrize(
    "call",
    [
        lambda m, p: vg.auc(m, p, negatives="all"),
        lambda m, p: vg.auc(m, p, thresholds="some"),
        lambda m, p: vg.auc_judd(m, p, variant="x"),
        lambda m, p: vg.auc_borji(m, p, splits=0),
        lambda m, p: vg.auc_borji(m, p, step=0),
        lambda m, p: vg.auc_borji(m, p, drawn=[[99, 1]]),
        lambda m, p: vg.auc_borji(m, p, drawn=[0.5]),
        lambda m, p: vg.auc_shuffled(m, p, p, variant="x"),
        lambda m, p: vg.nss(m, p, variant="x"),
        lambda m, p: vg.cc(m, m, variant="x"),
        lambda m, p: vg.sim(m, m, variant="x"),
        lambda m, p: vg.kl(m, m, variant="x"),
        lambda m, p: vg.kl(m, m, epsilon=0),
        lambda m, p: vg.kl(m, m, mix=1),
        lambda m, p: vg.information_gain(m, p, variant="x"),
        lambda m, p: vg.information_gain(m, p, mix=-1),
        lambda m, p: vg.conditional_auc([m], p, variant="x"),
        lambda m, p: vg.fixation_density(p, (3, 3), blur="x"),
        lambda m, p: vg.fixation_density(p, (3, 3)),
        lambda m, p: vg.fixation_density(p),
        lambda m, p: vg.fixation_density(p, (3, 3), sigma=-1),
        lambda m, p: vg.fixation_density(p, (3, 3), sigma=1, weight="duration"),
        lambda m, p: vg.fixation_density(p, (3, 3), sigma=1, weight="x"),
        lambda m, p: vg.centre_map((3, 3), width=0),
    ],
)
def test_options_that_are_none(call: Any) -> None:
    points = [(0.5, 0.5), (1.5, 1.5)]
    with pytest.raises(SpecError):
        call(np.eye(3), points)


def test_other_things_that_are_refused() -> None:
    with pytest.raises(MapError, match="one shape"):
        vg.cc(np.eye(3), np.eye(2))
    with pytest.raises(MapError, match="lowest value is -1"):
        vg.information_gain(np.eye(3) - 1, [(0.5, 0.5)])
    with pytest.raises(MapError, match="for each of one or more maps"):
        vg.fixation_kl([np.eye(3)], [])
    with pytest.raises(MapError, match="kernel"):
        vg.resized_map(np.eye(3), (6, 6), kernel="area")


def test_fixations_off_the_picture_do_not_count() -> None:
    values = np.arange(12.0).reshape(3, 4)
    on = [(0.0, 0.0), (3.99, 2.99)]
    with_off = [*on, (4.0, 1.0), (-0.01, 1.0), (1.0, 3.0)]
    for measure in (vg.auc, vg.auc_judd, vg.nss, vg.information_gain):
        assert measure(values + 1, with_off) == measure(values + 1, on)
    assert math.isnan(vg.nss(values, with_off[2:]))
    assert (vg.fixation_density(with_off, (4, 3), sigma=1) == vg.fixation_density(on, (4, 3), sigma=1)).all()


def test_unseen_pixels_get_the_lowest_seen_value() -> None:
    values = np.array([[5.0, 3.0], [9.0, 4.0]])
    seen = np.array([[True, True], [False, True]])
    held = vg.held_map(PixelMap(np.where(seen, values, 0), seen))
    assert held.values.tolist() == [[5, 3], [3, 4]]
    with pytest.raises(MapError, match="no pixel"):
        vg.held_map(PixelMap(np.zeros((2, 2)), np.zeros((2, 2), bool)))


@given(st.integers(0, 2**32 - 1), st.sampled_from(["smooth", "skewed", "quantised", "constant", "huge", "tiny", "few"]))
@settings(max_examples=40, deadline=None)
def test_counting_without_sorting(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    values = rng.random(20000)
    values = {
        "smooth": values,
        "skewed": values**40,
        "quantised": np.round(values * 20),
        "constant": np.full(20000, 0.3),
        "huge": (values - 0.5) * 1.7e308 * 1.9,
        "tiny": values * 1e-310,
        "few": values[:50],
    }[kind]
    levels = np.unique(
        np.concatenate([rng.choice(values, 30), [values.min() - 1, values.max() + 1, np.median(values)]])
    )
    with np.errstate(over="ignore"):
        below, equal = counts_below(values, levels)
    assert below.tolist() == [(values < level).sum() for level in levels]
    assert equal.tolist() == [(values == level).sum() for level in levels]


@pytest.mark.parametrize("border", ["nearest", "reflect"])
@pytest.mark.parametrize("points", [3, 4000])
def test_gaussians_are_scipys(border: str, points: int) -> None:
    rng = np.random.default_rng(points)
    counts = np.bincount(rng.integers(0, 50 * 70, points), minlength=3500).reshape(50, 70).astype(float)
    for sigma in (0.4, 3.0, 30.0):
        expected = ndimage.gaussian_filter(counts, sigma, mode=border)
        np.testing.assert_allclose(gaussian(counts, sigma, border), expected, atol=1e-12)
    assert (gaussian(counts, 0) == counts).all()


def test_the_fourier_blur_is_a_gaussian_of_that_width() -> None:
    counts = np.zeros((200, 256))
    counts[100, 120] = 1
    blurred = fourier_blur(counts, 8.0)
    sigma = sigma_of_cutoff(8.0, 256)
    np.testing.assert_allclose(blurred, ndimage.gaussian_filter(counts, sigma, truncate=8), atol=1e-6)
    # Half height at the cutoff: a wave of 8 cycles keeps half its height.
    wave = np.cos(2 * np.pi * 8 * np.arange(256) / 256)[None] * np.ones((256, 1))
    np.testing.assert_allclose(fourier_blur(wave, 8.0), wave / 2, atol=1e-9)


def test_densities() -> None:
    screen = vg.Screen(4.0)
    path = Scanpath([10.0, 10.0, 30.0], [10.0, 10.0, 20.0], (40, 30), duration=[0.1, 0.3, 0.6], screen=screen)
    density = vg.fixation_density(path)
    assert density.sum() == pytest.approx(1)
    np.testing.assert_allclose(density, vg.fixation_density(path.xy, (40, 30), sigma=4.0))
    weighted = vg.fixation_density(path, sigma=0, weight="duration")
    assert weighted[10, 10] == pytest.approx(0.4)
    assert weighted[20, 30] == pytest.approx(0.6)
    once = vg.fixation_density(path, sigma=0, blur="mit")
    assert once[10, 10] == once[20, 30] == 0.5
    assert (vg.fixation_density(np.zeros((0, 2)), (4, 2), sigma=1) == 1 / 8).all()
    assert vg.fixation_density(path, blur="mit").min() >= 0
    both = Fixations((path, path))
    np.testing.assert_allclose(vg.fixation_density(both, sigma=2), vg.fixation_density(path, sigma=2))


def test_conditional_measures_go_fixation_by_fixation() -> None:
    rng = np.random.default_rng(0)
    maps, points = rng.random((3, 5, 6)), np.array([(0.5, 0.5), (5.5, 4.5), (9.0, 0.0)])
    got = vg.conditional_nss(maps, points)
    expected = [(m[int(y), int(x)] - m.mean()) / m.std(ddof=1) for m, (x, y) in zip(maps[:2], points[:2], strict=True)]
    np.testing.assert_allclose(got[:2], expected)
    for measure in (vg.conditional_nss, vg.conditional_auc, vg.conditional_ig):
        assert np.isnan(measure(maps, points)).tolist() == [False, False, True]
    hat, plain = (vg.conditional_auc(maps[:2], points[:2], variant=v) for v in ("hat", "pysaliency"))
    # Without ties: 1 - higher / (N - 1) / 2, where plain = (lower + 0.5) / N.
    np.testing.assert_allclose(hat, 1 - (30 - 0.5 - plain * 30) / 29 / 2)
    assert (vg.conditional_auc([np.ones((2, 2))], [(0.5, 0.5)], variant="hat")) == 0.5
    for wrong in (maps[:2], [*maps, maps[0]]):
        with pytest.raises(MapError, match="fixations"):
            vg.conditional_nss(wrong, points)
    with pytest.raises(MapError, match="resize"):
        vg.conditional_nss(maps, Scanpath(points[:, 0], points[:, 1], (7, 5)))


def people(seed: int = 0, images: int = 3, subjects: int = 4) -> Fixations:
    rng = np.random.default_rng(seed)
    paths = []
    for i in range(images):
        wh = (40, 30) if i else (60, 45)  # one picture has another size
        middle = rng.uniform(0.2, 0.8, 2)
        for s in range(subjects):
            points = np.clip(rng.normal(middle, 0.08, (6, 2)), 0, 0.99) * wh
            paths.append(Scanpath.from_points(points, wh, image=f"i{i}", subject=f"s{s}"))
    return Fixations(tuple(paths))


def test_scores_are_what_the_functions_say() -> None:
    looked, rng = people(), np.random.default_rng(1)
    pictures = Pictures(looked, sigma=2.0, baseline="others")
    maps = {name: rng.random(pictures.size(name)[::-1]) for name in pictures.images}
    scores = vg.score_maps(maps, pictures, metrics=list(MAP_METRICS))
    for name, group in looked.by_image().items():
        others = vg.other_points(looked, name, pictures.size(name))
        row = dict(zip(scores.metrics, scores.values[scores.images.index(name)], strict=True))
        assert row["auc[uniform]"] == vg.auc(maps[name], group)
        assert row["sauc[exact]"] == pytest.approx(vg.auc_shuffled(maps[name], group, others))
        density = vg.fixation_density(group, sigma=2.0)
        assert row["cc[pysaliency]"] == pytest.approx(vg.cc(maps[name], density))
        base = vg.centre_bias(looked, name, pictures.size(name), sigma=2.0)
        assert row["ig[pysaliency]"] == pytest.approx(vg.information_gain(maps[name], group, base))
    only = vg.score_maps(maps, pictures, metrics=["auc_borji[mit]"])  # draws do not depend on what else is measured
    assert (only.values[:, 0] == scores.of("auc_borji[mit]")).all()
    assert scores.mean("nss[mit]") == pytest.approx(np.mean(scores.of("nss[mit]")))
    assert list(scores.to_columns())[:2] == ["image", "fixations"]
    assert scores.fixations.tolist() == [24, 24, 24]


def test_people_are_above_the_centre_and_that_above_chance() -> None:
    pictures = Pictures(people(images=6), sigma=2.0)
    rows = {kind: vg.score_baseline(pictures, kind) for kind in ("uniform", "centre", "others", "people")}
    for name in ("auc[uniform]", "nss[pysaliency]", "ig[1% uniform]"):
        means = [rows[kind].mean(name) for kind in ("uniform", "centre", "people")]
        assert means == sorted(means)
    assert rows["uniform"].mean("auc[uniform]") == 0.5
    told = rows["centre"].normalised(rows["uniform"], rows["people"])
    assert 0 < told["nss[pysaliency]"] < 1
    assert rows["people"].normalised(rows["uniform"], rows["people"])["auc[uniform]"] == pytest.approx(1)


def test_leaving_one_out_leaves_it_out() -> None:
    looked = people(images=1, subjects=3)
    seen = vg.leave_one_out(looked, lambda density, own: (density, own), sigma=0.0, share=0.0)
    for name, (density, own) in seen.items():
        assert own.subjects == (name,)
        rest = looked.select(lambda p, name=name: p.subject != name)
        np.testing.assert_allclose(density, vg.fixation_density(rest, sigma=0))
    assert vg.leave_one_out(looked.select(subject="s1"), lambda *_: 1.0, sigma=1.0) == {}
    halves = vg.split_half(looked, lambda density, own: float(len(own.subjects)), sigma=1.0, splits=4)
    assert halves.tolist() == [1.0] * 4  # of three, two make the density
    apart = vg.split_half(looked, lambda d, own: vg.nss(d, own), sigma=1.0, splits=4, rng=np.random.default_rng(1))
    assert len(set(apart.tolist())) > 1
    assert np.isnan(vg.split_half(looked.select(subject="s1"), vg.nss, sigma=1.0, splits=2)).all()
    with pytest.raises(SpecError, match="several pictures"):
        vg.leave_one_out(people(), vg.nss, sigma=1.0)
    nameless = Fixations(tuple(Scanpath([1.0], [1.0], (9, 9), image="a") for _ in range(2)))
    with pytest.raises(SpecError, match="without subject"):
        vg.leave_one_out(nameless, vg.nss, sigma=1.0)
    with pytest.raises(SpecError, match="splits"):
        vg.split_half(looked, vg.nss, sigma=1.0, splits=0)
    with pytest.raises(SpecError, match="no other picture"):
        vg.centre_bias(looked, "i0", (60, 45), sigma=1.0)


def test_what_score_maps_refuses() -> None:
    pictures = Pictures(people(), sigma=1.0)
    with pytest.raises(SpecError, match="nobody looked at 'x'"):
        vg.score_maps({"x": np.eye(3)}, pictures)
    with pytest.raises(MapError, match="resized_map"):
        vg.score_maps({"i0": np.eye(3)}, pictures)
    for metrics in (["auc"], "auc[uniform]"):
        with pytest.raises(SpecError, match="metrics must be a list"):
            vg.score_maps({}, pictures, metrics=metrics)
    scores = vg.score_maps([], pictures)
    assert scores.values.shape == (0, len(vg.DEFAULT_METRICS))
    assert math.isnan(scores.mean("auc[uniform]"))
    with pytest.raises(SpecError, match="was not measured"):
        scores.of("nss[mit]")
    with pytest.raises(SpecError, match="average"):
        scores.mean("auc[uniform]", average="x")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="kind"):
        vg.score_baseline(pictures, "x")  # type: ignore[arg-type]
    for bad in ({"baseline": "x", "sigma": 1.0}, {"sigma": -1.0}):
        with pytest.raises(SpecError):
            Pictures(people(), **bad)
    with pytest.raises(SpecError, match="without the name"):
        Pictures(Fixations((Scanpath([1.0], [1.0], (9, 9)),)), sigma=1.0)


def test_weights_of_means() -> None:
    paths = (Scanpath([1.5], [0.5], (2, 1), image="a"), Scanpath([0.5] * 3, [0.5] * 3, (2, 1), image="b"))
    scores = vg.score_maps({"a": [[0.0, 1.0]], "b": [[0.0, 1.0]]}, Pictures(Fixations(paths), sigma=0.0))
    assert scores.mean("nss[pysaliency]") == 0
    assert scores.mean("nss[pysaliency]", average="fixation") == -0.5
    assert "nss[pysaliency]" in repr(scores)


def test_resizing_keeps_places() -> None:
    values = np.arange(12.0).reshape(3, 4)
    double = vg.resized_map(values, (8, 6), kernel="nearest").values
    assert (double == np.kron(values, np.ones((2, 2)))).all()
    flat = np.tile(np.arange(4.0), (3, 1))
    across = vg.resized_map(flat, (8, 6)).values[0]
    np.testing.assert_allclose(across, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    assert vg.resized_map(values, (4, 3)).values is not None
    assert vg.resized_map(values, (2, 2), kernel="cubic").values.shape == (2, 2)


def test_compiled_loops_and_arrays_count_alike_and_sum_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    rng = np.random.default_rng(3)
    values = [rng.random(30_000), rng.integers(0, 9, 30_000) / 8, np.r_[rng.normal(size=20_000), 1e9]]
    levels = [np.unique(rng.choice(v, 50)) for v in values] + [np.array([-3.0, 0.5, 7.0])]
    cases = list(itertools.product(values, levels))
    maps = [(rng.random((120, 100)), rng.random((120, 100)) ** 4), (rng.normal(size=(120, 100)), np.eye(120, 100))]
    uniform = (np.ones((120, 100)), maps[0][1])
    measures = [partial(f, variant=v) for f in (vg.kl, vg.sim, vg.cc) for v in ("mit", "pysaliency")]
    measures += [partial(vg.kl, variant="mit", epsilon=e) for e in (1e-300, 1e-40, 1e-3, 1e3)]
    compiled.cache_clear()
    assert compiled(KERNELS) is not None
    counted = [counts_below(v, at) for v, at in cases]
    summed = [measure(HeldMap(a), HeldMap(b)) for a, b in [*maps, uniform] for measure in measures]
    compiled.cache_clear()
    monkeypatch.setitem(sys.modules, KERNELS, None)
    assert compiled(KERNELS) is None
    for (v, at), (below, equal) in zip(cases, counted, strict=True):
        again = counts_below(v, at)
        np.testing.assert_array_equal(again[0], below)
        np.testing.assert_array_equal(again[1], equal)
        np.testing.assert_array_equal(below, [(v < one).sum() for one in at])
    again = [measure(HeldMap(a), HeldMap(b)) for a, b in [*maps, uniform] for measure in measures]
    assert again == pytest.approx(summed, rel=1e-12, abs=1e-15, nan_ok=True)
    compiled.cache_clear()
