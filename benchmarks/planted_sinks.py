"""What planted sinks do to the model in the box, and what undoes it.

``python benchmarks/planted_sinks.py --scenes 100``. Questions about colour and shape on the test split. For ``scene``
and its variants with planted sinks, with and without the sinks' attention given back to the rest of the picture: right
answers, how often the highest patch of layer 1 (first answer token, heads averaged) touches the object, and the same
with the sinks' columns left out.
"""

from __future__ import annotations

import argparse
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

import vlmattn as va
from vlmattn.core.layout import TokenKind
from vlmattn.grid import cell_coverage
from vlmattn.scene import split_item
from vlmattn.scene.box import SINK_PATCHES, SINK_PULLS

LAYER = 1


class GiveBack(va.Steering):
    """Moves what the sinks drew to the rest of the picture, in proportion (Kang et al., 2025, with p = 0)."""

    def edit_rows(self, probs_bhrk: torch.Tensor, where: Any) -> torch.Tensor | None:
        """See the class."""
        picture = where.columns(TokenKind.IMAGE)
        sinks = torch.zeros_like(picture)
        for line, first in enumerate(picture[:, 0, 0].int().argmax(-1).tolist()):
            sinks[line, ..., [first + p for p in SINK_PATCHES]] = True
        rest = picture & ~sinks
        freed = (probs_bhrk * sinks).sum(-1, keepdim=True)
        held = (probs_bhrk * rest).sum(-1, keepdim=True).clamp_min(1e-9)
        return probs_bhrk * (~sinks) * (1 + rest * freed / held)


class Measured(NamedTuple):
    """Shares of all questions: right answers, peaks on the object, the same without the sinks' columns."""

    right: float
    pointing: float
    without_sinks: float


@lru_cache(maxsize=2)
def cases(scenes: int) -> list[Any]:
    """Questions about colour and shape."""
    found = [split_item("test", 0, i) for i in range(scenes)]
    return [(scene, q) for scene, questions in found for q in questions if q.kind in ("color", "shape")]


@lru_cache(maxsize=8)
def measured(name: str, given_back: bool = False, scenes: int = 40) -> Measured:
    """One row of the table."""
    vlm, right, hit, cleared = va.load(name), [], [], []
    steering = (GiveBack(),) if given_back else ()
    spec = va.CaptureSpec(rows="answer", top_k=0)
    for first in range(0, len(cases(scenes)), 16):
        part = cases(scenes)[first : first + 16]
        runs = vlm.ask_many([(s.image, q.text) for s, q in part], capture=spec, steering=steering, max_new_tokens=4)
        for (scene, question), run in zip(part, runs, strict=True):
            values = run.map(0, layers=[LAYER]).patch_map.values[0].ravel().copy()
            box = tuple(float(v) for v in scene.objects[question.targets[0]].box_xyxy)
            (inside,) = cell_coverage(run.map(0).patch_map.layout, box)
            right.append(run.answer == question.answer)
            hit.append(inside.ravel()[values.argmax()] > 0)
            values[list(SINK_PATCHES)] = 0
            cleared.append(inside.ravel()[values.argmax()] > 0)
    return Measured(*(float(np.mean(values)) for values in (right, hit, cleared)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenes", type=int, default=100)
    given = parser.parse_args()
    print(f"{len(cases(given.scenes))} questions")
    print("model               given back  right  pointing  without sinks")
    for name in ("scene", *SINK_PULLS):
        for given_back in (False, True):
            row = measured(name, given_back, given.scenes)
            told = f"{row.right:6.3f} {row.pointing:9.3f} {row.without_sinks:14.3f}"
            print(f"{name:19} {'yes' if given_back else 'no':10} {told}")


if __name__ == "__main__":
    main()
