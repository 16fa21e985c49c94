"""What an atlas can score heads by: names, directions, ranges, sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlmattn.core.errors import SpecError


@dataclass(frozen=True)
class ScoreKind:
    """One score.

    Attributes:
        name: what it is called. said: what a value is, in words, with its unit. needs: what it is computed from:
            ``rows`` (the pass itself), ``boxes``, ``words``, ``outputs`` (one more pass), ``text`` (the same without
            the picture), ``gradient`` (one backward pass), ``repeats`` (passes over repeated text), ``ablation`` (a
            pass per head). low_first: whether low values are the better ones. vision: whether it means something
            only where a head looks at pictures at all. source: paper.
    """

    name: str
    said: str
    needs: str
    low_first: bool = False
    vision: bool = True
    source: str = ""


_VISUAL = "after Bi et al., CVPR 2025, arXiv 2412.18108: a proxy"
_LOCAL = "Localization heads, CVPR 2025, arXiv 2503.06287"
_VHD = "Vision-aware Head Divergence, ACL 2025, arXiv 2412.13949"
_COPY = "after Retrieval heads, ICLR 2025, arXiv 2404.15574"
_TEXT = "Olsson et al., 2022; Elhage et al., 2021"
_MICHEL = "Michel et al., NeurIPS 2019, arXiv 1905.10650"

SCORES: dict[str, ScoreKind] = {
    s.name: s
    for s in (
        ScoreKind("visual", "mass x (1 - entropy), 0 to 1, mean over answer tokens", "rows", source=_VISUAL),
        ScoreKind("mass", "attention of the last prompt row on the picture, 0 to 1", "rows", source=_LOCAL),
        ScoreKind("entropy", "spatial entropy of that row's map, nats, low is better", "rows", True, source=_LOCAL),
        ScoreKind("localization", "share of samples in which the head gets a vote", "rows", source=_LOCAL),
        ScoreKind("pointing", "share of samples whose highest patch touches the box", "boxes"),
        ScoreKind("copy", "share of named tokens whose highest patch holds them", "words", source=_COPY),
        ScoreKind("vhd", "distance of outputs with and without the picture", "text", source=_VHD),
        ScoreKind("gradient", "|output x gradient of the answer's log-probability|", "gradient", False, False, _MICHEL),
        ScoreKind("previous", "attention on the token before, 0 to 1", "repeats", False, False, _TEXT),
        ScoreKind("induction", "attention on what followed the token before, 0 to 1", "repeats", False, False, _TEXT),
        ScoreKind("offset", "highest attention at one offset of 2 to 8, 0 to 1", "repeats", False, False, _TEXT),
        ScoreKind("ablation", "drop of the answer's log-probability without the head", "ablation", False, False),
        ScoreKind("ablation_mean", "the same with its mean output instead", "ablation", False, False),
    )
}
"""By name."""

DEFAULT_SCORES = tuple(name for name, kind in SCORES.items() if kind.needs != "ablation")
"""All that take a fixed number of passes per sample."""


def score_names(wanted: Sequence[str] | str | None) -> tuple[str, ...]:
    """Names of scores, in the order of :data:`SCORES`; None for :data:`DEFAULT_SCORES`, ``all`` for all.

    Raises:
        SpecError: no such score; lists those there are.
    """
    if wanted is None:
        return DEFAULT_SCORES
    named: Any = SCORES if wanted == "all" else [wanted] if isinstance(wanted, str) else wanted
    listed = list(named) if isinstance(named, (Sequence, dict)) else [named]
    wrong = [one for one in listed if not isinstance(one, str) or one not in SCORES]
    if wrong or not listed:
        raise SpecError(f"scores {wrong or '(none)'} do not exist; there are {', '.join(SCORES)}, or 'all'")
    return tuple(name for name in SCORES if name in listed)
