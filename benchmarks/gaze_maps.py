"""How fast maps are measured against fixations: ``python benchmarks/gaze_maps.py --maps 1000 --json gaze-maps.json``.

Smooth maps of 1024 x 768 with 150 fixations each; 20 are drawn and reused under other fixations, so that a
thousand do not fill the memory. CPU time of one thread per map, by measure and of all together,
where what one map's measures share is worked out once. pysaliency is timed beside it on the same maps and fixations if
it can be imported (``--pysaliency N`` maps of them; it needs numpy below 2.4), and its values are compared.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paired import cpu_seconds
from vlmattn.gaze import Fixations, HeldMap, Pictures, Scanpath, score_maps
from vlmattn.gaze.density import gaussian

WH = (1024, 768)
SIGMA = 35.0
MEASURES = (
    "auc[uniform]",
    "auc_judd[pysaliency]",
    "sauc[exact]",
    "nss[pysaliency]",
    "cc[pysaliency]",
    "sim[pysaliency]",
    "kl[mit]",
)


def drawn(kinds: int, seed: int = 0) -> list[Any]:
    """Smooth maps that differ."""
    rng = np.random.default_rng(seed)
    return [gaussian(rng.random(WH[::-1]) ** 8, rng.uniform(8, 30)) for _ in range(kinds)]


def looked_at(maps: int, fixations: int, seed: int = 1) -> Fixations:
    """Fixations near the middle of every picture."""
    rng = np.random.default_rng(seed)
    points = np.clip(rng.normal(0.5, 0.2, (maps, fixations, 2)), 0, 0.999) * WH
    return Fixations(tuple(Scanpath.from_points(p, WH, image=f"{i:05d}") for i, p in enumerate(points)))


class Timed(Pictures):
    """Pictures that tell how long their densities took."""

    spent = 0.0

    def density(self, image: str) -> HeldMap:
        """As in :class:`Pictures`, and clocked."""
        made: list[HeldMap] = []
        self.spent += cpu_seconds(lambda: made.append(Pictures.density(self, image)))
        return made[0]


def ours(count: int, maps: list[Any], looked: Fixations) -> dict[str, Any]:
    """Milliseconds of CPU time per map: densities of fixations, each measure, all together (without the densities)."""
    pictures = Timed(looked, sigma=SIGMA)
    pairs = [(name, maps[i % len(maps)]) for i, name in enumerate(pictures.images[:count])]
    score_maps(pairs[:1], pictures, metrics=MEASURES)  # the first one makes what all share
    told: dict[str, Any] = {}

    def spent(metrics: Sequence[str], some: list[Any]) -> tuple[float, float]:
        pictures.spent = 0.0
        whole = cpu_seconds(lambda: told.update(scores=score_maps(some, pictures, metrics=metrics)))
        return (whole - pictures.spent) / len(some) * 1e3, pictures.spent / len(some) * 1e3

    few = pairs[: max(1, count // 10)]
    each = {name: spent([name], few)[0] for name in MEASURES}
    together, densities = spent(MEASURES, pairs)
    measured = {"density": densities, "each": each, "together": together}
    return {**measured, "scores": told["scores"], "pictures": pictures}


def theirs(count: int, maps: list[Any], looked: Fixations, pictures: Pictures) -> dict[str, Any] | None:
    """The same by pysaliency, or None if it is not there."""
    try:
        import pysaliency
        from pysaliency.saliency_map_models import SaliencyMapModel
    except Exception as error:
        print(f"pysaliency cannot be imported: {error}")
        return None
    rng = np.random.default_rng(2)
    stimuli = pysaliency.Stimuli([rng.integers(0, 255, (*WH[::-1], 3), dtype=np.uint8) for _ in range(count)])
    points = [path.xy for path in looked][:count]
    everywhere = np.concatenate([path.xy for path in looked])
    belongs = np.concatenate([np.full(len(path), i) for i, path in enumerate(looked)])

    def elsewhere(_stimuli: Any, held: Any, at: int) -> Any:
        # What pysaliency's own provider does, with the fixations of all pictures, not only of those it is timed on.
        kept = belongs != held.n[at]
        return everywhere[kept, 0].astype(int), everywhere[kept, 1].astype(int)

    n = np.concatenate([np.full(len(p), i) for i, p in enumerate(points)])
    fixations = _fixations(pysaliency, np.concatenate(points), n)

    class Held(SaliencyMapModel):
        def __init__(self, held: list[Any]) -> None:
            super().__init__(caching=False)
            self.held = {stimuli.stimulus_ids[i]: held[i] for i in range(count)}

        def saliency_map(self, stimulus: Any) -> Any:
            return self.held[getattr(stimulus, "stimulus_id", None) or pysaliency.datasets.get_image_hash(stimulus)]

        def _saliency_map(self, stimulus: Any) -> Any:
            raise NotImplementedError

    model = Held([np.asarray(maps[i % len(maps)], dtype=np.float64) for i in range(count)])
    gold = Held([pictures.density(name).values for name in pictures.images[:count]])
    runs: dict[str, Callable[[], Any]] = {
        "auc[uniform]": lambda: model.AUC_per_image(stimuli, fixations),
        "auc_judd[pysaliency]": lambda: model.AUC_Judd(stimuli, fixations, jitter=False),
        "sauc[exact]": lambda: model.AUC_per_image(stimuli, fixations, nonfixations=elsewhere),
        "nss[pysaliency]": lambda: model.NSSs(stimuli, fixations),
        "cc[pysaliency]": lambda: model.CCs(stimuli, gold),
        "sim[pysaliency]": lambda: model.SIMs(stimuli, gold),
        "kl[mit]": lambda: model.image_based_kl_divergences(
            stimuli, gold, minimum_value=0, log_regularization=2.2204e-16, quotient_regularization=2.2204e-16
        ),
    }
    values: dict[str, Any] = {}
    runs["auc[uniform]"]()  # numba compiles
    each = {m: cpu_seconds(lambda m=m: values.update({m: np.asarray(runs[m]())})) / count * 1e3 for m in MEASURES}
    made = pysaliency.FixationMap(stimuli, fixations, kernel_size=SIGMA, convolution_mode="nearest", caching=False)
    few = range(min(3, count))
    densities = cpu_seconds(lambda: [made.saliency_map(stimuli[i]) for i in few]) / len(few) * 1e3
    return {"each": each, "together": sum(each.values()), "density": densities, "values": values}


def _fixations(pysaliency: Any, xy: Any, n: Any) -> Any:
    hist = np.full((len(xy), 1), np.nan)
    zeros = np.zeros(len(xy), int)
    return pysaliency.Fixations(xy[:, 0], xy[:, 1], zeros, hist, hist, hist, n, zeros)


def differences(mine: dict[str, Any], other: dict[str, Any], count: int) -> Iterator[tuple[str, float]]:
    """The largest difference of each measure that both give per picture."""
    for name in MEASURES:
        values = other["values"][name]
        if values.shape == (count,):
            yield name, float(np.abs(values - mine["scores"].of(name)[:count]).max())


def of(measured: dict[str, Any], name: str) -> float:
    """Milliseconds of a measure, of all measures together, of the density of fixations, or of all of that."""
    if name == "all of it":
        return float(measured["together"] + measured["density"])
    return float(measured["each"].get(name, measured.get(name)))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=1000)
    parser.add_argument("--fixations", type=int, default=150)
    parser.add_argument("--pysaliency", type=int, default=20, help="maps that pysaliency is timed on")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    maps, looked = drawn(20), looked_at(args.maps, args.fixations)
    mine = ours(args.maps, maps, looked)
    count = min(args.pysaliency, args.maps)
    other = theirs(count, maps, looked, mine["pictures"]) if count else None
    print(f"{args.maps} maps of {WH[0]}x{WH[1]}, {args.fixations} fixations each; CPU ms per map")
    print(f"{'measure':24}{'vlmattn':>10}{'pysaliency':>12}{'ratio':>8}")
    for name in (*MEASURES, "together", "density", "all of it"):
        a, b = (None if one is None else of(one, name) for one in (mine, other))
        print(f"{name:24}{a:10.2f}" + ("" if a is None or b is None else f"{b:12.2f}{b / a:8.1f}"))
    apart = {} if other is None else dict(differences(mine, other, count))
    if apart:
        print("largest differences: " + ", ".join(f"{name} {value:.1e}" for name, value in apart.items()))
    if args.json:
        kept = {"maps": args.maps, "fixations": args.fixations, "differences": apart}
        kept["vlmattn"] = {k: mine[k] for k in ("each", "together", "density")}
        kept["pysaliency"] = None if other is None else {k: other[k] for k in ("each", "together", "density")}
        args.json.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
