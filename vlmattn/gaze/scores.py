"""Many maps against many pictures' fixations, and the same of chance, centre bias and people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.display import Tabular, columns_of, html_table, panel, rows_of, said
from vlmattn.gaze.baselines import centre_map, leave_one_out, normalised, uniform_map
from vlmattn.gaze.density import smeared
from vlmattn.gaze.fixations import Fixations
from vlmattn.gaze.held_map import HeldMap, held_map, pixels_of, points_of, shares
from vlmattn.gaze.measures import DEFAULT_METRICS, MAP_METRICS, MapCase, MapMetric
from vlmattn.gaze.roc import Map

Array = NDArray[np.float64]
Baseline = Literal["uniform", "centre", "others"]


@dataclass(frozen=True, eq=False)
class MapScores(Tabular):
    """Measures of maps, picture by picture.

    Attributes:
        images: (n,) names. metrics: (m,) names of :data:`MAP_METRICS`. values: (n, m), NaN where there is no answer.
        fixations: (n,) how many were on each picture. settings: what densities and baselines were made with.
    """

    images: tuple[str | None, ...]
    metrics: tuple[str, ...]
    values: Array
    fixations: NDArray[np.int64]
    settings: Mapping[str, Any]

    def of(self, metric: str) -> Array:
        """(n,) one measure of every picture.

        Raises:
            SpecError: it was not measured.
        """
        if metric not in self.metrics:
            raise SpecError(f"{metric!r} was not measured; {list(self.metrics)} were")
        return np.asarray(self.values[:, self.metrics.index(metric)])

    def mean(self, metric: str, *, average: Literal["image", "fixation"] = "image") -> float:
        """Mean over pictures, each counted once or as often as it was fixated; NaN values are left out."""
        if average not in ("image", "fixation"):
            raise SpecError(f"average must be 'image' or 'fixation', got {average!r}")
        values = self.of(metric)
        known = ~np.isnan(values)
        weights = self.fixations[known] if average == "fixation" else np.ones(int(known.sum()))
        return float(np.average(values[known], weights=weights)) if weights.sum() > 0 else float("nan")

    def means(self, *, average: Literal["image", "fixation"] = "image") -> dict[str, float]:
        """:meth:`mean` of every measure."""
        return {name: self.mean(name, average=average) for name in self.metrics}

    def normalised(self, floor: MapScores, ceiling: MapScores) -> dict[str, float]:
        """Where the mean of each measure stands between two others', as of the centre bias (0) and of people (1)."""
        return {
            name: normalised(self.mean(name), floor=floor.mean(name), ceiling=ceiling.mean(name))
            for name in self.metrics
            if name in floor.metrics and name in ceiling.metrics
        }

    def to_columns(self) -> dict[str, list[Any]]:
        """One row per picture, in columns that ``pandas.DataFrame`` takes."""
        told = {name: self.values[:, i].tolist() for i, name in enumerate(self.metrics)}
        return {"image": list(self.images), "fixations": self.fixations.tolist(), **told}

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict per picture."""
        return rows_of(self.to_columns())

    def _repr_html_(self) -> str:
        mean = {"image": "mean over pictures", **self.means()}
        return panel(
            f"{len(self.images)} pictures", html_table(*columns_of([mean, *self.to_dicts()])), note=said(self.settings)
        )

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {value:.4g}" for name, value in self.means().items())
        return f"MapScores({len(self.images)} pictures: {told})"


class Pictures:
    """Pictures that were looked at, and what maps of them are measured against; made once, used by many maps.

    Args:
        fixations: of any number of pictures; those off a picture are left out. sigma: of densities, in pixels.
        baseline: of information gain: ``uniform``, ``centre`` (a Gaussian, a quarter of the picture wide) or
            ``others`` (the density of all other pictures' fixations, with 1 % uniform). seed: of measures that draw.

    Raises:
        SpecError: scanpaths without a picture's name, another baseline, or sigma below 0.
    """

    def __init__(self, fixations: Fixations, *, sigma: float, baseline: Baseline = "uniform", seed: int = 0) -> None:
        if baseline not in ("uniform", "centre", "others"):
            raise SpecError(f"baseline must be 'uniform', 'centre' or 'others', got {baseline!r}")
        if not (np.isfinite(sigma) and sigma >= 0):
            raise SpecError(f"sigma must be 0 pixels or more, got {sigma}")
        if None in fixations.images:
            raise SpecError("scanpaths without the name of their picture cannot be matched with maps")
        self.fixations, self.sigma, self.baseline, self.seed = fixations, sigma, baseline, seed
        self._groups = {str(name): group for name, group in fixations.by_image().items()}
        self._points = {name: points_of(group, group[0].image_wh) for name, group in self._groups.items()}
        self._numbers = {name: number for number, name in enumerate(self._points)}
        self._pools: dict[tuple[int, int], tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._all: dict[tuple[int, int], Array] = {}

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the pictures."""
        return tuple(self._groups)

    def size(self, image: str) -> tuple[int, int]:
        """Width and height of a picture. Raises SpecError: nobody looked at it."""
        if image not in self._groups:
            raise SpecError(f"nobody looked at {image!r}: there are fixations on {len(self._groups)} other pictures")
        return self._groups[image][0].image_wh

    def of(self, image: str) -> Fixations:
        """The scanpaths on a picture."""
        self.size(image)
        return self._groups[image]

    def count(self, image: str) -> int:
        """How many fixations are on a picture."""
        self.size(image)
        return len(self._points[image])

    def density(self, image: str) -> HeldMap:
        """Where people looked on a picture."""
        wh = self.size(image)
        return HeldMap(shares(smeared(self._pixels(image), wh, self.sigma)))

    def others(self, image: str) -> NDArray[np.int64]:
        """(m,) pixels of a picture where people looked on other pictures."""
        pool, belongs = self._pool(self.size(image))
        return pool[belongs != self._numbers[image]]

    def bias(self, image: str) -> HeldMap:
        """The density of fixations on all other pictures, with 1 % uniform."""
        wh = self.size(image)
        if wh not in self._all:
            self._all[wh] = smeared(self._pool(wh)[0], wh, self.sigma)
        own = smeared(self._pixels(image), wh, self.sigma)
        return HeldMap(0.99 * shares(np.maximum(self._all[wh] - own, 0.0)) + 0.01 / (wh[0] * wh[1]))

    def case(self, image: str, map: Map, needs: Iterable[str] = ("density", "baseline", "others")) -> MapCase:
        """A picture's map with what measures of those ``needs`` are made of."""
        wanted = set(needs)
        return MapCase(
            held_map(map),
            self._pixels(image),
            (self.seed, self._numbers[image]),
            self.density(image) if "density" in wanted else None,
            self._base(image) if "baseline" in wanted else None,
            self.others(image) if "others" in wanted else None,
        )

    def _pixels(self, image: str) -> NDArray[np.int64]:
        return pixels_of(self._points[image], self.size(image))

    def _base(self, image: str) -> HeldMap | None:
        if self.baseline == "uniform":
            return None
        return self.bias(image) if self.baseline == "others" else HeldMap(centre_map(self.size(image)))

    def _pool(self, wh: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(all,) pixels of a picture of that size for every fixation on any picture, in the order of pixels, which
        makes looking their values up quick; and the number of the picture that each belongs to."""
        if wh not in self._pools:
            moved = [points * np.divide(wh, self.size(name)) for name, points in self._points.items()]
            pixels = pixels_of(np.concatenate(moved), wh)
            belongs = np.repeat(np.arange(len(moved)), [len(points) for points in moved])
            order = np.argsort(pixels, kind="stable")
            self._pools[wh] = pixels[order], belongs[order]
        return self._pools[wh]


def score_maps(
    maps: Mapping[str, Map] | Iterable[tuple[str, Map]],
    pictures: Pictures,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> MapScores:
    """Measures of maps against people's fixations, picture by picture.

    Args:
        maps: by the picture's name, or pairs of name and map, which are taken one at a time and not kept. metrics:
            names of :data:`MAP_METRICS`.

    Raises:
        SpecError: another metric, or a picture that nobody looked at. MapError: a map of another size than its picture.

    Example:
        >>> from vlmattn.gaze import Fixations, Scanpath
        >>> looked = Fixations([Scanpath([1.5, 1.5], [0.5, 0.5], (2, 1), image="a")])
        >>> score_maps({"a": [[0.0, 1.0]]}, Pictures(looked, sigma=0.0), metrics=["nss[pysaliency]"]).means()
        {'nss[pysaliency]': 1.0}
    """
    chosen = _chosen(metrics)
    rows: list[list[float]] = []
    names: list[str] = []
    for image, one in maps.items() if isinstance(maps, Mapping) else maps:
        held, wh = held_map(one), pictures.size(image)
        if held.image_wh != wh:
            raise MapError(
                f"the map of {image!r} has {held.image_wh[0]}x{held.image_wh[1]} pixels, its picture {wh[0]}x{wh[1]}: "
                "resize the map (resized_map)"
            )
        case = pictures.case(image, held, _needs(chosen))
        rows.append([metric(case) for metric in chosen])
        names.append(image)
    return _scores(pictures, names, chosen, rows)


def score_baseline(
    pictures: Pictures,
    kind: Literal["uniform", "centre", "others", "people"],
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> MapScores:
    """What chance, centre bias or people get on the same pictures.

    Args:
        kind: ``uniform``: an even map; ``centre``: a Gaussian round the middle; ``others``: the density of fixations
            on other pictures; ``people``: for each subject the density of all other subjects at this one's fixations,
            mean over subjects (leave one out). A picture with one subject gets NaN there.
    """
    makers: dict[str, Callable[[str], Map]] = {
        "uniform": lambda image: uniform_map(pictures.size(image)),
        "centre": lambda image: centre_map(pictures.size(image)),
        "others": pictures.bias,
    }
    if kind in makers:
        return score_maps(((image, makers[kind](image)) for image in pictures.images), pictures, metrics=metrics)
    if kind != "people":
        raise SpecError(f"kind must be 'uniform', 'centre', 'others' or 'people', got {kind!r}")
    chosen = _chosen(metrics)
    rows = [_people(pictures, image, chosen) for image in pictures.images]
    return _scores(pictures, pictures.images, chosen, rows)


def _people(pictures: Pictures, image: str, chosen: Sequence[MapMetric]) -> list[float]:
    """Mean over subjects of the density of the others, measured at each one's fixations."""
    plain = pictures.case(image, uniform_map(pictures.size(image)), _needs(chosen) - {"density"})

    def score(density: Array, own: Fixations) -> list[float]:
        pixels = pixels_of(own, pictures.size(image))
        truth = HeldMap(shares(smeared(pixels, pictures.size(image), pictures.sigma)))
        case = replace(plain, map=HeldMap(density), pixels=pixels, density=truth)
        return [metric(case) for metric in chosen]

    rows = list(leave_one_out(pictures.of(image), score, sigma=pictures.sigma).values())
    return np.mean(rows, axis=0).tolist() if rows else [float("nan")] * len(chosen)


def _scores(
    pictures: Pictures, images: Sequence[str], chosen: Sequence[MapMetric], rows: Sequence[Sequence[float]]
) -> MapScores:
    values = np.asarray(rows, dtype=np.float64).reshape(len(rows), len(chosen))
    settings = {"sigma": pictures.sigma, "baseline": pictures.baseline, "seed": pictures.seed}
    counts = np.asarray([pictures.count(image) for image in images], dtype=np.int64)
    return MapScores(tuple(images), tuple(metric.name for metric in chosen), values, counts, settings)


def _chosen(metrics: Sequence[str]) -> list[MapMetric]:
    unknown = [name for name in metrics if name not in MAP_METRICS]
    if unknown or isinstance(metrics, str):
        raise SpecError(f"metrics must be a list of {sorted(MAP_METRICS)}, got {metrics!r}")
    return [MAP_METRICS[name] for name in metrics]


def _needs(chosen: Sequence[MapMetric]) -> set[str]:
    return {need for metric in chosen for need in metric.needs}
