"""Where an answer about a scene needs the picture: attention knocked out layer by layer, and the words of its heads.

    python benchmarks/knockout.py --count 40

Prints the tables that docs/heads-circuits.md shows.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import vlmattn as va
from vlmattn.scene.objects import COLORS
from vlmattn.steering import ScaleHeads

BLOCKS = ("image->question", "image->text", "image->answer", "question->answer", "image->all")


def samples(kind: str, count: int, *, said: str | None = None) -> list[tuple[object, str, str]]:
    found: list[tuple[object, str, str]] = []
    index = 0
    while len(found) < count:
        scene, questions = va.scene.split_item("test", seed=0, index=index)
        wanted = [q for q in questions if q.kind == kind and said in (None, q.answer)]
        found += [(scene.image, q.text, q.answer) for q in wanted[:1]]
        index += 1
    return found


def sweep(vlm: va.Vlm, name: str, asked: list[tuple[object, str, str]], window: int | None) -> None:
    found = vlm.knockout_sweep([one[:2] for one in asked], BLOCKS, window=window)
    right = np.mean([a.strip().lower() == want for a, (_, _, want) in zip(found.answers, asked, strict=True)])
    print(f"\n{name}, window {window or 'all'}, {right:.0%} right without knock-out\n{found.table()}")
    low, high = found.interval_bw(np.random.default_rng(0))
    rows = zip(found.blocks, low, high, strict=True)
    print(
        "\n".join(
            f"  {b}: " + " ".join(f"[{x:.2f}, {y:.2f}]" for x, y in zip(lo, hi, strict=True)) for b, lo, hi in rows
        )
    )


def right(
    vlm: va.Vlm, asked: list[tuple[object, str, str]], pairs: tuple[tuple[int, int], ...], factor: float
) -> float:
    with vlm.steer(ScaleHeads(pairs, factor)):
        said = [vlm.ask(image, text, max_new_tokens=3).answer for image, text, _ in asked]
    return float(np.mean([a.strip().lower() == want for a, (_, _, want) in zip(said, asked, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40, help="questions of each kind")
    parser.add_argument("--model", default="scene")
    chosen = parser.parse_args()
    vlm, begin = va.load(chosen.model), time.process_time()
    kinds = {
        "colour": samples("color", chosen.count),
        "presence, yes": samples("exist", chosen.count, said="yes"),
        "presence, no": samples("exist", chosen.count, said="no"),
    }
    for name, asked in kinds.items():
        for window in (1, None):
            sweep(vlm, name, asked, window)
    colours = [one[:2] for one in kinds["colour"]]
    whole, concept = vlm.pursue_heads(colours), vlm.pursue_heads(colours, list(COLORS))
    print(f"\nwords of heads, colour questions, whole vocabulary\n{whole.table(8)}")
    print(f"\nthe same, colour words only\n{concept.table(8)}")
    held_out = samples("color", 2 * chosen.count)[chosen.count :]
    rng = np.random.default_rng(0)
    every = [(one.layer, one.head) for one in concept.heads]
    for count in (2, 4):
        controls = [tuple(every[i] for i in rng.choice(len(every), count, replace=False)) for _ in range(5)]
        for factor in (-1.0, 0.0, 5.0):
            best = right(vlm, held_out, concept.pairs(count), factor)
            others = [right(vlm, held_out, pairs, factor) for pairs in controls]
            told = " ".join(f"{value:.2f}" for value in others)
            print(f"{count} heads x {factor:+.0f}: right {best:.2f} with those of colours; random ones {told}")
    print(f"\nby weights alone, colour words\n{vlm.head_circuits(list(COLORS)).table()}")
    print(f"\n{time.process_time() - begin:.0f} s of one core")


if __name__ == "__main__":
    main()
