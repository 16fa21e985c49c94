"""All maps on the model in the box: do they land on the thing, does the answer need it, do they need the model?

``python benchmarks/maps.py --scenes 60 --json docs/maps-study.json --markdown docs/maps-study.md``. Questions about one
object that is there (colour, shape, size, place, presence). Layers and heads are chosen on the validation split by
pointing and measured on the test split, every row paired with the mean of raw attention over all layers and heads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import vlmattn as va
from benchmarks.capture import STEADY_MALLOC, resident_peak
from benchmarks.paired import mcnemar
from benchmarks.pointing import cases
from vlmattn.api.changed import AnswerScore
from vlmattn.faithfulness import best_iou, box_mask, cells_of, deletion, energy_inside, insertion, iou_at, pixel_auc

Settings = tuple[str, dict[str, Any]]
BASE = "raw, all layers"
CHOSEN: dict[str, Sequence[Settings]] = {
    "raw, chosen layer": [("raw", {"layers": [n]}) for n in range(4)],
    "value-weighted, chosen layer": [("value", {"layers": [n]}) for n in range(4)],
    "relative, chosen layer": [("relative", {"layers": [n]}) for n in range(4)],
    "gradient, chosen layer and target": [
        ("gradient", {"layers": [n], "target": target}) for n in range(4) for target in ("logit", "log_probability")
    ],
    "relevancy, chosen target": [("relevancy", {"target": target}) for target in ("logit", "log_probability")],
    "rollout, chosen form": [
        ("rollout", {"without_first": first, "residual": residual, "start_layer": start})
        for first in (False, True)
        for residual in (0.0, 0.5)
        for start in (0, 1)
    ],
}
"""Rows whose settings are chosen on validation."""
PLAIN: dict[str, Settings] = {
    BASE: ("raw", {}),
    "raw, largest over layers and heads": ("raw", {"over_layers": "max", "over_heads": "max"}),
    "value-weighted, all layers": ("value", {}),
    "relative, all layers": ("relative", {}),
    "gradient, all layers": ("gradient", {}),
    "relevancy (Chefer: logit)": ("relevancy", {"target": "logit"}),
    "rollout": ("rollout", {}),
    "flow": ("flow", {}),
}
"""Rows without a choice."""
FOUND: dict[str, Settings] = {
    "raw, pointing heads": ("raw", {"heads": "pointing"}),
    "raw, localization heads": ("raw", {"heads": "localization"}),
    "raw, visual heads": ("raw", {"heads": "visual"}),
}
"""Heads that were found on the validation split before, see ``benchmarks/heads.py``."""
SLOW: dict[str, Settings] = {
    "token activation": ("tam", {}),
    "logit lens": ("logit_lens", {}),
    "integrated gradients of patches": ("integrated_gradients", {"of": "patches", "n_steps": 16}),
    "occlusion": ("occlusion", {}),
}
"""Rows that are measured on the first questions only, and paired with the same ones."""


def hits(look: va.Look, box: tuple[int, int, int, int]) -> bool:
    """Whether the highest patch touches a box; a flat map has none."""
    if look.patch_map.is_flat:
        return False
    x0, y0, x1, y1 = look.patch_map.peak().box_xyxy
    return x0 < box[2] and x1 > box[0] and y0 < box[3] and y1 > box[1]


def asked(vlm: va.Vlm, split: str, scenes: int) -> list[tuple[Any, Any, va.Run]]:
    """Scene, question and run."""
    return [(s, q, vlm.ask(s.image, q.text, max_new_tokens=6)) for s, q in cases(scenes, split=split)]


def choose(part: list[tuple[Any, Any, va.Run]]) -> dict[str, Settings]:
    """Of each row's settings, those that hit most often."""
    found = {}
    for name, several in CHOSEN.items():
        rates = []
        for method, options in several:
            rates.append(np.mean([_hit(scene, question, run, method, options) for scene, question, run in part]))
        found[name] = several[int(np.argmax(rates))]
    return found


def _hit(scene: Any, question: Any, run: va.Run, method: str, options: dict[str, Any]) -> bool:
    return hits(run.map(0, method=method, **options), scene.objects[question.targets[0]].box_xyxy)


def measured(part: list[tuple[Any, Any, va.Run]], settings: Settings, *, removal: int) -> list[dict[str, Any]]:
    """One record per question; deletion and insertion for the first ``removal`` of them."""
    method, options = settings
    records = []
    for number, (scene, question, run) in enumerate(part):
        start = time.process_time()
        look = run.map(0, method=method, **options)
        spent = time.process_time() - start
        box = scene.objects[question.targets[0]].box_xyxy
        inside, cells = box_mask(scene.image_wh, box), cells_of(look.patch_map)
        heat = cells.pixels()
        record = {
            "kind": question.kind,
            "right": run.answer.casefold() == question.answer,
            "hit": hits(look, box),
            "energy": energy_inside(heat, inside),
            "iou": iou_at(heat, inside, 0.5),
            "best_iou": best_iou(heat, inside)[0],
            "auc": pixel_auc(heat, inside),
            "seconds": spent,
        }
        if number < removal and not cells.is_flat:
            score = AnswerScore(run, run.trace.find(0), batch=11)
            record["deletion"] = deletion(scene.image, cells, score).area
            record["insertion"] = insertion(scene.image, cells, score).area
        records.append(record)
    return records


def randomised(part: list[tuple[Any, Any, va.Run]], settings: Settings) -> list[float]:
    """Mean rank correlation with the map of the model after each stage of random layers."""
    method, options = settings
    found = [run.randomisation(0, method=method, **options).spearman for _, _, run in part]
    return [float(v) for v in np.nanmean(np.nan_to_num(np.array(found), nan=0.0), axis=0)]


def memory(settings: Settings) -> float:
    """MiB by which one map lets the peak of a process of its own grow, the model warmed up by another map before."""
    command = [sys.executable, __file__, "--child", json.dumps(settings)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | STEADY_MALLOC)
    return float(json.loads(done.stdout.splitlines()[-1])) / 2**20


def memory_child(settings: Settings) -> int:
    """Bytes by which one map lets the peak of this process grow."""
    method, options = settings
    vlm = va.load("scene")
    (_, _, other), (_, _, run) = asked(vlm, "validation", 1)[:2]
    other.map(0, method=method, **options)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident_peak()
    run.map(0, method=method, **options)
    return resident_peak() - before


def interval(values: np.ndarray, seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of a mean over questions."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (draws, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def summary(records: list[dict[str, Any]], base: list[dict[str, Any]]) -> dict[str, Any]:
    """Means, intervals and the paired test of one row."""
    right = [r for r in records if r["right"]]
    wrong = [r for r in records if not r["right"]]
    hit = np.array([r["hit"] for r in records], dtype=float)
    told: dict[str, Any] = {"n": len(records), "hit": float(hit.mean())}
    told["hit_low"], told["hit_high"] = interval(hit)
    told["p"] = mcnemar([r["hit"] for r in base], [r["hit"] for r in records])
    for name in ("energy", "iou", "best_iou", "auc", "deletion", "insertion"):
        values = [r[name] for r in records if name in r and np.isfinite(r[name])]
        told[name] = float(np.mean(values)) if values else None
    told["hit_right"] = float(np.mean([r["hit"] for r in right])) if right else None
    told["hit_wrong"] = float(np.mean([r["hit"] for r in wrong])) if wrong else None
    told["wrong"] = len(wrong)
    told["ms"] = 1e3 * statistics.median(r["seconds"] for r in records)
    kinds = sorted({r["kind"] for r in records})
    told["by_kind"] = {k: float(np.mean([r["hit"] for r in records if r["kind"] == k])) for k in kinds}
    return told


def markdown(found: dict[str, Any], command: str) -> str:
    """The report as a page."""
    some, any_object, uniform = found["questions"], found["some_object"], found["uniform"]
    lines = ["# Maps, measured", "", f"Written by `{command}`; do not edit.", ""]
    lines += [
        f"{some} questions about one object that is there, on unseen scenes, backgrounds and phrasings, asked of "
        f"`scene`. *Pointing*: the highest patch touches the object; a random object of the scene would be right in "
        f"{any_object:.2f}, a random patch in {uniform:.2f}. *Energy*: share of the map in its box. *IoU* at half of "
        "the map's span, and at the best threshold in hindsight. *AUC*: of the map as a detector of the box's pixels. "
        "*Deletion* (lower is better) and *insertion* (higher is better): area under the answer's probability "
        f"as the first patches are taken out or put back, {found['removal']} questions. p: pointing against "
        f"*{BASE}*, exact McNemar. Time: of one map, after the question was asked; MiB: growth of the peak of a "
        "process by one more map.",
        "",
        "| map | settings | pointing | p | energy | IoU | best IoU | AUC | deletion | insertion | ms | MiB |",
        "|---" * 12 + "|",
    ]
    for name, row in found["rows"].items():
        options = ", ".join(f"{k}={v}" for k, v in row["options"].items())
        options += f" ({row['n']} questions)" * (row["n"] < some)
        span = f"{row['hit']:.3f} ({row['hit_low']:.2f} to {row['hit_high']:.2f})"
        cells = [_two(row[k]) for k in ("energy", "iou", "best_iou", "auc", "deletion", "insertion")]
        p = "" if name == BASE else f"{row['p']:.2g}"
        lines.append(
            f"| {name} | {options} | {span} | {p} | {' | '.join(cells)} | {row['ms']:.0f} | {row['mib']:.1f} |"
        )
    kinds = list(next(iter(found["rows"].values()))["by_kind"])
    lines += ["", "Pointing by kind of question, and of right and wrong answers:", ""]
    lines += ["| map | " + " | ".join(kinds) + " | right | wrong |", "|---" * (len(kinds) + 3) + "|"]
    for name, row in found["rows"].items():
        parts = [*row["by_kind"].values(), row["hit_right"], row["hit_wrong"]]
        lines.append(f"| {name} | " + " | ".join(_two(v) for v in parts) + " |")
    wrong = next(iter(found["rows"].values()))["wrong"]
    lines += ["", f"{wrong} of the answers are wrong.", ""]
    lines += ["Rank correlation with the map of the whole model, as layers are made random from the top, one more each"]
    lines += [f"time ({found['randomised']} questions; a map of what the model learned falls to about 0):", ""]
    stages = found["stages"]
    lines += ["| map | " + " | ".join(stages) + " |", "|---" * (len(stages) + 1) + "|"]
    for name, row in found["rows"].items():
        if row["random"]:
            lines.append(f"| {name} | " + " | ".join(_two(v) for v in row["random"]) + " |")
    return "\n".join(lines) + "\n"


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def study(scenes: int, choose_on: int, removal: int, random: int) -> dict[str, Any]:
    """The whole study."""
    vlm = va.load("scene")
    chosen = choose(asked(vlm, "validation", choose_on))
    part = asked(vlm, "test", scenes)
    rows: dict[str, Any] = {}
    base: list[dict[str, Any]] = []
    for name, settings in (PLAIN | chosen | FOUND | SLOW).items():
        asked_of = part[:removal] if name in SLOW else part
        records = measured(asked_of, settings, removal=removal)
        base = base or records
        rows[name] = summary(records, base[: len(records)]) | {"method": settings[0], "options": settings[1]}
        rows[name]["mib"] = memory(settings)
        rows[name]["random"] = [] if name in SLOW else randomised(part[:random], settings)
        print(name, settings, f"{rows[name]['hit']:.3f}", flush=True)
    stages = part[0][2].randomisation(0).stages
    boxes = [(s, s.objects[q.targets[0]].box_xyxy) for s, q, _ in part]
    touched = [share_touched(run.map(0), box) for (_, box), (_, _, run) in zip(boxes, part, strict=True)]
    return {
        "questions": len(part),
        "removal": min(removal, len(part)),
        "randomised": random,
        "stages": list(stages),
        "some_object": float(np.mean([1 / len(s.objects) for s, _ in boxes])),
        "uniform": float(np.mean(touched)),
        "rows": rows,
    }


def share_touched(look: va.Look, box: tuple[int, int, int, int]) -> float:
    """Share of patches that touch a box: how often a random one does."""
    tile = look.patch_map.layout.tiles[0]
    rows, cols = tile.grid_hw
    boxes = [tile.cell_box(row, col) for row in range(rows) for col in range(cols)]
    return float(np.mean([x0 < box[2] and x1 > box[0] and y0 < box[3] and y1 > box[1] for x0, y0, x1, y1 in boxes]))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=60, help="of the test split")
    parser.add_argument("--choose-on", type=int, default=40, help="scenes of the validation split")
    parser.add_argument("--removal", type=int, default=60, help="questions with deletion and insertion")
    parser.add_argument("--random", type=int, default=8, help="questions of the randomisation check")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        print(memory_child(tuple(json.loads(given.child))))
        return
    found = study(given.scenes, given.choose_on, given.removal, given.random)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sizes = f"--scenes {given.scenes} --choose-on {given.choose_on} --removal {given.removal} --random {given.random}"
    text = markdown(found, f"python benchmarks/maps.py {sizes} --markdown docs/maps-study.md")
    print(text)
    if given.markdown:
        given.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
