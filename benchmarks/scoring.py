"""How long scoring takes: POPE, CHAIR and intervals, on made-up answers.

python -m benchmarks.scoring
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from benchmarks.paired import cpu_seconds
from vlmattn.core.errors import DependencyMissing
from vlmattn.evaluate import clusters_of, intervals
from vlmattn.hallucination import WORD_FAMILIES, Chair, Pope, PopeQuestion, coco_synonyms

QUESTIONS, CAPTIONS = 9000, 5000
_SENTENCES = (
    "The image features a {} standing next to a {} in a busy street.",
    "In addition to the {}, there are several {}s visible in the background.",
    "A {} is placed on top of the table, close to another {}.",
    "The scene is lively, with a {} on the left side and a {} on the right.",
    "Overall, the {} and the {} create a pleasant atmosphere.",
)


def pope() -> tuple[Pope, dict[str, str]]:
    rng = random.Random(0)
    asked = [
        PopeQuestion(str(i), ("random", "popular", "adversarial")[i // 3000], f"{i // 6 % 500}.jpg",
                     "Is there a dog in the image?", "no" if i % 2 else "yes")
        for i in range(QUESTIONS)
    ]  # fmt: skip
    said = {q.id: rng.choice(("Yes", "No", "Yes, there is a dog.", "No, there is not.")) for q in asked}
    return Pope(tuple(asked)), said


def chair(family: str) -> tuple[Chair, dict[str, str]]:
    rng = random.Random(0)
    things = coco_synonyms().objects
    truth = {str(i): frozenset(rng.sample(things, 3)) for i in range(CAPTIONS)}
    said = {one: " ".join(s.format(*rng.sample(things, 2)) for s in _SENTENCES) for one in truth}
    return Chair(truth, family=family), said


def main() -> None:
    bench, said = pope()
    _tell(f"POPE, {QUESTIONS} answers", lambda: bench.score(said))
    score, clusters = bench.score(said), clusters_of(bench)
    _tell("one metric, 10,000 draws of 500 pictures", lambda: intervals(score, clusters), parts=5)
    for family in WORD_FAMILIES:
        captions, texts = chair(family)
        try:
            _tell(f"CHAIR, {CAPTIONS} captions, {family}", lambda c=captions, t=texts: c.score(t))
        except DependencyMissing as error:
            print(f"CHAIR, {family}: left out: {error}")


def _tell(what: str, run: Callable[[], Any], *, parts: int = 1) -> None:
    print(f"{what}: {cpu_seconds(run) / parts:.2f} s of CPU time")


if __name__ == "__main__":
    main()
