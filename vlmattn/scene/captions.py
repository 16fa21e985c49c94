"""Captions of scenes against what is there: CHAIR (Rohrbach et al., 2018) over coloured shapes, and recall."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vlmattn.scene.generator import Scene
from vlmattn.scene.objects import COLORS, SHAPES

_NAME = re.compile(rf"\b({'|'.join(COLORS)}) ({'|'.join(SHAPES)})\b")


@dataclass(frozen=True)
class CaptionScore:
    """Over a set of captions.

    Attributes:
        chair_i: share of mentions that name something not there, 0 to 1, lower is better; 0 where nothing is mentioned.
        chair_s: share of captions with at least one such mention. recall: share of the things there that are mentioned.
        mentions: per caption.
    """

    chair_i: float
    chair_s: float
    recall: float
    mentions: float


def mentioned(caption: str) -> list[str]:
    """Colour and shape of everything a caption names, in its order, repetitions included.

    Example:
        >>> from vlmattn.scene.captions import mentioned
        >>> mentioned("a red circle, an orange cross")
        ['red circle', 'orange cross']
    """
    return [" ".join(found) for found in _NAME.findall(caption.casefold())]


def score_captions(said: Sequence[tuple[Scene, str]]) -> CaptionScore:
    """CHAIR_i, CHAIR_s and recall of captions.

    Raises:
        ValueError: no caption at all.
    """
    if not said:
        raise ValueError("captions to score must be at least one, got none")
    total = wrong = spoilt = found = there = 0
    for scene, caption in said:
        names = mentioned(caption)
        false = [name for name in names if name not in scene.names]
        total, wrong, spoilt = total + len(names), wrong + len(false), spoilt + bool(false)
        found, there = found + len(scene.names & set(names)), there + len(scene.names)
    return CaptionScore(wrong / total if total else 0.0, spoilt / len(said), found / there, total / len(said))
