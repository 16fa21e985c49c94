"""Words and phrases of a prompt and its answer, and the tokens that carry them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vlmattn.core.errors import MapError, SpecError, WordNotFound
from vlmattn.core.layout import TokenKind, TokenLayout

Part = Literal["question", "answer"]
_WORD = re.compile(r"\w+(?:['’\-]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class Span:
    """A stretch of the question or the answer.

    Attributes:
        text: the characters. part: where it stands. char_span: [start, end) in ``layout.text``.
        tokens: positions of the tokens that carry it, ascending.
        occurrence, of: which one it is (from 1) of how many equal ones in the same part.
    """

    text: str
    part: Part
    char_span: tuple[int, int]
    tokens: tuple[int, ...]
    occurrence: int = 1
    of: int = 1

    @property
    def label(self) -> str:
        """The text, with its number where it occurs more than once: ``red (answer, 2 of 3)``."""
        return self.text if self.of == 1 else f"{self.text} ({self.part}, {self.occurrence} of {self.of})"


def part_span(layout: TokenLayout, part: Part) -> tuple[int, int]:
    """[start, end) in ``layout.text`` of the question or the answer."""
    if part == "question":
        return layout.question_span
    spans = layout.char_span[layout.answer_start :]
    placed = spans[spans[:, 0] >= 0]
    return (int(placed[:, 0].min()), int(placed[:, 1].max())) if len(placed) else (len(layout.text), len(layout.text))


def words(layout: TokenLayout, part: Part = "answer") -> tuple[Span, ...]:
    """All words and punctuation marks of a part, in order, each with its tokens and its number among equal ones."""
    start, end = part_span(layout, part)
    found = [(m.group(), start + m.start(), start + m.end()) for m in _WORD.finditer(layout.text[start:end])]
    totals: dict[str, int] = {}
    for text, _, _ in found:
        totals[text.casefold()] = totals.get(text.casefold(), 0) + 1
    counts: dict[str, int] = {}
    result = []
    for text, first, last in found:
        key = text.casefold()
        counts[key] = counts.get(key, 0) + 1
        tokens = tokens_between(layout, first, last)
        result.append(Span(text, part, (first, last), tokens, counts[key], totals[key]))
    return tuple(result)


def tokens_between(layout: TokenLayout, start: int, end: int) -> tuple[int, ...]:
    """Positions of the tokens that cover any character of [start, end)."""
    first, last = layout.char_span[:, 0], layout.char_span[:, 1]
    return tuple(int(p) for p in np.flatnonzero((first >= 0) & (first < end) & (last > start)))


def find(layout: TokenLayout, text: str, *, part: Part | None = None, occurrence: int | None = None) -> Span:
    """The span of a word or phrase.

    Letter case does not count; a match must not begin or end inside a word. Without ``part`` the answer is searched
    first, then the question; without ``occurrence`` the first match is taken, and the span says of how many.

    Raises:
        WordNotFound: nothing matches; the error lists the words there are.
        SpecError: ``occurrence`` is not one of the matches, or ``text`` is empty.
    """
    if not text.strip():
        raise SpecError("the word to look for is empty")
    parts: tuple[Part, ...] = (part,) if part is not None else ("answer", "question")
    for where in parts:
        matches = occurrences(layout, text, where)
        if matches:
            number = 1 if occurrence is None else occurrence
            if not 1 <= number <= len(matches):
                raise SpecError(f"{text!r} occurs {len(matches)} times in the {where}; there is no number {number}")
            return matches[number - 1]
    known = [w.text for p in parts for w in words(layout, p)]
    raise WordNotFound(text, where=" or the ".join(parts), words=list(dict.fromkeys(known)))


def occurrences(layout: TokenLayout, text: str, part: Part) -> tuple[Span, ...]:
    """All spans of a word or phrase in one part, in order; see :func:`find` for what counts as a match."""
    matches = _matches(layout, text.strip(), part)
    return tuple(
        Span(layout.text[first:last], part, (first, last), tokens_between(layout, first, last), number, len(matches))
        for number, (first, last) in enumerate(matches, 1)
    )


def whole(layout: TokenLayout, part: Part) -> Span:
    """The whole question or answer as one span.

    Raises:
        MapError: the part has no text.
    """
    kind = TokenKind.ANSWER if part == "answer" else TokenKind.QUESTION
    start, end = part_span(layout, part)
    tokens = tuple(int(p) for p in np.flatnonzero(layout.kinds == kind) if layout.char_span[p, 0] >= 0)
    if not tokens:
        other = "question" if part == "answer" else "answer"
        raise MapError(f"the {part} has no text, so no token looked anywhere for it: ask for a word of the {other}")
    return Span(layout.text[start:end], part, (start, end), tokens)


def _matches(layout: TokenLayout, text: str, part: Part) -> list[tuple[int, int]]:
    start, end = part_span(layout, part)
    before = r"(?<!\w)" if text[0].isalnum() and text[0].isascii() else ""
    after = r"(?!\w)" if text[-1].isalnum() and text[-1].isascii() else ""
    body = r"\s+".join(re.escape(piece) for piece in text.split())
    pattern = re.compile(before + body + after, re.IGNORECASE)
    return [(start + m.start(), start + m.end()) for m in pattern.finditer(layout.text[start:end])]
