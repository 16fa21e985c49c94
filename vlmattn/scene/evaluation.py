"""How well a model answers questions about scenes, beside two baselines that do not look properly.

``majority`` always gives the commonest answer of the kind. ``copy`` names the attribute of a random object of the
scene: perception without knowing which object was meant (its expected score is computed, not drawn).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vlmattn.scene.generator import Scene, zone
from vlmattn.scene.questions import Question
from vlmattn.scene.splits import split_item

Answerer = Callable[[list[Any], list[str]], Sequence[str]]
"""Takes pictures and questions, one each, and gives the answers."""


@dataclass(frozen=True)
class KindScore:
    """Score of one kind of question.

    Attributes:
        count: questions. accuracy: exact matches. majority, copy: what the baselines score; ``copy`` is None where it
            has no meaning. by_size: accuracy by the size of the object asked about.
    """

    kind: str
    count: int
    accuracy: float
    majority: float
    copy: float | None
    by_size: dict[str, float]


def evaluate(
    answer: Answerer,
    *,
    split: str = "test",
    scenes: int = 500,
    seed: int = 0,
    kinds: Sequence[str] | None = None,
    batch: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> list[KindScore]:
    """Ask every question of ``scenes`` scenes of a split; exact match after case and surrounding space are dropped."""
    asked: list[tuple[Scene, Question]] = []
    for index in range(scenes):
        scene, questions = split_item(split, seed, index)
        asked += [(scene, q) for q in questions if kinds is None or q.kind in kinds]
    said: list[str] = []
    for first in range(0, len(asked), batch):
        part = asked[first : first + batch]
        said += answer([s.image for s, _ in part], [q.text for _, q in part])
        if progress is not None:
            progress(len(said), len(asked))
    return score(asked, said)


def score(asked: Sequence[tuple[Scene, Question]], said: Sequence[str]) -> list[KindScore]:
    """One :class:`KindScore` per kind, in order of first appearance."""
    right = [_norm(a) == _norm(q.answer) for (_, q), a in zip(asked, said, strict=True)]
    result = []
    for kind in dict.fromkeys(q.kind for _, q in asked):
        mine = [(s, q, ok) for (s, q), ok in zip(asked, right, strict=True) if q.kind == kind]
        commonest = Counter(q.answer for _, q, _ in mine).most_common(1)[0][1]
        copies = [c for s, q, _ in mine if (c := _copy_chance(s, q)) is not None]
        result.append(
            KindScore(
                kind=kind,
                count=len(mine),
                accuracy=sum(ok for _, _, ok in mine) / len(mine),
                majority=commonest / len(mine),
                copy=sum(copies) / len(copies) if copies else None,
                by_size=_by_size(mine),
            )
        )
    return result


def _by_size(mine: Sequence[tuple[Scene, Question, bool]]) -> dict[str, float]:
    hits: dict[str, list[bool]] = {}
    for scene, question, ok in mine:
        if len(question.targets) == 1:
            hits.setdefault(scene.objects[question.targets[0]].size, []).append(ok)
    return {size: sum(found) / len(found) for size, found in sorted(hits.items())}


def _copy_chance(scene: Scene, question: Question) -> float | None:
    read = {
        "color": [o.color for o in scene.objects],
        "shape": [o.shape for o in scene.objects],
        "size": [o.size for o in scene.objects],
        "where": [zone(o, scene.image_wh) for o in scene.objects],
        "at": [o.name for o in scene.objects],
    }.get(question.kind)
    return None if read is None else read.count(question.answer) / len(read)


def _norm(text: str) -> str:
    return " ".join(text.casefold().strip().rstrip(".").split())
