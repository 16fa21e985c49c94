"""One case measured: the model's maps and scanpaths, those of every baseline, and people among themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.core.images import Picture
from vlmattn.evaluate.gaze.cases import GazeCase
from vlmattn.evaluate.gaze.lookers import Looked, Looker
from vlmattn.evaluate.gaze.search import saccades_to_target
from vlmattn.gaze import (
    DEFAULT_METRICS,
    MAP_METRICS,
    Fixations,
    HeldMap,
    MapCase,
    Scanpath,
    centre_bias,
    centre_map,
    fixation_density,
    held_map,
    other_points,
    pixels_of,
    uniform_map,
)
from vlmattn.gaze.density import gaussian
from vlmattn.gaze.held_map import counted, shares
from vlmattn.gaze.models import (
    Inhibition,
    centre_scanpath,
    itti_koch,
    other_scanpath,
    random_walk,
    uniform_scanpath,
    winner_take_all,
)
from vlmattn.gaze.models.attention import values_of_map
from vlmattn.gaze.scanpaths import DEFAULT_SCANPATH_METRICS, scanpath_matrix
from vlmattn.gaze.scanpaths.measures import scanpath_metric

Array = NDArray[np.float64]
Values = dict[str, float]
PEOPLE, CONSENSUS = "people", "people's map"
FLOORS = {"map": "uniform", "scanpath": "random places", "search": "random places"}
"""What a model that knows nothing does: where a share of the ceiling begins."""
WTA = "{}, winner-take-all"
STEPS = 6
SEARCH = {f"found within {STEPS} saccades": "higher", "saccades to the target": "lower"}
"""Measures of search, and which way is better; a scanpath that does not find the target in time counts one more."""


@dataclass(frozen=True)
class Measuring:
    """How cases are measured.

    Attributes:
        map_metrics, scanpath_metrics: names in ``MAP_METRICS`` and ``SCANPATH_METRICS``. degree: deviation of densities
            where no screen is known, as a share of the picture's longer side; where one is, it is one degree of visual
            angle. inhibition: radius of inhibition of return in these deviations. draws: scanpaths of each baseline
            that draws, of which the mean counts. seed: of those.
        begins: ``centre`` where people were made to begin in the middle of the picture: that first fixation then takes
            no part in measures of maps, and every made scanpath begins there too; ``free`` where they were not.
        rescale: bring scanpaths on a picture of another size to that of the picture, which was then shown whole.

    Raises:
        SpecError: no such measure, or a number out of range.
    """

    map_metrics: tuple[str, ...] = DEFAULT_METRICS
    scanpath_metrics: tuple[str, ...] = DEFAULT_SCANPATH_METRICS
    degree: float = 0.035
    inhibition: float = 2.5
    draws: int = 5
    seed: int = 0
    begins: Literal["free", "centre"] = "free"
    rescale: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.map_metrics if name not in MAP_METRICS]
        if unknown:
            raise SpecError(f"there is no map metric {unknown[0]!r}; there are {sorted(MAP_METRICS)}")
        for name in self.scanpath_metrics:
            scanpath_metric(name)
        if self.begins not in ("free", "centre"):
            raise SpecError(f"scanpaths begin 'free' or in the 'centre', got {self.begins!r}")
        if not (0 < self.degree < 1 and self.inhibition > 0 and self.draws >= 1):
            raise SpecError(f"degree must be in (0, 1), inhibition above 0 and draws 1 or more, got {self}")

    def sigma_px(self, people: Fixations) -> float:
        """Deviation of densities in pixels of the picture."""
        screens = {path.screen.pixels_per_degree for path in people if path.screen is not None}
        return float(screens.pop()) if len(screens) == 1 else self.degree * max(people[0].image_wh)


@dataclass(frozen=True)
class CaseRow:
    """One source on one case: ``kind`` is ``map``, ``scanpath`` or ``search``; ``values`` by subject and measure.

    Of search there is one line ``all`` for each source but people: it is measured against the target, not a subject.
    """

    kind: str
    source: str
    values: Mapping[str, Values]


@dataclass(frozen=True)
class CaseResult:
    """One case measured.

    Attributes:
        case: its name. image, task, question: of it. subjects: who looked. rows: what every source gets against each
            subject. facts: the model's answer and the like. paths: some scanpaths of the model, for drawing.
    """

    case: str
    image: str
    task: str | None
    question: str
    subjects: tuple[str, ...]
    rows: tuple[CaseRow, ...]
    facts: Mapping[str, Any]


def measure_case(
    case: GazeCase, picture: Picture, looker: Looker, everybody: Fixations, how: Measuring
) -> tuple[CaseResult, Looked, dict[str, Scanpath]]:
    """A case measured, what the model saw, and the scanpaths of the sources that have one for all subjects.

    Args:
        everybody: scanpaths on all pictures, for what people do elsewhere.

    Raises:
        SpecError: scanpaths of another size than the picture.
    """
    people = _people(case, picture, how)
    look = looker.look(picture, case.question, case.word)
    wrong = None if case.wrong is None else looker.look(picture, case.wrong, None, whole=False)
    measured = _Case(case, people, everybody, how, picture)
    maps = measured.maps(look, wrong)
    paths = measured.paths(maps, look)
    rows = [*measured.map_rows(maps), *measured.scanpath_rows(paths), *measured.search_rows(paths)]
    facts = {**look.facts, "sigma_px": how.sigma_px(people), "count": measured.count}
    subjects = tuple(str(path.subject) for path in people)
    result = CaseResult(case.name, case.image, case.task, case.question, subjects, tuple(rows), facts)
    return result, look, {name: some[0] for name, some in paths.items() if len(some) == 1}


def _people(case: GazeCase, picture: Picture, how: Measuring) -> Fixations:
    wh = picture.wh
    looked = case.people.scaled_to(wh) if how.rescale else case.people
    if looked[0].image_wh != wh:
        raise SpecError(
            f"the scanpaths on {case.image!r} are on {case.people[0].image_wh} pixels, the picture has {wh}: "
            "rescale=True (--rescale) brings them there if the picture was shown whole"
        )
    kept = [path for path in looked.outside("drop") if len(path)]
    if not kept:
        raise SpecError(f"nobody has a fixation on {case.name!r}")
    return Fixations(tuple(kept))


@dataclass
class _Case:
    case: GazeCase
    people: Fixations
    everybody: Fixations
    how: Measuring
    picture: Picture

    def __post_init__(self) -> None:
        self.wh = self.people[0].image_wh
        self.sigma = self.how.sigma_px(self.people)
        self.count = max(1, round(float(np.mean([len(path) for path in self.people]))))
        self.inhibition = Inhibition(self.how.inhibition * self.sigma)
        self.middle = self.how.begins == "centre"
        self.later = Fixations(tuple(map(self._later, self.everybody)))
        self.elsewhere = other_points(self.later, self.case.image, self.wh)
        self.rng = np.random.default_rng([self.how.seed, int(self.case.key[:8], 16)])

    def _later(self, path: Scanpath) -> Scanpath:
        """The fixations that count where maps are measured."""
        return path.take(slice(1, None)) if self.middle else path

    def others(self, number: int) -> Array | None:
        """(H, W) density of everybody but one on this picture; None if there is nobody else."""
        rest = Fixations(tuple(self._later(path) for n, path in enumerate(self.people) if n != number))
        return fixation_density(rest, self.wh, sigma=self.sigma) if rest.count else None

    def maps(self, look: Looked, wrong: Looked | None) -> dict[str, HeldMap]:
        """Every map that is the same for all subjects."""
        found = {name: HeldMap(values_of_map(one)) for name, one in look.maps.items()}
        if wrong is not None:
            found["model, wrong question"] = HeldMap(values_of_map(wrong.maps["model"]))
        found["saliency (Itti-Koch)"] = held_map(itti_koch(self.picture))
        found["centre"] = held_map(centre_map(self.wh))
        if len(self.elsewhere):
            bias = centre_bias(self.later, self.case.image, self.wh, sigma=self.sigma)
            found["other pictures"] = held_map(bias)
        found["uniform"] = held_map(uniform_map(self.wh))
        return found

    def map_rows(self, maps: Mapping[str, HeldMap]) -> list[CaseRow]:
        """Maps against each subject's fixations; of people, the density of all others."""
        ground = [self._ground(self._later(path)) for path in self.people]
        rows = []
        for name, one in maps.items():
            rows.append(CaseRow("map", name, self._by_subject([self._map_values(one, g) for g in ground])))
        dense = [self.others(number) for number in range(len(self.people))]
        if all(one is not None for one in dense):
            values = [self._map_values(_mixed(one), g) for one, g in zip(dense, ground, strict=True)]
            rows.append(CaseRow("map", PEOPLE, self._by_subject(values)))
        return rows

    def _ground(self, path: Scanpath) -> MapCase:
        pixels = pixels_of(path, self.wh)
        truth = HeldMap(shares(gaussian(counted(pixels, self.wh), self.sigma)))
        others = pixels_of(self.elsewhere, self.wh) if len(self.elsewhere) else None
        return MapCase(held_map(uniform_map(self.wh)), pixels, (self.how.seed,), truth, None, others)

    def _map_values(self, one: HeldMap, ground: MapCase) -> Values:
        case = replace(ground, map=one)
        told = {}
        for name in self.how.map_metrics:
            metric = MAP_METRICS[name]
            told[name] = float("nan") if "others" in metric.needs and case.others is None else metric(case)
        return told

    def paths(self, maps: Mapping[str, HeldMap], look: Looked) -> dict[str, list[Scanpath]]:
        """Scanpaths of every source: one for all subjects, several drawn ones, or one for each subject."""
        found: dict[str, list[Scanpath]] = {}
        for name, one in maps.items():
            if name != "uniform":
                found[WTA.format(name)] = [self._winners(one.values)]
        for name, path in look.scanpaths.items():
            found[name] = [path.outside("clip")]
        n, rng = range(self.how.draws), self.rng
        found["random places"] = [self._begun(uniform_scanpath(self.wh, count=self.count, rng=rng)) for _ in n]
        found["random walk"] = [random_walk(self.wh, count=self.count, rng=rng) for _ in n]
        bias = maps["other pictures"].values if "other pictures" in maps else None
        found["centre places"] = [
            self._begun(centre_scanpath(self.wh, count=self.count, rng=rng, density=bias)) for _ in n
        ]
        if len(self.elsewhere):
            found["people, another picture"] = [
                other_scanpath(self.everybody, self.case.image, self.wh, rng=rng) for _ in n
            ]
        return found

    def _begun(self, path: Scanpath) -> Scanpath:
        """The scanpath with its first fixation where people had to begin."""
        if not self.middle:
            return path
        x, y = path.x.copy(), path.y.copy()
        x[0], y[0] = self.wh[0] / 2, self.wh[1] / 2
        return replace(path, x=x, y=y)

    def _winners(self, values: Array) -> Scanpath:
        start: Any = "centre" if self.middle else "winner"
        return winner_take_all(values, count=self.count, inhibition=self.inhibition, start=start)

    def scanpath_rows(self, paths: Mapping[str, list[Scanpath]]) -> list[CaseRow]:
        """Scanpaths against each subject's; of people, the mean over all others."""
        mine, flat = list(self.people), [one for some in paths.values() for one in some]
        own = [self.others(number) for number in range(len(mine))]
        consensus = [self._winners(one) for one in own if one is not None]
        ends = np.cumsum([0, *(len(some) for some in paths.values())])
        found: dict[str, list[Values]] = {name: [{} for _ in mine] for name in paths}
        both: dict[str, list[Values]] = {PEOPLE: [{} for _ in mine], CONSENSUS: [{} for _ in mine]}
        for metric in self.how.scanpath_metrics:
            table = scanpath_matrix(mine, [*flat, *consensus, *mine], metric=metric)
            for part, name in enumerate(table.metric.names):
                values = table.values[:, :, part]
                for number, source in enumerate(paths):
                    if name.endswith(".duration") and not source.startswith(PEOPLE):
                        continue  # durations of made scanpaths are assumed, and constant ones score high
                    means = _mean(values[:, ends[number] : ends[number + 1]])
                    for subject, value in enumerate(means):
                        found[source][subject][name] = value
                if len(consensus) == len(mine):
                    self._among(both, name, values[:, len(flat) :])
        if len(consensus) == len(mine):
            for one in both[CONSENSUS]:
                for name in [n for n in one if n.endswith(".duration")]:
                    del one[name]
        rows = [CaseRow("scanpath", name, self._by_subject(some)) for name, some in found.items()]
        return rows + [CaseRow("scanpath", n, self._by_subject(v)) for n, v in both.items() if v[0]]

    def _among(self, both: dict[str, list[Values]], name: str, values: Array) -> None:
        """What each subject shares with the map of all others and, on average, with each of them."""
        n = len(self.people)
        apart = np.where(np.eye(n, dtype=bool), np.nan, values[:, n:])
        for subject, (single, mean) in enumerate(zip(np.diag(values[:, :n]), _mean(apart), strict=True)):
            both[CONSENSUS][subject][name] = float(single)
            both[PEOPLE][subject][name] = mean

    def search_rows(self, paths: Mapping[str, list[Scanpath]]) -> list[CaseRow]:
        """How soon scanpaths come to the target, where the case has one."""
        box = self.case.target_box_xyxy
        if box is None:
            return []
        needed = {name: saccades_to_target(some, [box] * len(some), STEPS) for name, some in paths.items()}
        rows = [CaseRow("search", name, {"all": _searched(some)}) for name, some in needed.items()]
        mine = [_searched(saccades_to_target([path], [box], STEPS)) for path in self.people]
        return [*rows, CaseRow("search", PEOPLE, self._by_subject(mine))]

    def _by_subject(self, values: Sequence[Values]) -> dict[str, Values]:
        """By subject; several scanpaths of one are told apart by number."""
        told: dict[str, Values] = {}
        for path, one in zip(self.people, values, strict=True):
            name, n = str(path.subject), 2
            while name in told:
                name, n = f"{path.subject} ({n})", n + 1
            told[name] = one
        return told


def _searched(needed: Array) -> Values:
    found, after = SEARCH
    return {found: float((needed <= STEPS).mean()), after: float(needed.mean())}


def _mixed(density: Array | None) -> HeldMap:
    """1 % uniform, so that nothing is impossible, as of the other densities here."""
    held = np.asarray(density)
    return HeldMap(0.99 * held + 0.01 / held.size)


def _mean(values: Array) -> list[float]:
    """Mean of each row without NaN; NaN where there is nothing else."""
    known = ~np.isnan(values)
    counts = known.sum(axis=1)
    sums = np.where(known, values, 0.0).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).tolist()
