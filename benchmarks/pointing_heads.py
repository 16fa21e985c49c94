"""Which heads look at the thing that was asked about? Chosen on one split, measured on another.

``python benchmarks/pointing_heads.py --scenes 200``. Heads of the model in the box are added to a set one by one, as
long as the mean pointing accuracy over colour, shape and presence on the validation split rises (summed attention of
the set, first answer token, patch with the highest value touches the object's box). The set is then measured on the
test split, whose scenes, backgrounds and phrasings are others, beside the chance that a random object is the right one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import vlmattn as va
from benchmarks.pointing import cases
from vlmattn.grid import cell_coverage
from vlmattn.heads import Looked, choose_by_pointing, pointing
from vlmattn.scene import Question, Scene

KINDS = ("color", "shape", "exist")


def looks(vlm: va.Vlm, asked: Sequence[tuple[Scene, Question]], batch: int = 16) -> list[Looked]:
    """Attention of every layer and head for every question."""
    spec, found = va.CaptureSpec(rows="answer", top_k=0), []
    for first in range(0, len(asked), batch):
        part = asked[first : first + batch]
        runs = vlm.ask_many([(s.image, q.text) for s, q in part], capture=spec, max_new_tokens=2)
        for (scene, question), run in zip(part, runs, strict=True):
            box = tuple(float(v) for v in scene.objects[question.targets[0]].box_xyxy)
            (inside,) = cell_coverage(run.map(0).patch_map.layout, box)
            row = list(run.trace.positions).index(run.trace.layout.answer_start - 1)
            attn = run.trace.attn_lhqk[:, :, row].astype(np.float32)
            found.append(Looked(attn, inside.ravel() > 0, question.kind))
    return found


def measure(vlm: va.Vlm, scenes: int) -> dict[str, Any]:
    """The chosen heads, their pointing on both splits, and the chance."""
    validation = looks(vlm, cases(scenes, kinds=KINDS, split="validation"))
    asked = cases(scenes, kinds=KINDS, split="test")
    test = looks(vlm, asked)
    heads = choose_by_pointing(validation, most=6)
    return {
        "scenes": scenes,
        "heads": [f"layer {layer} head {head}" for layer, head in heads],
        "validation": pointing(validation, heads),
        "test": pointing(test, heads),
        "questions": {kind: sum(look.kind == kind for look in test) for kind in KINDS},
        "random object": {k: float(np.mean([1 / len(s.objects) for s, q in asked if q.kind == k])) for k in KINDS},
    }


def main() -> None:
    """Print the result, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--model", default="scene")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    result = measure(va.load(given.model), given.scenes)
    print(json.dumps(result, indent=1))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
