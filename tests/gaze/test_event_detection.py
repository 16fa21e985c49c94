"""Fixations from raw samples: against plain loops."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmattn.core.errors import SpecError
from vlmattn.gaze import Samples, Screen, event_detection, find_fixations, idt, ivt


def test_examples() -> None:
    result = doctest.testmod(event_detection)
    assert result.attempted
    assert not result.failed


def recording(seed: int, n: int) -> Samples:
    """Stretches of rest with jumps between them, an uneven clock, and gaps."""
    rng = np.random.default_rng(seed)
    places = np.repeat(rng.uniform(0, 600, (n // 12 + 1, 2)), 12, axis=0)[:n] + rng.normal(0, 2.0, (n, 2))
    places[rng.random(n) < 0.06] = np.nan
    time = np.cumsum(rng.choice([0.004, 0.008], n))
    return Samples(time, places[:, 0], places[:, 1])


def plain_ivt(s: Samples, velocity: float, shortest: float) -> list[slice]:
    def speed(i: int, j: int) -> float:
        if not (0 <= i < len(s) and 0 <= j < len(s)):
            return math.nan
        return math.hypot(s.x[j] - s.x[i], s.y[j] - s.y[i]) / (s.time[j] - s.time[i])

    slow = []
    for i in range(len(s)):
        v = speed(i - 1, i)
        v = speed(i, i + 1) if math.isnan(v) else v
        slow.append(v < velocity)
    runs, start = [], None
    for i in range(len(s) + 1):
        inside = i < len(s) and slow[i] and s.seen[i]
        if inside and start is None:
            start = i
        if not inside and start is not None:
            if s.time[i - 1] - s.time[start] >= shortest:
                runs.append(slice(start, i))
            start = None
    return runs


def plain_idt(s: Samples, dispersion: float, shortest: float) -> list[slice]:
    def spread(i: int, j: int) -> float:
        x, y = s.x[i:j], s.y[i:j]
        return math.inf if not s.seen[i:j].all() else (x.max() - x.min()) + (y.max() - y.min())

    runs, i = [], 0
    while i < len(s):
        j = i + 1
        while j < len(s) and s.time[j - 1] - s.time[i] < shortest - 1e-9:
            j += 1
        if s.time[j - 1] - s.time[i] < shortest - 1e-9 or spread(i, j) > dispersion:
            i += 1
            continue
        while j < len(s) and spread(i, j + 1) <= dispersion:
            j += 1
        runs.append(slice(i, j))
        i = j
    return runs


@given(st.integers(0, 2**32 - 1), st.integers(2, 200), st.sampled_from([300.0, 900.0, 3000.0]))
@settings(max_examples=60, deadline=None)
def test_velocity_against_a_loop(seed: int, n: int, velocity: float) -> None:
    samples = recording(seed, n)
    for shortest in (0.004, 0.03):
        assert ivt(samples, velocity=velocity, min_duration=shortest) == plain_ivt(samples, velocity, shortest)


@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.sampled_from([6.0, 15.0, 2000.0]))
@settings(max_examples=60, deadline=None)
def test_dispersion_against_a_loop(seed: int, n: int, dispersion: float) -> None:
    samples = recording(seed, n)
    for shortest in (0.004, 0.03):
        assert idt(samples, dispersion=dispersion, min_duration=shortest) == plain_idt(samples, dispersion, shortest)


@pytest.mark.parametrize("method", ["ivt", "idt"])
def test_planted_fixations_are_found(method: str) -> None:
    rng = np.random.default_rng(0)
    places = [(100.0, 100.0), (400.0, 120.0), (250.0, 300.0)]
    xy = np.repeat(places, 60, axis=0) + rng.uniform(-0.2, 0.2, (180, 2))
    samples = Samples(np.arange(180) / 240, xy[:, 0], xy[:, 1])
    path = find_fixations(samples, (640, 480), method=method, screen=Screen(30.0), image="a", subject="s")
    np.testing.assert_allclose(path.xy, places, atol=0.1)
    np.testing.assert_allclose(path.duration, 59 / 240, atol=1 / 240 + 1e-9)
    assert path.image == "a"
    assert path.start[0] == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda s: ivt(s, velocity=0),
        lambda s: ivt(s, velocity=1, min_duration=-1),
        lambda s: idt(s, dispersion=math.nan),
        lambda s: find_fixations(s, (9, 9)),
        lambda s: find_fixations(s, (9, 9), method="idt"),
        lambda s: find_fixations(s, (9, 9), method="x", screen=Screen(3.0)),
        lambda s: Samples([0.0, 0.0], [1, 2], [1, 2]),
        lambda s: Samples([0.0, math.nan], [1, 2], [1, 2]),
        lambda s: Samples([math.nan], [1], [1]),
        lambda s: Samples([0.0], [1, 2], [1, 2]),
    ],
)
def test_what_is_refused(call: object) -> None:
    with pytest.raises(SpecError):
        call(Samples([0.0, 0.1], [1, 1], [1, 1]))


def test_nothing_gives_nothing() -> None:
    for samples in (Samples([], [], []), Samples([0.0], [1.0], [1.0]), Samples([0.0, 1.0], [math.nan] * 2, [1.0] * 2)):
        for method in ("ivt", "idt"):
            assert len(find_fixations(samples, (9, 9), method=method, screen=Screen(3.0))) == 0
