"""Does the look land on the thing that was asked about? On scenes with known boxes, for the model in the box.

``python benchmarks/pointing.py --scenes 150``. For every question about one object: whether the patch with the highest
raw attention of the first answer token (heads averaged) touches the object's box (*pointing*), and how much of the
attention on the picture lies inside (*share*), beside two chances: a random pixel hits the box; a random object of the
scene is the right one.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

import vlmattn as va
from vlmattn.grid import cell_coverage
from vlmattn.scene import Question, Scene, split_item

KINDS = ("color", "shape", "size", "exist", "where")


def cases(scenes: int, kinds: tuple[str, ...] = KINDS, split: str = "test") -> list[tuple[Scene, Question]]:
    """Questions about exactly one object that is there."""
    found = []
    for index in range(scenes):
        scene, questions = split_item(split, 0, index)
        found += [(scene, q) for q in questions if q.kind in kinds and len(q.targets) == 1]
    return found


def measure(vlm: va.Vlm, asked: list[tuple[Scene, Question]], batch: int = 16) -> list[dict[str, Any]]:
    """One record per question: right answer or not, and per layer choice whether the peak hits and the share inside."""
    records = []
    for first in range(0, len(asked), batch):
        part = asked[first : first + batch]
        runs = vlm.ask_many(
            [(s.image, q.text) for s, q in part], capture=va.CaptureSpec(rows="answer"), max_new_tokens=6
        )
        for (scene, question), run in zip(part, runs, strict=True):
            records.append(_record(scene, question, run))
    return records


def _record(scene: Scene, question: Question, run: va.Run) -> dict[str, Any]:
    box = scene.objects[question.targets[0]].box_xyxy
    choices: dict[str, list[int] | None] = {f"layer {layer}": [layer] for layer in run.trace.layers} | {"all": None}
    hits, shares = {}, {}
    for name, layers in choices.items():
        look = run.map(0, layers=layers)
        x0, y0, x1, y1 = look.patch_map.peak().box_xyxy
        middle = ((x0 + x1) / 2, (y0 + y1) / 2)
        slack = ((x1 - x0) / 2, (y1 - y0) / 2)
        hits[name] = all(
            low - s < m < high + s for m, low, high, s in zip(middle, box[:2], box[2:], slack, strict=True)
        )
        inside = cell_coverage(look.patch_map.layout, tuple(float(v) for v in box))
        weights = sum(float((v * c).sum()) for v, c in zip(look.patch_map.values, inside, strict=True))
        shares[name] = weights / max(look.patch_map.total, 1e-12)
    width, height = scene.image_wh
    return {
        "kind": question.kind,
        "right": run.answer.casefold() == question.answer,
        "hit": hits,
        "share": shares,
        "area": (box[2] - box[0]) * (box[3] - box[1]) / (width * height),
        "objects": len(scene.objects),
    }


def table(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means per kind of question."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        groups[record["kind"]].append(record)
    return [
        {
            "kind": kind,
            "questions": len(group),
            "accuracy": float(np.mean([r["right"] for r in group])),
            "chance_area": float(np.mean([r["area"] for r in group])),
            "chance_object": float(np.mean([1 / r["objects"] for r in group])),
            "pointing": {n: float(np.mean([r["hit"][n] for r in group])) for n in group[0]["hit"]},
            "share": {n: float(np.mean([r["share"][n] for r in group])) for n in group[0]["share"]},
        }
        for kind, group in groups.items()
    ]


def main() -> None:
    """Print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenes", type=int, default=150)
    parser.add_argument("--model", default="scene")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = table(measure(va.load(given.model), cases(given.scenes)))
    layers = list(rows[0]["pointing"])
    print("kind    n  right  area  object  " + "  ".join(f"{n:>12}" for n in layers) + "   (pointing / share inside)")
    for row in rows:
        cells = "  ".join(f"{row['pointing'][n]:.2f} / {row['share'][n]:.2f}".rjust(12) for n in layers)
        chances = f"{row['chance_area']:5.2f} {row['chance_object']:7.2f}"
        print(f"{row['kind']:6} {row['questions']:3d}  {row['accuracy']:.2f}  {chances}  {cells}")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
