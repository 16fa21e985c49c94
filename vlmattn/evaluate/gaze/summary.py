"""What a comparison says over all its cases: means and shares of the ceiling with intervals, and depth by depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.evaluate.gaze.lookers import layers_of
from vlmattn.evaluate.gaze.measuring import FLOORS, PEOPLE, SEARCH, WTA, CaseResult
from vlmattn.evaluate.statistics import Interval, bootstrap, ratio
from vlmattn.gaze import MAP_METRICS
from vlmattn.gaze.scanpaths.measures import SCANPATH_METRICS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SummaryRow:
    """One measure of one source over all cases.

    Attributes:
        kind: ``map``, ``scanpath`` or ``search``. source, metric: names. better: which way. value: mean over cases of
            the mean over subjects, pictures drawn again. of_ceiling: sum of (value - floor) over sum of (people -
            floor), with its interval; None where floor or people are not known. cases: how many count.
    """

    kind: str
    source: str
    metric: str
    better: str
    value: Interval
    of_ceiling: Interval | None
    cases: int


@dataclass(frozen=True)
class Depth:
    """At which layer a model is most like people, by one measure.

    Attributes:
        layers: names of maps, from the first layer on. means: of each. best: the one with the best mean. sureness: in
            what share of draws of pictures that one is the best.
    """

    kind: str
    metric: str
    layers: tuple[str, ...]
    means: tuple[float, ...]
    best: str
    sureness: float


@dataclass(frozen=True)
class Summary:
    """All rows, and depths. ``synthetic``: whether the observers were no people."""

    rows: tuple[SummaryRow, ...]
    depths: tuple[Depth, ...]
    cases: int
    images: int
    synthetic: bool

    def of(self, kind: str, source: str, metric: str) -> SummaryRow:
        """One row.

        Raises:
            SpecError: there is none.
        """
        for row in self.rows:
            if (row.kind, row.source, row.metric) == (kind, source, metric):
                return row
        raise SpecError(f"no {kind} row of {source!r} and {metric!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def summarise(results: Sequence[CaseResult], *, synthetic: bool, draws: int = 2000, seed: int = 0) -> Summary:
    """Means, shares of the ceiling and depths of measured cases; pictures are what is drawn again.

    Raises:
        SpecError: no case.
    """
    if not results:
        raise SpecError("there is no measured case to sum up")
    tables = _tables(results)
    images = [one.image for one in results]
    rows = [
        row
        for (kind, metric), table in tables.items()
        for source in table
        if (row := _row(kind, source, metric, table, images, draws, seed)) is not None
    ]
    depths = [d for (kind, metric), table in tables.items() if (d := _depth(kind, metric, table, images, draws, seed))]
    return Summary(tuple(rows), tuple(depths), len(results), len(set(images)), synthetic)


def better(metric: str) -> Literal["higher", "lower", "neither"]:
    """Which way a measure is better; of one with parts, that of the whole."""
    if metric in SEARCH:
        return "higher" if SEARCH[metric] == "higher" else "lower"
    if metric in MAP_METRICS:
        return MAP_METRICS[metric].better
    name = metric if metric in SCANPATH_METRICS else metric.rsplit(".", 1)[0]
    return SCANPATH_METRICS[name].better


def case_means(result: CaseResult) -> dict[tuple[str, str], dict[str, float]]:
    """By kind and measure, the mean over subjects of each source; NaN values are left out."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in result.rows:
        names = dict.fromkeys(name for values in row.values.values() for name in values)
        for name in names:
            known = [v for values in row.values.values() if not np.isnan(v := values.get(name, np.nan))]
            found.setdefault((row.kind, name), {})[row.source] = float(np.mean(known)) if known else float("nan")
    return found


def _tables(results: Sequence[CaseResult]) -> dict[tuple[str, str], dict[str, Array]]:
    """By kind and measure: (cases,) of each source, NaN where a case has none."""
    held = [case_means(one) for one in results]
    keys = dict.fromkeys(key for one in held for key in one)
    return {
        key: {
            source: np.array([one.get(key, {}).get(source, np.nan) for one in held])
            for source in dict.fromkeys(s for one in held for s in one.get(key, {}))
        }
        for key in keys
    }


def _row(
    kind: str, source: str, metric: str, table: Mapping[str, Array], images: list[str], draws: int, seed: int
) -> SummaryRow | None:
    values = table[source]
    known = np.isfinite(values)
    if not known.any():
        return None
    counts = np.column_stack([values[known], np.ones(int(known.sum()))])
    where = [image for image, ok in zip(images, known.tolist(), strict=True) if ok]
    value = bootstrap(counts, ratio, clusters=where, draws=draws, seed=seed)
    share = _of_ceiling(kind, metric, values, table, images, draws, seed)
    return SummaryRow(kind, source, metric, better(metric), value, share, int(known.sum()))


def _of_ceiling(
    kind: str, metric: str, values: Array, table: Mapping[str, Array], images: list[str], draws: int, seed: int
) -> Interval | None:
    floor, ceiling = table.get(FLOORS[kind]), table.get(PEOPLE)
    chance = MAP_METRICS[metric].chance if kind == "map" else None
    floor = np.full(len(values), chance) if chance is not None else floor
    if floor is None or ceiling is None:
        return None
    counts = np.column_stack([values - floor, ceiling - floor])
    known = np.asarray(np.isfinite(counts).all(axis=1))
    if not known.any() or counts[known, 1].sum() == 0:
        return None
    where = [image for image, ok in zip(images, known.tolist(), strict=True) if ok]
    return bootstrap(counts[known], ratio, clusters=where, draws=draws, seed=seed)


def _depth(
    kind: str, metric: str, table: Mapping[str, Array], images: list[str], draws: int, seed: int
) -> Depth | None:
    way = better(metric)
    plain = {name.removesuffix(WTA.format("")): name for name in table}
    layers = layers_of(list(plain))
    if len(layers) < 2 or way == "neither":
        return None
    held = np.column_stack([table[plain[name]] for name in layers])
    known = np.asarray(np.isfinite(held).all(axis=1))
    if not known.any():
        return None
    signed = held[known] * (1 if way == "higher" else -1)
    numbers = {
        image: n for n, image in enumerate(dict.fromkeys(i for i, ok in zip(images, known.tolist(), strict=True) if ok))
    }
    belongs = np.array([numbers[i] for i, ok in zip(images, known.tolist(), strict=True) if ok])
    sums = np.zeros((len(numbers), len(layers)))
    np.add.at(sums, belongs, signed)
    best = int(signed.mean(axis=0).argmax())
    rng = np.random.default_rng(seed)
    times = rng.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), draws)
    sure = float(((times @ sums).argmax(axis=1) == best).mean())
    means = tuple(float(v) for v in held[known].mean(axis=0))
    return Depth(kind, metric, tuple(layers), means, layers[best], sure)
