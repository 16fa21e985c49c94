"""What steering does to the models in the box: right answers to presence questions with each method and without.

Run ``python benchmarks/steering_scene.py --count 60``. Questions are those of drawn scenes whose absent things are
chosen to mislead; ``scene-prior`` leans on what usually goes together. Differences are paired, with an exact McNemar p.
Settings are given here and were not tuned on these scenes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import vlmattn as va
from vlmattn.api.answers import answers_of
from vlmattn.api.request import Request
from vlmattn.capture import Steering
from vlmattn.evaluate.statistics import mcnemar
from vlmattn.steering import steering_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

METHODS = (
    "pai:alpha=0.5,first_layer=1", "hgai:alpha=0.5", "vaf", "spin:keep=0.75,factor=0.1", "eah:tau=0.01", "act",
    "vhr:alpha=1.5", "vcd", "icd", "pai-contrast:gamma=1.5", "m3id:theta=1.1", "dola", "deco", "var",
)  # fmt: skip


def questions(split: str, count: int) -> list[tuple[object, str, str]]:
    """(picture, question, answer) of presence questions."""
    out: list[tuple[object, str, str]] = []
    index = 0
    while len(out) < count:
        scene, asked = va.scene.split_item(split, seed=0, index=index)
        out += [(scene.image, one.text, one.answer) for one in asked if one.kind == "exist"]
        index += 1
    return out[:count]


def right(vlm: va.Vlm, items: list[tuple[object, str, str]], steering: tuple[Steering, ...]) -> list[bool]:
    """Whether each question is answered as expected."""
    out = []
    for first in range(0, len(items), 20):
        part = items[first : first + 20]
        pairs = tuple((picture, text) for picture, text, _ in part)
        told = answers_of(vlm, Request(pairs, steering=steering, max_new_tokens=4))
        out += [one.text.strip().lower() == want.lower() for one, (_, _, want) in zip(told, part, strict=True)]
    return out


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--models", nargs="*", default=["scene", "scene-prior"])
    parser.add_argument("--split", default="adversarial")
    args = parser.parse_args()
    for name in args.models:
        vlm = va.load(name)
        items = questions(args.split, args.count)
        before = right(vlm, items, ())
        print(f"{name}: {sum(before)} of {len(before)} right without steering", flush=True)
        for told in METHODS:
            after = right(vlm, items, (steering_of(told),))
            test = mcnemar(after, before)
            print(f"{name}: {told:28} {sum(after):3} right, p = {test.p:.3g}", flush=True)


if __name__ == "__main__":
    main()
