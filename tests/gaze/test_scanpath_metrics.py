"""Measures of scanpaths against plain loops, what must hold for any scanpaths, and what broken ones give."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmattn.core.errors import SpecError
from vlmattn.gaze import Fixations, Scanpath
from vlmattn.gaze import scanpaths as sp
from vlmattn.gaze.compiled import compiled
from vlmattn.gaze.scanpaths.measures import values_of
from vlmattn.gaze.scanpaths.multimatch import cheapest_way
from vlmattn.gaze.scanpaths.pairs import kernels
from vlmattn.gaze.scanpaths.scanmatch import repeats
from vlmattn.gaze.scanpaths.strings import symbols_of

WH = (200, 160)
ONE, OTHER = np.array([0]), np.array([1])
ALL = list(sp.SCANPATH_METRICS.values())
SAME = [
    *ALL,
    sp.scanmatch_metric(sp.ScanMatch(gap=-1.0)),
    sp.scanmatch_metric(sp.ScanMatch(gap=-0.5, variant="gazeparser")),
]
names = pytest.mark.parametrize("metric", ALL, ids=lambda m: m.name)


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As where numba is not installed."""
    compiled.cache_clear()
    monkeypatch.setitem(sys.modules, "vlmattn.gaze.scanpaths.kernels", None)
    yield
    compiled.cache_clear()


def made(n: int, seed: int = 0, *, grid: bool = False) -> Scanpath:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, WH[0], n), rng.uniform(0, WH[1], n)
    if grid:
        x, y = x // 50 * 50 + 25, y // 50 * 50 + 25
    return Scanpath(x, y, WH, duration=rng.uniform(0.1, 0.6, n))


@st.composite
def scanpaths(draw: Any, least: int = 3, most: int = 9) -> Scanpath:
    n = draw(st.integers(least, most))
    place = st.integers(0, 1490).map(lambda v: v / 10)
    x, y = (draw(st.lists(place, min_size=n, max_size=n)) for _ in range(2))
    lasting = draw(st.lists(st.integers(60, 900), min_size=n, max_size=n))
    return Scanpath(x, y, WH, duration=np.array(lasting) / 1000)


def loop(n: int, m: int, cell: Callable[[int, int], float], join: Callable[[float, float], float]) -> float:
    cost: dict[tuple[int, int], float] = {}
    for i, j in itertools.product(range(n), range(m)):
        before = [cost[p] for p in ((i - 1, j), (i, j - 1), (i - 1, j - 1)) if p in cost]
        cost[i, j] = join(min(before), cell(i, j)) if before else cell(i, j)
    return cost[n - 1, m - 1]


def needleman(a: Any, b: Any, score: Callable[[int, int], float], gap: float, extra: int) -> Any:
    held = np.zeros((len(a) + 1, len(b) + 1))
    held[:, 0], held[0] = gap * (np.arange(len(a) + 1) + extra), gap * (np.arange(len(b) + 1) + extra)
    for i, j in itertools.product(range(len(a)), range(len(b))):
        held[i + 1, j + 1] = max(held[i, j] + score(a[i], b[j]), held[i, j + 1] + gap, held[i + 1, j] + gap)
    return held


PIXELS = ("dtw[sum, px]", "frechet[discrete, px]", "hausdorff[px]", "eyenalysis[max]", "earth_mover[fixations, px]")
# GazeParser starts with a gap; the package may go astray where all saccades are alike.
UNLIKE = {"scanmatch[gazeparser, 16x12, T 3.5, gap -0.5]", *sp.SCANPATH_METRICS["multimatch[ties=package]"].names}
PAIRS = [(made(n, 1), made(m, 2)) for n, m in ((3, 3), (4, 9), (9, 4), (12, 12), (1, 5), (5, 1), (1, 1))]


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda p: str(len(p)))
def test_warping_as_plain_loops_have_it(one: Scanpath, other: Scanpath) -> None:
    def apart(i: int, j: int) -> float:
        return math.dist(one.xy[i], other.xy[j])

    n, m = len(one), len(other)
    assert sp.dtw(one, other) == pytest.approx(loop(n, m, apart, lambda a, b: a + b), abs=1e-9)
    assert sp.dtw(one, other, per_step=True) == pytest.approx(sp.dtw(one, other) / max(n, m))
    assert sp.frechet(one, other) == pytest.approx(loop(n, m, apart, max), abs=1e-9)


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda p: str(len(p)))
@pytest.mark.parametrize("gap", [0.0, -0.7, -3.0])
@pytest.mark.parametrize("bin_s", [None, 0.1])
def test_scanmatch_as_plain_loops_have_it(one: Scanpath, other: Scanpath, gap: float, bin_s: float | None) -> None:
    def score(a: int, b: int) -> float:
        return 3.0 - math.dist(divmod(a, 8), divmod(b, 8))

    rule = partial(sp.ScanMatch, 8, 6, 3.0, gap, bin_s)
    a, b = rule().symbols(one), rule().symbols(other)
    most = 3.0 * max(len(a), len(b))
    assert rule("matlab")(one, other) == pytest.approx(needleman(a, b, score, gap, 0)[-1, -1] / most, abs=1e-9)
    assert rule("gazeparser")(one, other) == pytest.approx(needleman(a, b, score, gap, 1).max() / most, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(*[st.lists(st.integers(0, 4), max_size=8)] * 2)
def test_edits_and_common_parts_of_any_strings(one: list[int], other: list[int]) -> None:
    gaps = needleman(one, other, lambda a, b: 0.0 if a == b else -1.0, -1.0, 0)
    assert sp.edit_distance(one, other) == -gaps[-1, -1]
    shared = needleman(one, other, lambda a, b: float(a == b), 0.0, 0)[-1, -1]
    assert sp.common_share(one, other) == pytest.approx(
        shared / max(len(one), len(other)) if one and other else np.nan, nan_ok=True
    )


def test_many_pairs_at_once_give_what_each_gives_alone() -> None:
    paths = [made(n, seed) for seed, n in enumerate([0, 1, 2, 3, 8, 25])]
    one, other = (v.ravel() for v in np.indices((6, 6)))
    for metric in SAME:
        together = values_of(metric, paths, one, other)
        for i, j, value in zip(one, other, together, strict=True):
            alone = list(metric(paths[i], paths[j]).values())
            np.testing.assert_allclose(value, alone, rtol=1e-12, equal_nan=True, err_msg=metric.name)


@settings(max_examples=10, deadline=None)
@given(scanpaths(), scanpaths())
def test_of_any_scanpaths(one: Scanpath, other: Scanpath) -> None:
    for metric in SAME:
        same, pair, back = metric(one, one), metric(one, other), metric(other, one)
        for name, value in pair.items():
            best = 0.0 if metric.better == "lower" else 1.0
            assert name in UNLIKE or same[name] == pytest.approx(best, abs=1e-9), name
            assert metric.lowest - 1e-9 <= value <= metric.highest + 1e-9, name
            if metric.symmetric and "ties" not in name:
                assert back[name] == pytest.approx(value, abs=1e-9), name


@settings(max_examples=10, deadline=None)
@given(scanpaths(most=6), scanpaths(most=6), st.integers(1, 50), st.integers(1, 40))
def test_moving_and_scaling(one: Scanpath, other: Scanpath, right: int, down: int) -> None:
    def moved(path: Scanpath) -> Scanpath:
        return replace(path, x=path.x + right, y=path.y + down)

    def scaled(path: Scanpath) -> Scanpath:
        return replace(path, x=path.x / 2, y=path.y / 2, image_wh=(WH[0] // 2, WH[1] // 2))

    for name in PIXELS:
        metric = sp.SCANPATH_METRICS[name]
        value = metric(one, other)[name]
        assert metric(moved(one), moved(other))[name] == pytest.approx(value, abs=1e-6)
        assert metric(scaled(one), scaled(other))[name] == pytest.approx(value / 2, abs=1e-6)
    for name in ("string_edit[grid 5x5]", "mannan[distance]"):
        metric = sp.SCANPATH_METRICS[name]
        assert metric(scaled(one), scaled(other))[name] == pytest.approx(metric(one, other)[name], abs=1e-9)
    here, there = made(7, 1), made(9, 2)
    for simplify in (None, sp.Simplification(45, 30, 0.3)):
        plain, apart = (sp.multimatch(here, p, simplify=simplify) for p in (there, moved(there)))
        assert plain.values[:3] == pytest.approx(apart.values[:3])
        assert plain.duration == pytest.approx(apart.duration)
        assert plain.position != apart.position


@pytest.mark.parametrize("seed", range(40))
def test_ties_as_the_package_breaks_them(seed: int) -> None:
    one, other = made(8, seed, grid=True), made(10, seed + 100, grid=True)
    dx, dy = (np.diff(getattr(one, k))[:, None] - np.diff(getattr(other, k))[None] for k in "xy")
    cost = np.sqrt(dx**2 + dy**2)
    rows, columns = np.divmod(cheapest_way(cost), cost.shape[1])
    starts = np.hypot(one.x[rows] - other.x[columns], one.y[rows] - other.y[columns])
    found = sp.multimatch(one, other, ties="package")
    assert found.position == pytest.approx(1 - np.median(starts) / math.hypot(*WH))
    assert found.shape == pytest.approx(1 - np.median(cost[rows, columns]) / (2 * math.hypot(*WH)))


def test_simplification_joins_what_goes_on_in_one_direction() -> None:
    short = [0.1, 0.1, 0.1, 0.1]
    straight = Scanpath([0.0, 50, 100, 100], [0.0, 0, 0, 80], WH, duration=short)
    corner = Scanpath([0.0, 100, 100, 20], [0.0, 0, 80, 80], WH, duration=short)
    rule = sp.Simplification(45, 0, 0.3)
    assert sp.multimatch(straight, corner).shape < 1
    once = replace(corner, x=[0.0, 100, 100, 100], y=[0.0, 0, 80, 80])
    assert sp.multimatch(straight, once, simplify=rule).shape > 0.99
    long = replace(straight, duration=[0.5] * 4)
    assert sp.multimatch(long, corner, simplify=rule).shape == sp.multimatch(long, corner).shape


@names
def test_short_scanpaths(metric: sp.ScanpathMetric) -> None:
    three, two, one, none = made(3, 5), made(2, 6), made(1, 7), made(0)
    least = 3 if "three" in metric.short else 1
    for path, other in itertools.permutations((three, two, one, none), 2):
        values = list(metric(path, other).values())
        if "longer" in metric.short or "NaN if both" in metric.short:
            assert values == [0.0] if not len(path) or not len(other) else 0 <= values[0] <= 1
        elif metric.short == "the other's length":
            assert values[0] <= max(len(path), len(other))
            assert min(len(path), len(other)) or values == [max(len(path), len(other))]
        else:
            assert np.isnan(values).all() == (min(len(path), len(other)) < least), (len(path), len(other))


@names
def test_what_cannot_be_compared(metric: sp.ScanpathMetric) -> None:
    path = made(4)
    with pytest.raises(SpecError, match=r"one size, got .*200, 160.* and .*100, 100"):
        metric(path, replace(path, image_wh=(100, 100)))
    with pytest.raises(SpecError, match="number 1 is ndarray"):
        metric(path, path.xy)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="x must be"):
        metric(path, Scanpath([1.0, np.nan], [1.0, 1.0], WH))
    untimed = replace(path, duration=None)
    if "ms" in metric.name:
        with pytest.raises(SpecError, match="needs durations, and scanpath 1 has none"):
            metric(path, untimed)
    else:
        missing = [name for name, value in metric(path, untimed).items() if math.isnan(value)]
        assert missing == [name for name in metric.names if name.endswith(".duration")]


def test_missing_durations_and_simplification() -> None:
    path = replace(made(4), duration=None)
    with pytest.raises(SpecError, match="simplification needs durations"):
        sp.multimatch(path, path, simplify=sp.Simplification(45, 10, 0.3))
    with pytest.raises(SpecError, match="by durations needs durations"):
        sp.earth_mover(path, path, weights="durations")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda p: sp.multimatch(p, p, ties="up"), "ties must be 'diagonal' or 'package'"),
        (lambda p: sp.Simplification(-1, 0, 0), "angle_deg must be 0 or more"),
        (lambda p: sp.ScanMatch(columns=0), "columns must be a whole number of 1 or more"),
        (lambda p: sp.ScanMatch(threshold=0), "threshold must be above 0"),
        (lambda p: sp.ScanMatch(gap=1), "gap must be 0 or below"),
        (lambda p: sp.ScanMatch(bin_s=0), "bin_s must be above 0"),
        (lambda p: sp.ScanMatch(variant="r"), "variant must be 'matlab' or 'gazeparser'"),
        (lambda p: sp.string_edit(p, p, variant="x"), "variant must be 'grid' or 'vame'"),
        (lambda p: sp.edit_distance([0.5], [1.0]), "symbols must be whole numbers"),
        (lambda p: sp.time_delay(p, p, window=0), "window must be"),
        (lambda p: sp.time_delay(p, p, over="max"), "over must be"),
        (lambda p: sp.scaled_time_delay(p, p, form="x"), "form must be"),
        (lambda p: sp.eyenalysis(p, p, variant="x"), "variant must be 'max', 'sum', 'squared' or 'means'"),
        (lambda p: sp.earth_mover(p, p, weights="x"), "weights must be"),
        (lambda p: sp.mannan(p, p, draws=0), "draws must be 1 or more"),
        (lambda p: sp.disc_agreement(p, p, radius_px=0), "radius_px must be above 0"),
        (lambda p: sp.recurrence(p, radius_px=-1), "radius_px must be 0 or more"),
        (lambda p: sp.recurrence(p, radius_px=1, shortest=1), "shortest must be"),
        (lambda p: sp.cross_recurrence(p, p, radius_px=1, variant="x"), "variant must be 'unbroken' or 'fixatons'"),
        (lambda p: sp.compare(p, p, ["sed"]), "there is no scanpath metric 'sed'"),
        (lambda p: sp.scanpath_matrix([p], workers=0), "workers must be"),
        (lambda p: sp.scanpath_matrix([p], metric="multimatch[ties=diagonal]").of(), "part must be one of"),
        (lambda p: sp.first_hit(p, (5, 5, 5, 9)), "box_xyxy must be"),
        (lambda p: sp.search_cdf([p], []), "one box"),
        (lambda p: sp.probability_mismatch(np.zeros(2), np.zeros(3)), "one shape"),
        (lambda p: sp.semantic_score(p, p, [[0.5]]), "labels must be whole numbers"),
        (lambda p: sp.SaccadeStatistics.of([p], radius_px=-1), "radius_px must be"),
        (lambda p: sp.SaccadeStatistics.of([p.xy]), "must be a vlmattn.gaze.Scanpath"),
        (lambda p: sp.FixationClusters.fit([]), "at least one fixation"),
    ],
)
def test_wrong_options(call: Callable[[Scanpath], object], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        call(made(4))


@pytest.mark.parametrize("bin_ms", [1, 50, 100])
def test_whole_milliseconds_stay_whole(bin_ms: int) -> None:
    milliseconds = np.arange(1, 2000)
    found = repeats(milliseconds / 1000, bin_ms / 1000)
    assert found.tolist() == [round(ms / bin_ms) for ms in milliseconds.tolist()]


def test_cells_that_wrap_as_in_the_code_that_circulates() -> None:
    edge = Scanpath([511.0], [0.0], (512, 384))
    assert sp.Grid(5, 5).symbols(edge).tolist() == [4]
    assert symbols_of(sp.Grid(5, 5), "vame")(edge).tolist() == [5]


def test_recurrence_by_hand() -> None:
    # Fixations 0, 1, 2 at a, b, c and 3, 4, 5 at a, b, b: pairs (0,3), (1,4), (1,5), (4,5) recur.
    path = Scanpath([10.0, 50, 90, 10, 50, 50], [10.0, 10, 10, 10, 10, 10], WH)
    found = sp.recurrence(path, radius_px=5)
    assert found.points == 4
    assert found.recurrence == pytest.approx(100 * 2 * 4 / 30)
    assert found.determinism == pytest.approx(100 * 2 / 4)
    assert found.laminarity == pytest.approx(100 * (2 + 0) / 8)
    assert found.corm == pytest.approx(100 * (3 + 3 + 4 + 1) / (5 * 4))
    assert np.isnan(sp.recurrence(path.take([0]), radius_px=5).recurrence)
    far = sp.cross_recurrence(path, replace(path, y=path.y + 100), radius_px=5)
    assert far.recurrence == 0
    assert np.isnan(far.values[1:]).all()
    one, other = sp.cross_recurrence(path, path.take(slice(1, 6)), radius_px=5), None
    other = sp.cross_recurrence(path.take(slice(1, 6)), path, radius_px=5)
    assert one.corm == pytest.approx(-other.corm)
    assert one.corm < 0


def test_the_cheapest_transport() -> None:
    one = Scanpath([0.0, 100.0], [0.0, 0.0], WH, duration=[0.3, 0.1])
    other = Scanpath([0.0, 0.0, 100.0], [0.0, 0.0, 0.0], WH, duration=[0.1, 0.1, 0.2])
    assert sp.earth_mover(one, other) == pytest.approx(100 / 6)
    assert sp.earth_mover(one, other, weights="durations") == pytest.approx(25)
    a, b = made(4, 1), made(4, 2)
    cost = [sum(math.dist(a.xy[i], b.xy[k]) for i, k in enumerate(p)) / 4 for p in itertools.permutations(range(4))]
    assert sp.earth_mover(a, b) == pytest.approx(min(cost))
    assert sp.earth_mover(a, b, weights="durations") > 0


def test_mannan_and_discs() -> None:
    chance = np.mean([sp.mannan(made(8, s), made(9, s + 50), draws=300) for s in range(30)])
    assert abs(chance) < 8
    path = made(5)
    assert sp.disc_agreement(path, path, radius_px=10) == pytest.approx((1, 1, 1))
    far = sp.disc_agreement(Scanpath([0.0], [0.0], WH), Scanpath([100.0], [0.0], WH), radius_px=10)
    assert far == (0, 0, 0)
    half = sp.disc_agreement(Scanpath([0.0], [0.0], WH), Scanpath([10.0], [0.0], WH), radius_px=10)
    shared = 2 * math.pi / 3 - math.sqrt(3) / 2
    assert half.f1 == pytest.approx(shared / (2 * math.pi - shared))


def test_plausibility_takes_the_person_who_is_most_alike() -> None:
    path, others = made(6, 1), [made(6, s) for s in range(2, 6)]
    alone = [sp.plausibility([o], path, windows=[2, 3]) for o in others]
    assert sp.plausibility(others, path, windows=[2, 3]) == max(alone)
    expected = np.mean([1 - sp.string_time_delay(others[0], path, window=k) for k in (2, 3)])
    assert alone[0] == pytest.approx(expected)
    assert np.isnan(sp.plausibility([made(0)], path))


def test_windows_of_strings_as_plain_loops_have_them() -> None:
    one, other = made(9, 3), made(7, 4)
    a, b = (sp.Grid(4, 4).symbols(p).tolist() for p in (one, other))
    nearest = [min(sp.edit_distance(a[i : i + 3], b[j : j + 3]) for i in range(len(a) - 2)) for j in range(len(b) - 2)]
    assert sp.string_time_delay(one, other) == pytest.approx(np.mean(nearest) / 3)


def test_clusters_find_the_places_people_looked_at() -> None:
    rng = np.random.default_rng(0)
    places = np.array([[30, 30], [170, 30], [100, 120]])
    people = [
        Scanpath.from_points(places[rng.permutation(3)] + rng.normal(0, 3, (3, 2)), WH, duration=[0.2, 0.15, 0.31])
        for _ in range(10)
    ]
    found = sp.FixationClusters.fit(Fixations(tuple(people)))
    assert sorted(found.symbols(Scanpath.from_points(places, WH)).tolist()) == [0, 1, 2]
    assert found.rate == pytest.approx(20 / 3)
    forward, backward = Scanpath.from_points(places, WH), Scanpath.from_points(places[::-1], WH)
    assert sp.sequence_score(forward, forward, found) == 1
    assert sp.sequence_score(forward, backward, found) == pytest.approx(1 / 3)
    assert sp.sequence_score(forward, backward, found, first=1) == 0
    assert sp.sequence_edits(forward, backward, found) == 2
    timed = replace(forward, duration=[0.15, 0.05, 0.11])
    shorter = replace(forward, duration=[0.1, 0.05, 0.1])
    assert sp.sequence_score(timed, shorter, found, bin_s=0.05) == pytest.approx(5 / 6)
    with pytest.raises(SpecError, match="clusters are of a picture"):
        sp.sequence_score(forward, replace(forward, image_wh=(9, 9)), found)


def test_statistics_of_saccades() -> None:
    square = Scanpath([0.0, 100, 100, 0, 0], [0.0, 0, 100, 100, 0], WH, duration=[0.1] * 5)
    told = sp.SaccadeStatistics.of([square, made(1)])
    assert told.amplitude.tolist() == [100] * 4
    assert told.turn == pytest.approx(np.pi / 2)
    assert told.returns == pytest.approx(1 / 3)
    assert told.distance(told) == pytest.approx(dict.fromkeys([*sp.SaccadeStatistics.of([]).distance(told)], 0.0))
    assert np.isnan(list(told.distance(sp.SaccadeStatistics.of([])).values())).all()
    one, other = (sp.SaccadeStatistics.of([Scanpath(x, [0.0, 0.0], WH)]) for x in ([0.0, 9], [9.0, 0]))
    assert one.distance(other)["direction"] == pytest.approx(np.pi)


@settings(max_examples=20, deadline=None)
@given(*[st.lists(st.integers(-179, 180), min_size=4, max_size=4)] * 2, st.integers(0, 359))
def test_transport_around_the_circle(one: list[int], other: list[int], turn: int) -> None:
    from vlmattn.gaze.scanpaths.saccade_statistics import _around

    a, b = np.radians(one), np.radians(other)
    fold = np.abs((a[:, None] - b[None] + np.pi) % (2 * np.pi) - np.pi)
    best = min(fold[range(4), p].mean() for p in map(list, itertools.permutations(range(4))))
    assert _around(a, b) == pytest.approx(best, abs=1e-9)
    around = [(v + np.radians(turn) + np.pi) % (2 * np.pi) - np.pi for v in (a, b)]
    assert _around(*around) == pytest.approx(best, abs=1e-9)


def test_search_for_a_target() -> None:
    box = (70.0, 70.0, 90.0, 90.0)
    path = Scanpath([50.0, 70.0, 80.0, 80.0], [50.0, 80.0, 80.0, 20.0], WH)
    assert sp.first_hit(path, box) == 2  # The box's edge is not inside.
    assert sp.target_hit(path.take([0, 1]), box) is False
    assert sp.target_hit(path.take([]), box) is False
    cdf = sp.search_cdf([path, path, path.take([0])], [box] * 3, groups=["cup", "cup", "fork"])
    assert cdf.tolist() == [0, 0, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert sp.tfp_auc(cdf) == 2.5
    gone = math.dist((50, 50), (70, 80)) + 10
    assert sp.scanpath_ratio(path, box) == pytest.approx(math.hypot(30, 30) / gone)
    assert sp.scanpath_ratio(Scanpath([80.0], [80.0], WH), box) == 1
    assert np.isnan(sp.scanpath_ratio(path.take([0]), box))


def test_compiled_loops_and_arrays_give_equal_values(request: pytest.FixtureRequest) -> None:
    pytest.importorskip("numba")
    paths = [made(n, seed, grid=seed % 2 == 0) for seed, n in enumerate([0, 1, 2, 3, 3, 9, 10, 30, 31])]
    one, other = (v.ravel() for v in np.indices((9, 9)))
    assert kernels() is not None
    compiled = {metric.name: values_of(metric, paths, one, other) for metric in SAME}
    request.getfixturevalue("without_numba")
    assert kernels() is None
    for metric in SAME:
        np.testing.assert_array_equal(values_of(metric, paths, one, other), compiled[metric.name], metric.name)


@pytest.mark.usefixtures("without_numba")
@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda p: str(len(p)))
def test_arrays_as_plain_loops_have_it(one: Scanpath, other: Scanpath) -> None:
    test_warping_as_plain_loops_have_it(one, other)
    for gap in (0.0, -0.7):
        test_scanmatch_as_plain_loops_have_it(one, other, gap, 0.1)


@pytest.mark.usefixtures("without_numba")
def test_arrays_give_many_pairs_what_each_gives_alone() -> None:
    test_many_pairs_at_once_give_what_each_gives_alone()


def test_a_matrix_does_not_depend_on_the_number_of_processes() -> None:
    paths = [made(n, seed) for seed, n in enumerate([0, 3, 7, 7, 12, 20])]
    for metric in ("multimatch[ties=diagonal]", "scaled_time_delay[similarity]"):
        alone, shared = (sp.scanpath_matrix(paths, metric=metric, workers=w) for w in (1, 2))
        np.testing.assert_array_equal(alone.values, shared.values)
        for i, j in itertools.product(range(6), range(6)):
            wanted = list(sp.compare(paths[i], paths[j], [metric]).values())
            np.testing.assert_allclose(alone.values[i, j], wanted, rtol=1e-12, equal_nan=True)
    two = sp.scanpath_matrix(paths[:2], paths[2:], metric="dtw[sum, px]")
    assert two.of().shape == (2, 4)
    assert two.of()[1, 3] == sp.dtw(paths[1], paths[5])
    assert two.means() == {"dtw[sum, px]": pytest.approx(np.nanmean(two.of()))}


def test_a_mean_within_a_set_leaves_out_each_with_itself() -> None:
    paths = [made(5, s) for s in range(4)]
    found = sp.scanpath_matrix(paths, metric="dtw[sum, px]")
    assert found.means()["dtw[sum, px]"] == pytest.approx(found.of()[~np.eye(4, dtype=bool)].mean())
    assert sp.scanpath_matrix([]).of().shape == (0, 0)
    assert np.isnan(sp.scanpath_matrix([]).means()["scanmatch[matlab, 16x12, T 3.5]"])


def test_a_measure_of_ones_own_is_held_to_its_word() -> None:
    own = sp.ScanpathMetric("own", "lower", 0, 1, "0", "me", lambda paths, one, other: np.zeros((1, 2)))
    with pytest.raises(SpecError, match="own must give values of shape"):
        sp.scanpath_matrix([made(3), made(4)], metric=own)
    recurring = sp.cross_recurrence_metric(radius_px=20)
    assert sp.compare(made(5), made(5), [recurring])["cross_recurrence[20 px, lines of 2].corm"] == 0
