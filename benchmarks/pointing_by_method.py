"""Does each method's map land on the thing that was asked about? On scenes with known boxes, for the model in the box.

``python benchmarks/pointing_by_method.py --questions 40``. Per method: *pointing*, whether the patch with the highest
value touches the object's box; *share*, how much of the map's positive values lies inside it; seconds per map. Rightly
answered questions about one object; the map is of the whole answer. Chance of pointing: a random patch.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

import vlmattn as va
from benchmarks.pointing import cases
from vlmattn.grid import PatchMap, cell_coverage, cells_of_box

METHODS: dict[str, dict[str, Any]] = {
    "raw": {"method": "raw"},
    "raw, layer 2": {"method": "raw", "layers": [2]},
    "value": {"method": "value"},
    "relative": {"method": "relative"},
    "tam": {"method": "tam"},
    "tam, nothing taken away": {"method": "tam", "causal": False},
    "logit_lens": {"method": "logit_lens"},
    "logit_lens, last": {"method": "logit_lens", "layers": -1},
    "integrated_gradients": {"method": "integrated_gradients", "n_steps": 16},
    "integrated_gradients, patches": {"method": "integrated_gradients", "n_steps": 16, "of": "patches"},
    "occlusion": {"method": "occlusion", "batch": 16},
}


def measured(found: PatchMap, box: Any) -> tuple[bool, float]:
    """Whether the peak's patch touches the box, and the share of the positive values in it."""
    peak = found.peak()
    hit = (peak.tile, peak.row, peak.col) in cells_of_box(found.layout, box)
    positive = [np.maximum(v, 0) for v in found.values]
    inside = sum(float((v * c).sum()) for v, c in zip(positive, cell_coverage(found.layout, box), strict=True))
    return hit, inside / max(sum(float(v.sum()) for v in positive), 1e-12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--model", default="scene")
    chosen = parser.parse_args()
    vlm, rows, chances = va.load(chosen.model), {name: [] for name in METHODS}, []  # type: ignore[var-annotated]
    for scene, question in cases(chosen.questions, kinds=("color", "shape")):
        if len(chances) >= chosen.questions:
            break
        run = vlm.ask(scene.image, question.text, max_new_tokens=6)
        if run.answer.casefold() != question.answer:
            continue
        box = tuple(float(v) for v in scene.objects[question.targets[0]].box_xyxy)
        layout = run.trace.layout.images[0]
        chances.append(len(cells_of_box(layout, box)) / layout.cells)
        for name, options in METHODS.items():
            start = time.perf_counter()
            found = run.map(**options).patch_map
            rows[name].append((*measured(found, box), time.perf_counter() - start))
    print(f"{len(chances)} questions; a random patch touches the box in {np.mean(chances):.2f}")
    for name, values in rows.items():
        hit, share, seconds = np.mean(values, axis=0)
        print(json.dumps({"method": name, "pointing": round(hit, 3), "share": round(share, 3), "s": round(seconds, 2)}))


if __name__ == "__main__":
    main()
