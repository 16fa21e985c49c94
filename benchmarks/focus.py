"""Focus directions on the models in the box: do heads look more at the place asked about, and are answers better?

``python -m benchmarks.focus --fit 40 --count 60``. Directions are fitted on right answers about colour and shape of
validation scenes (seed 3), and measured on test scenes (seed 0), the strength chosen among ALPHAS on validation scenes
of seed 4 by right answers; controls are directions of the same lengths that point anywhere, in the same heads.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import vlmattn as va
from benchmarks.paired import difference, mcnemar
from vlmattn.api import Placed, fit_focus
from vlmattn.core.files import atomic_write_text
from vlmattn.grid import cell_coverage
from vlmattn.steering import Focus

ALPHAS, BATCH, KINDS = (0.5, 1.0, 2.0), 20, ("color", "shape")


class Asked(NamedTuple):
    """A question with its place and expected answer."""

    image: Any
    text: str
    box: tuple[float, ...]
    answer: str


def asked(split: str, seed: int, count: int, kinds: Sequence[str] = KINDS) -> list[Asked]:
    """The first questions of some kinds about things that are there."""
    found: list[Asked] = []
    index = 0
    while len(found) < count:
        scene, questions = va.scene.split_item(split, seed, index)
        for one in questions:
            if one.kind in kinds and one.targets:
                box = tuple(map(float, scene.objects[one.targets[0]].box_xyxy))
                found.append(Asked(scene.image, one.text, box, one.answer))
        index += 1
    return found[:count]


def measured(vlm: va.Vlm, items: Sequence[Asked], focus: Focus, way: Focus | None) -> tuple[list[bool], list[float]]:
    """Whether each answer is right, and the share of the fitted heads' attention on the place, first answer token."""
    right, share = [], []
    spec = va.CaptureSpec(rows="answer", top_k=0, dtype="float32")
    for first in range(0, len(items), BATCH):
        part = items[first : first + BATCH]
        steering = [] if way is None else [way]
        runs = vlm.ask_many([(i.image, i.text) for i in part], capture=spec, steering=steering, max_new_tokens=4)
        for one, run in zip(part, runs, strict=True):
            right.append(run.answer.strip(" .").casefold() == one.answer)
            share.append(on_place(run, one.box, focus))
    return right, share


def on_place(run: va.Run, box: tuple[float, ...], focus: Focus) -> float:
    """Share of attention of the focused heads on the patches of a place."""
    (cover,) = cell_coverage(run.trace.layout.images[0], box)
    inside = cover.ravel() >= min(0.5, cover.max())
    at = [run.trace.layers.index(layer) for layer, _ in focus.heads]
    row = run.trace.rows_of(run.trace.answer_tokens[:1], "predicting")[0]
    seen = run.trace.attn_lhqk[at, [head for _, head in focus.heads], row][:, : inside.size]
    return float((seen * inside).sum(-1).mean())


def scaled(focus: Focus, alpha: float) -> Focus:
    """The same directions at another strength."""
    return Focus(heads=focus.heads, queries=focus.queries, keys=focus.keys, alpha=alpha)


def fitted(vlm: va.Vlm, seed: int, count: int, heads: int) -> tuple[Focus, int]:
    """Directions of a model, and the number of right answers to ``count`` questions that they were fitted on."""
    placed = []
    for one in asked("validation", seed, count):
        run = vlm.ask(one.image, one.text, max_new_tokens=4)
        if run.answer.strip(" .").casefold() == one.answer:
            placed.append(Placed(run, one.box))  # type: ignore[arg-type]
    return fit_focus(vlm, placed, heads=heads), len(placed)


def study(name: str, fit: int, heads: int, count: int) -> str:
    """The section of one model."""
    vlm = va.load(name)
    focus, placed = fitted(vlm, 3, fit, heads)
    held = asked("validation", 4, count)
    tried = {alpha: np.mean(measured(vlm, held, focus, scaled(focus, alpha))[0]) for alpha in ALPHAS}
    alpha = max(ALPHAS, key=lambda one: tried[one])
    chosen = scaled(focus, alpha)
    ways: dict[str, Focus | None] = {"plain": None, f"focus, alpha {alpha}": chosen, f"focus, alpha -{alpha}": scaled(
        focus, -alpha
    ), "*control: random directions*": chosen.at_random(np.random.default_rng(0))}  # fmt: skip
    items = asked("test", 0, count)
    found = {told: measured(vlm, items, focus, way) for told, way in ways.items()}
    told = ", ".join(f"{layer}.{head}" for layer, head in focus.heads)
    lines = [
        f"## `{name}`", "", f"Heads {told}; fitted on {placed} answers, measured on {len(items)} questions.", "",
        "| way | right | p | attention on the place | change |", "|---" * 5 + "|",
    ]  # fmt: skip
    plain_right, plain_share = found["plain"]
    for way, (right, share) in found.items():
        change = difference(plain_share, share)
        lines.append(
            f"| {way} | {np.mean(right):.3f} | {mcnemar(plain_right, right):.2g} | {np.mean(share):.3f} "
            f"| {change['mean']:+.3f} ({change['low']:+.3f} to {change['high']:+.3f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["scene", "scene-prior"])
    parser.add_argument("--fit", type=int, default=40)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    command = f"python -m benchmarks.focus --fit {given.fit} --heads {given.heads} --count {given.count}"
    parts = [
        "# Focus directions, measured", f"Written by `{command} --markdown …`; do not edit.",
        "Questions about colour and shape. p: exact McNemar against plain; *change*: of the heads' attention on the "
        "place asked about, with a 95 % bootstrap interval.",
        *(study(name, given.fit, given.heads, given.count) for name in given.models),
    ]  # fmt: skip
    page = "\n\n".join(parts) + "\n"
    print(page)
    if given.markdown is not None:
        atomic_write_text(given.markdown, page)


if __name__ == "__main__":
    main()
