"""How alike people's scanpaths on OSIE are, beside chance: ``python benchmarks/gaze_osie.py fixations.mat``.

Rows, as a model's row should be read between them: people with people on the same picture; with uniform fixations; with
fixations drawn from where people look on other pictures; with a person on another picture. The 70 pictures that papers
test on (Chen et al., CVPR 2021), or those named. ``--reference`` compares means with a table of the same settings and
exits 1 beyond the tolerance: 0.0002 for people with people, which draws nothing (sequence scores 0.002); for rows that
are drawn, four standard errors of a mean over pictures. The sequence score takes seconds per picture:
``--clusters N`` measures it on the first N only, and compares it picture by picture.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vlmattn.gaze import Scanpath, fixation_density, read_osie
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


def made(points: Any) -> Scanpath:
    return Scanpath.from_points(points, WH, duration=[DURATION] * len(points))


def drawn_from(density: Any, rng: np.random.Generator) -> Scanpath:
    cells = rng.choice(density.size, FIXATIONS, p=density.ravel())
    return made(np.column_stack([cells % WH[0], cells // WH[0]]) + 0.5)


def rows(held: dict[str, list[Scanpath]], images: list[str], seed: int) -> dict[str, list[Row]]:
    """Values by row and picture."""
    rng = np.random.default_rng(seed)
    rest = np.concatenate([p.xy for name, group in held.items() if name not in images for p in group])
    inside = (rest >= 0).all(axis=1) & (rest < WH).all(axis=1)
    bias = fixation_density(rest[inside], WH, sigma=24.0)
    density = np.asarray(getattr(bias, "values", bias), dtype=np.float64)
    density /= density.sum()
    told: dict[str, list[Row]] = {
        "human_vs_human": [],
        "random_uniform": [],
        "centre_bias_sample": [],
        "human_other_image": [],
    }
    for name in images:
        group = held[name]
        everyone = [(i, 0) for i in range(len(group))]
        among = [(i, j) for i in range(len(group)) for j in range(len(group)) if i != j]
        told["human_vs_human"].append(values(group, group, among))
        told["random_uniform"].append(values(group, [made(rng.random((FIXATIONS, 2)) * WH)], everyone))
        told["centre_bias_sample"].append(values(group, [drawn_from(density, rng)], everyone))
        away = [held[rng.choice([o for o in images if o != name])] for _ in group]
        others = [o[rng.integers(len(o))] for o in away]
        told["human_other_image"].append(values(group, others, [(i, i) for i in range(len(group))]))
    return told


def clustered(group: list[Scanpath]) -> float:
    """Mean sequence score of people among themselves."""
    clusters = FixationClusters.fit(group)
    scores = [sequence_score(a, b, clusters) for a in group for b in group if a is not b]
    return float(np.mean(scores))


def compared(told: dict[str, list[Row]], reference: dict[str, Any], say: Callable[[str], None]) -> bool:
    """Whether all means are within the tolerance."""
    fine = True
    for row, pictures in told.items():
        for short in NAMES:
            mean = np.concatenate([p[short] for p in pictures]).mean()
            spread = np.std([p[short].mean() for p in pictures], ddof=1) / np.sqrt(len(pictures))
            wanted = reference["table"][row]["mean"][short]
            # The table's values are rounded, and its rows were drawn, too: twice the variance.
            allowed = 2e-4 * max(1, abs(wanted)) if row == "human_vs_human" else 4 * np.sqrt(2) * spread
            fine &= bool(abs(mean - wanted) <= allowed)
            mark = "" if abs(mean - wanted) <= allowed else "  BEYOND"
            say(f"{row:20} {short:16} {mean:10.4f} {wanted:10.4f}  allowed {allowed:.4f}{mark}")
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fixations", type=Path)
    parser.add_argument("--reference", type=Path, help="JSON with test_images and a table of means")
    parser.add_argument("--images", nargs="+", help="numbers of pictures; those of the reference if there is one")
    parser.add_argument("--clusters", type=int, default=0, help="pictures whose sequence score is measured")
    parser.add_argument("--as-in-file", action="store_true", help="coordinates that count from 1, as the table's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    reference = json.loads(told.reference.read_text()) if told.reference else None
    held = people(told.fixations, told.as_in_file)
    images = told.images or (list(map(str, reference["test_images"])) if reference else list(held)[:70])
    found = rows(held, images, told.seed)
    means = {r: {s: float(np.concatenate([p[s] for p in v]).mean()) for s in NAMES} for r, v in found.items()}
    fine = compared(found, reference, print) if reference else True
    for name in images[: told.clusters]:
        score = clustered(held[name])
        wanted = reference["per_image_human_mean"][name][reference["metrics"].index("ss")] if reference else score
        fine &= abs(score - wanted) <= 2e-3
        print(f"sequence score of {name}: {score:.4f}, {wanted:.4f} in the reference")
    if not reference:
        print(json.dumps(means, indent=1))
    if told.json:
        told.json.write_text(json.dumps(means, indent=1), encoding="utf-8")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
