"""How alike people's scanpaths on OSIE are, beside chance: ``python benchmarks/gaze_osie.py fixations.mat``.

Rows, as a model's row should be read between them: people with people on the same picture; with uniform fixations; with
fixations drawn from where people look on other pictures; with a person on another picture; with winner-take-all and
inhibition of return (a disc of 60 pixels) on the density of everybody else's fixations on the picture; and, with
``--pictures FOLDER`` (1009.jpg ...), on the spectral residual and on Itti and Koch's saliency of the picture. The 70
pictures that papers test on (Chen et al., CVPR 2021), or those named. ``--reference`` compares means with a table of
the same settings and exits 1 beyond the tolerance: 0.0002 for people with people, which draws nothing (sequence scores
0.002); for rows that are drawn, four standard errors of a mean over pictures; 0.005 (or half a percent) for everybody
else's density, whose ties and borders differ; 0.05, or a tenth, for saliency maps, which programs make differently.
The sequence score takes seconds per picture: ``--clusters N`` measures it on the first N pictures, of every row, in
``--workers`` processes, and compares that of people picture by picture.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vlmattn.core.images import load_image
from vlmattn.gaze import Scanpath, fixation_density, read_osie
from vlmattn.gaze.models import Durations, Inhibition, itti_koch, spectral_residual, winner_take_all
from vlmattn.gaze.scanpaths import SCANPATH_METRICS, FixationClusters, sequence_score

NAMES = {
    "mm_vector": "multimatch[ties=diagonal].shape",
    "mm_direction": "multimatch[ties=diagonal].direction",
    "mm_length": "multimatch[ties=diagonal].length",
    "mm_position": "multimatch[ties=diagonal].position",
    "mm_duration": "multimatch[ties=diagonal].duration",
    "scanmatch": "scanmatch[matlab, 16x12, T 3.5]",
    "scanmatch_dur50": "scanmatch[matlab, 16x12, T 3.5, 50 ms]",
    "sed5": "string_edit[vame 5x5]",
    "stde": "scaled_time_delay[similarity]",
    "eyenalysis_px": "eyenalysis[sum]",
    "dtw_px_per_step": "dtw[per step, px]",
}
METRICS = [m for m in SCANPATH_METRICS.values() if set(m.names) & set(NAMES.values())]
WH = (800, 600)
FIXATIONS, DURATION = 9, 0.214
Row = dict[str, np.ndarray]
Pair = tuple[Scanpath, Scanpath]
SALIENCY = {"spectral_residual_WTA_IOR60": spectral_residual, "itti_koch_WTA_IOR60": itti_koch}


def people(path: Path, as_in_file: bool) -> dict[str, list[Scanpath]]:
    """Scanpaths of three fixations or more by picture; ``as_in_file`` puts half a pixel back that the reader takes."""
    shift = 0.5 if as_in_file else 0.0
    told: dict[str, list[Scanpath]] = {}
    for one in read_osie(path):
        if len(one) >= 3:
            moved = replace(one, x=one.x + shift, y=one.y + shift)
            told.setdefault(str(one.image).partition(".")[0], []).append(moved)
    return told


def values(one: list[Scanpath], other: list[Scanpath], pairs: list[tuple[int, int]]) -> Row:
    """Every measure of pairs of two lists; the person comes first."""
    paths, index = one + other, np.array(pairs, dtype=np.int64).reshape(-1, 2)
    found: Row = {}
    for metric in METRICS:
        told = metric.run(paths, index[:, 0], index[:, 1] + len(one))
        found |= {name: told[:, column] for column, name in enumerate(metric.names)}
    return {short: found[name] for short, name in NAMES.items()}


def values_of(pairs: Sequence[Pair]) -> Row:
    """The same of pairs of scanpaths."""
    return values([one for one, _ in pairs], [other for _, other in pairs], [(n, n) for n in range(len(pairs))])


def winners(density: Any) -> Scanpath:
    """Nine fixations on a map."""
    return winner_take_all(
        density, count=FIXATIONS, inhibition=Inhibition(60.0), durations=Durations(seconds=DURATION, saccade=0.0)
    )


def without_one(group: list[Scanpath]) -> list[Scanpath]:
    """For each of a picture's people, winner-take-all on where all others looked."""
    kept = [p.xy[(p.xy >= 0).all(axis=1) & (p.xy < WH).all(axis=1)] for p in group]
    return [
        winners(fixation_density(np.concatenate(kept[:n] + kept[n + 1 :]), WH, sigma=24.0)) for n in range(len(group))
    ]


def made(points: Any) -> Scanpath:
    """A scanpath of even durations."""
    return Scanpath.from_points(points, WH, duration=[DURATION] * len(points))


def drawn_from(density: Any, rng: np.random.Generator) -> Scanpath:
    """Fixations drawn from a density, pixel by pixel."""
    cells = rng.choice(density.size, FIXATIONS, p=density.ravel())
    return made(np.column_stack([cells % WH[0], cells // WH[0]]) + 0.5)


def pairs_of(
    held: dict[str, list[Scanpath]], images: list[str], seed: int, pictures: Path | None
) -> dict[str, list[list[Pair]]]:
    """By row and picture: people's scanpaths, each with what it is compared with."""
    rng = np.random.default_rng(seed)
    rest = np.concatenate([p.xy for name, group in held.items() if name not in images for p in group])
    inside = (rest >= 0).all(axis=1) & (rest < WH).all(axis=1)
    bias = fixation_density(rest[inside], WH, sigma=24.0)
    density = bias / bias.sum()
    told: dict[str, list[list[Pair]]] = {}
    for name in images:
        group = held[name]

        def add(row: str, others: Sequence[Scanpath], mine: list[Scanpath] = group) -> None:
            told.setdefault(row, []).append(list(zip(mine, others, strict=True)))

        told.setdefault("human_vs_human", []).append([(a, b) for a in group for b in group if a is not b])
        add("random_uniform", [made(rng.random((FIXATIONS, 2)) * WH)] * len(group))
        add("centre_bias_sample", [drawn_from(density, rng)] * len(group))
        away = [held[rng.choice([o for o in images if o != name])] for _ in group]
        add("human_other_image", [o[rng.integers(len(o))] for o in away])
        add("loso_gold_map_WTA_IOR60", without_one(group))
        for row, make in SALIENCY.items() if pictures is not None else ():
            seen = load_image(Path(str(pictures)) / f"{name}.jpg")
            add(row, [winners(make(seen))] * len(group))
    return told


def clustered(given: tuple[list[Scanpath], dict[str, list[Pair]]]) -> dict[str, list[float]]:
    """Sequence scores of one picture, by row."""
    clusters = FixationClusters.fit(given[0])
    return {row: [sequence_score(a, b, clusters) for a, b in some] for row, some in given[1].items()}


def compared(told: dict[str, list[Row]], reference: dict[str, Any], say: Callable[[str], None]) -> bool:
    """Whether all means are within the tolerance."""
    fine = True
    for row, pictures in told.items():
        for short in NAMES:
            mean = np.concatenate([p[short] for p in pictures]).mean()
            if row not in reference["table"]:
                say(f"{row:28} {short:16} {mean:10.4f}")
                continue
            spread = np.std([p[short].mean() for p in pictures], ddof=1) / np.sqrt(len(pictures))
            wanted = reference["table"][row]["mean"][short]
            # The table's values are rounded, and its rows were drawn, too: twice the variance.
            allowed = 2e-4 * max(1, abs(wanted)) if row == "human_vs_human" else 4 * np.sqrt(2) * spread
            if row == "loso_gold_map_WTA_IOR60":
                allowed = 5e-3 * max(1, abs(wanted))  # nothing is drawn, but ties and borders of blurs differ
            elif row in SALIENCY:
                allowed = 0.05 if wanted < 1 else 0.1 * wanted
            fine &= bool(abs(mean - wanted) <= allowed)
            mark = "" if abs(mean - wanted) <= allowed else "  BEYOND"
            say(f"{row:28} {short:16} {mean:10.4f} {wanted:10.4f}  allowed {allowed:.4f}{mark}")
    return fine


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fixations", type=Path)
    parser.add_argument("--reference", type=Path, help="JSON with test_images and a table of means")
    parser.add_argument("--images", nargs="+", help="numbers of pictures; those of the reference if there is one")
    parser.add_argument("--clusters", type=int, default=0, help="pictures whose sequence score is measured")
    parser.add_argument("--workers", type=int, default=2, help="processes of the sequence score")
    parser.add_argument("--pictures", type=Path, help="folder of OSIE's pictures, for rows of saliency maps")
    parser.add_argument("--as-in-file", action="store_true", help="coordinates that count from 1, as the table's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    reference = json.loads(told.reference.read_text()) if told.reference else None
    held = people(told.fixations, told.as_in_file)
    images = told.images or (list(map(str, reference["test_images"])) if reference else list(held)[:70])
    pairs = pairs_of(held, images, told.seed, told.pictures)
    found = {row: [values_of(some) for some in of_pictures] for row, of_pictures in pairs.items()}
    means = {r: {s: float(np.concatenate([p[s] for p in v]).mean()) for s in NAMES} for r, v in found.items()}
    fine = compared(found, reference, print) if reference else True
    if told.clusters:
        names = images[: told.clusters]
        jobs = [(held[name], {row: some[n] for row, some in pairs.items()}) for n, name in enumerate(names)]
        with ProcessPoolExecutor(told.workers) as pool:
            scores = list(pool.map(clustered, jobs))
        for row in pairs:
            means[row]["ss"] = float(np.mean(np.concatenate([one[row] for one in scores])))
            print(f"{row:28} sequence score of {len(names)} pictures {means[row]['ss']:.4f}")
        for name, one in zip(names, scores, strict=True) if reference else ():
            wanted = reference["per_image_human_mean"][name][reference["metrics"].index("ss")]
            mean = float(np.mean(one["human_vs_human"]))
            if abs(mean - wanted) > 2e-3:
                fine = False
                print(f"sequence score of {name}: {mean:.4f}, {wanted:.4f} in the reference  BEYOND")
    if not reference:
        print(json.dumps(means, indent=1))
    if told.json:
        told.json.write_text(json.dumps(means, indent=1), encoding="utf-8")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
