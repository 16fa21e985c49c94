"""Measures of scanpaths against what the reference packages give for the same scanpaths."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmattn.gaze import Scanpath
from vlmattn.gaze.compiled import compiled
from vlmattn.gaze.scanpaths import (
    Grid,
    ScanMatch,
    Simplification,
    common_share,
    cross_recurrence,
    dtw,
    eyenalysis,
    frechet,
    hausdorff,
    mannan_distance,
    multimatch,
    scaled_time_delay,
    string_edit,
    time_delay,
)
from vlmattn.gaze.scanpaths.multimatch import Chains, similarities


@pytest.fixture(autouse=True, params=["compiled", "arrays"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    compiled.cache_clear()
    if request.param == "arrays":
        monkeypatch.setitem(sys.modules, "vlmattn.gaze.scanpaths.kernels", None)
    else:
        pytest.importorskip("numba")
    yield
    compiled.cache_clear()


ONE, OTHER = np.array([0]), np.array([1])
Settings = dict[str, float]


def read(golden: Path, name: str) -> Any:
    return json.loads((golden / "gaze" / "reference_values" / f"{name}_reference.json").read_text())


def table(golden: Path, name: str) -> Any:
    return np.loadtxt(golden / "gaze" / "multimatch_gaze" / name, delimiter="\t", skiprows=1)


def rule(told: Settings) -> Simplification | None:
    return Simplification(told["TDir"], told["TAmp"], told["TDur"]) if told else None


def five(one: Any, other: Any, wh: Any, simplify: Simplification | None = None, ties: Any = "diagonal") -> Any:
    """From plain rows, where durations of 0 may stand."""
    held = Chains.of([tuple(np.array(rows, dtype=float).T) for rows in (one, other)], simplify)
    return similarities(held, ONE, OTHER, tuple(wh), ties=ties)[0]


def numbers(told: list[float | None]) -> Any:
    return np.array([np.nan if v is None else v for v in told], dtype=float)


def path(rows: Any, wh: Any) -> Scanpath:
    x, y, milliseconds = np.array(rows, dtype=float).T
    return Scanpath(x, y, tuple(wh), duration=milliseconds / 1000)


@pytest.mark.parametrize("ties", ["diagonal", "package"])
def test_multimatch_of_seeded_pairs(golden: Path, ties: str) -> None:
    compared = 0
    for case in read(golden, "multimatch")["cases"]:
        one, other, wh = case["scanpath1"], case["scanpath2"], case["screensize"]
        assert five(one, other, wh, ties=ties) == pytest.approx(numbers(case["no_grouping"]), abs=1e-9)
        assert five(other, one, wh, ties=ties) == pytest.approx(numbers(case["no_grouping_swapped"]), abs=1e-9)
        grouped = case["grouping"]
        values = five(one, other, wh, rule(grouped["params"]), ties)
        if "error" in grouped["result"]:  # The package stops with an IndexError; here there are numbers.
            assert np.isfinite(values).all()
        else:
            assert values == pytest.approx(numbers(grouped["result"]), abs=1e-9)
            compared += 1
    assert compared == 32


def test_multimatch_of_edge_cases(golden: Path) -> None:
    cases = read(golden, "multimatch")["edge_cases"]
    assert len(cases) == 10
    for case in cases:
        values = five(case["scanpath1"], case["scanpath2"], case["screensize"], rule(case["params"]))
        if isinstance(case["result"], dict):  # The package takes acos of 1.0000000000000002.
            assert np.isfinite(values).all()
        else:
            assert values == pytest.approx(numbers(case["result"]), abs=1e-9, nan_ok=True), case["name"]


def test_multimatch_of_people(golden: Path) -> None:
    told = read(golden, "multimatch_segments")
    simplify, compared = rule(told["grouping_params"]), 0
    for case in told["results"]:
        one, other = (table(golden, f"fixvectors/segment_{case['segment']}_sub-{s}.tsv") for s in ("01", "19"))
        for values, wanted in (
            (five(one, other, (1280, 720)), case["no_grouping"]),
            (five(one, other, (1280, 720), simplify), case["grouping"]),
        ):
            if "error" in wanted:
                assert np.isfinite(values).all()
            else:
                assert values == pytest.approx(numbers(wanted), abs=1e-9)
                compared += 1
    assert compared == 105


def test_multimatch_of_the_matlab_toolbox(golden: Path) -> None:
    held = []
    for subject in ("19", "01"):
        x, y, duration = table(golden, f"segment_10_sub-{subject}.tsv").T
        held.append(Scanpath(x, y, (1280, 720), duration=duration))
    plain = multimatch(*held)
    assert plain.values == pytest.approx([0.99082, 0.69902, 0.98927, 0.94767, 0.65563], abs=1e-5)
    grouped = multimatch(*held, simplify=Simplification(45, 146.8, 0.3))
    assert grouped.values == pytest.approx([0.95076, 0.95638, 0.94082, 0.94491, 0.78261], abs=1e-5)
    assert grouped.variant == "multimatch[ties=diagonal, simplified 45 deg 146.8 px 0.3 s]"


def test_scanmatch(golden: Path) -> None:
    compared = 0
    for case in read(golden, "scanmatch_sed_tde_rqa")["cases"]:
        one, other = (path(case[k], case["screensize"]) for k in ("scanpath1", "scanpath2"))
        for told in case["scanmatch"]:
            given = told["params"]
            settings = ScanMatch(
                given["Xbin"],
                given["Ybin"],
                given["Threshold"],
                given.get("GapValue", 0.0),
                given["TempBin"] / 1000 if "TempBin" in given else None,
                "gazeparser",
            )
            assert settings.symbols(one).tolist() == told["sequence1"]
            assert settings.symbols(other).tolist() == told["sequence2"]
            assert settings(one, other) == pytest.approx(told["score"], abs=1e-9)
            compared += 1
    assert compared == 84


def test_strings_windows_and_recurrence(golden: Path) -> None:
    for case in read(golden, "scanmatch_sed_tde_rqa")["cases"]:
        one, other = (path(case[k], case["screensize"]) for k in ("scanpath1", "scanpath2"))
        told, counted = case["vame"], case["crqa_fixatons"]
        assert string_edit(one, other, variant="vame") == told["string_edit_distance_n5"]
        for window, value in told["tde_k"].items():
            assert time_delay(one, other, window=int(window)) == pytest.approx(value, abs=1e-9)
        assert time_delay(one, other, over="hausdorff") == pytest.approx(told["tde_hausdorff_k3"], abs=1e-9)
        assert time_delay(other, one) == pytest.approx(told["tde_k3_swapped"], abs=1e-9)
        assert scaled_time_delay(one, other) == pytest.approx(told["stde_similarity"], abs=1e-9)
        assert scaled_time_delay(one, other, form="distance") == pytest.approx(told["stde_distance"], abs=1e-9)
        found = cross_recurrence(one, other, radius_px=counted["radius"], shortest=counted["ll"], variant="fixatons")
        # FixaTons adds 1e-16 or so to what it divides by, so that it has 0 where nothing recurs.
        values = np.nan_to_num(found.values)
        assert values == pytest.approx([counted[k] for k in ("rec", "det", "lam", "corm")], abs=1e-9)


def test_curves_and_sets(golden: Path) -> None:
    cases = read(golden, "distance_metrics")["cases"]
    assert len(cases) == 4
    for case in cases:
        one, other = (Scanpath.from_points(case[k], (100, 100)) for k in "PQ")
        found = {
            "hausdorff": hausdorff(one, other),
            "discrete_frechet": frechet(one, other),
            "dtw": dtw(one, other),
            "eyenalysis_linear_over_max": eyenalysis(one, other),
            "eyenalysis_linear_over_sum": eyenalysis(one, other, variant="sum"),
            "eyenalysis_squared_over_max": eyenalysis(one, other, variant="squared"),
            "mannan_D": mannan_distance(one, other),
        }
        assert found == pytest.approx({k: case[k] for k in found}, abs=1e-9)
        strings = [Grid(4, 4).symbols(p) for p in (one, other)]
        assert [s.tolist() for s in strings] == case["grid4x4_strings"]
        assert common_share(*strings) == pytest.approx(case["ss_like_lcs"], abs=1e-6)
