"""How well a model answers questions about scenes, beside two baselines that do not look properly.

``majority`` always gives the commonest answer of the kind. ``copy`` names the attribute of a random object of the
scene: perception without knowing which object was meant (its expected score is computed, not drawn).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from vlmattn.core.errors import SpecError
from vlmattn.scene.captions import CaptionScore, score_captions
from vlmattn.scene.generator import COLUMNS, ROWS, Scene, zone
from vlmattn.scene.objects import COLORS, SHAPES, SIZES
from vlmattn.scene.questions import NUMBERS, Question
from vlmattn.scene.splits import split_item

Answerer = Callable[[list[Any], list[str]], Sequence[str]]
"""Takes pictures and questions, one each, and gives the answers."""


@dataclass(frozen=True)
class KindScore:
    """Score of one kind of question.

    Attributes:
        count: questions. accuracy: exact matches, 0 to 1. majority, copy: what the baselines score; ``copy`` is None
            where it has no meaning. on_kind: share of answers that are of the kind asked for, right or wrong (a colour
            for a colour …): whether the instruction was read. by_size: accuracy by the size of the object asked about.
            by_answer: accuracy by true answer, for counts and presence. by_foil: accuracy by what an absent thing was
            (1 less it is the share of wrong *yes*). captions: CHAIR and recall, for captions.
    """

    kind: str
    count: int
    accuracy: float
    majority: float
    copy: float | None
    on_kind: float
    by_size: dict[str, float] = field(default_factory=dict)
    by_answer: dict[str, float] = field(default_factory=dict)
    by_foil: dict[str, float] = field(default_factory=dict)
    captions: CaptionScore | None = None


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
    """Ask every question of ``scenes`` scenes of a split; exact match after case and surrounding space are dropped.

    Raises:
        SpecError: no such split, or no scene at all.
    """
    if scenes < 1:
        raise SpecError(f"scenes must be at least 1, got {scenes}")
    asked: list[tuple[Scene, Question]] = []
    for index in range(scenes):
        scene, questions = split_item(split, seed, index)
        asked += [(scene, q) for q in questions if kinds is None or q.kind in kinds]
    # Questions of a kind have answers of a length: a batch of them wastes no steps.
    asked.sort(key=lambda pair: pair[1].kind)
    said: list[str] = []
    for first in range(0, len(asked), batch):
        part = asked[first : first + batch]
        said += answer([s.image for s, _ in part], [q.text for _, q in part])
        if progress is not None:
            progress(len(said), len(asked))
    return score(asked, said)


def score(asked: Sequence[tuple[Scene, Question]], said: Sequence[str]) -> list[KindScore]:
    """One :class:`KindScore` per kind, in order of first appearance."""
    rows = [(scene, question, _norm(text)) for (scene, question), text in zip(asked, said, strict=True)]
    return [
        _kind_score(kind, [r for r in rows if r[1].kind == kind]) for kind in dict.fromkeys(q.kind for _, q in asked)
    ]


_Rows = list[tuple[Scene, Question, str]]


def _kind_score(kind: str, rows: _Rows) -> KindScore:
    commonest = Counter(q.answer for _, q, _ in rows).most_common(1)[0][1]
    copies = [c for s, q, _ in rows if (c := _copy_chance(s, q)) is not None]
    return KindScore(
        kind=kind,
        count=len(rows),
        accuracy=_mean([text == _norm(q.answer) for _, q, text in rows]),
        majority=commonest / len(rows),
        copy=_mean(copies) if copies else None,
        on_kind=_mean([_is_of_kind(kind, text) for _, _, text in rows]),
        by_size=_grouped(rows, lambda s, q: s.objects[q.targets[0]].size if len(q.targets) == 1 else ""),
        by_answer=_grouped(rows, lambda _, q: q.answer if kind in ("count", "exist", "relation") else ""),
        by_foil=_grouped(rows, lambda _, q: q.foil),
        captions=score_captions([(s, text) for s, _, text in rows]) if kind == "caption" else None,
    )


def _grouped(rows: _Rows, key: Callable[[Scene, Question], str]) -> dict[str, float]:
    groups: dict[str, list[bool]] = {}
    for scene, question, text in rows:
        if name := key(scene, question):
            groups.setdefault(name, []).append(text == _norm(question.answer))
    return {name: _mean(found) for name, found in sorted(groups.items())}


def _copy_chance(scene: Scene, question: Question) -> float | None:
    read = {
        "color": [o.color for o in scene.objects],
        "shape": [o.shape for o in scene.objects],
        "size": [o.size for o in scene.objects],
        "where": [zone(o, scene.image_wh) for o in scene.objects],
        "at": [o.name for o in scene.objects],
        "compare": [scene.objects[i].name for i in question.targets],
    }.get(question.kind)
    return None if read is None else read.count(question.answer) / len(read)


def _is_of_kind(kind: str, text: str) -> bool:
    words = text.split()
    if kind in ("at", "compare"):
        return len(words) == 2 and words[0] in COLORS and words[1] in SHAPES
    if kind == "where":
        return len(words) == 2 and words[0] in ROWS and words[1] in COLUMNS
    if kind == "caption":
        return words[:1] in (["a"], ["an"])
    allowed = {"color": tuple(COLORS), "shape": SHAPES, "size": tuple(SIZES), "count": NUMBERS}.get(kind, ("yes", "no"))
    return text in allowed


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _norm(text: str) -> str:
    return " ".join(text.casefold().strip().rstrip(".").split())
