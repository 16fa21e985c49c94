"""Words and phrases of a prompt and its answer, and the tokens that carry them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vlmattn.core.clusters import breaks_at, folded, is_unspaced, word_spans
from vlmattn.core.errors import MapError, SpecError, WordNotFound
from vlmattn.core.layout import TokenKind, TokenLayout

Part = Literal["question", "answer"]


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


def pieces(layout: TokenLayout, part: Part) -> tuple[tuple[int, int], ...]:
    """[start, end) of the stretches of a part between the placeholders of pictures; usually one."""
    start, end = part_span(layout, part)
    found = []
    for low, high in sorted(layout.placeholders):
        if start <= low and high <= end:
            found.append((start, low))
            start = high
    return tuple((a, b) for a, b in (*found, (start, end)) if b > a)


def part_text(layout: TokenLayout, part: Part) -> str:
    """The text of a part without placeholders of pictures; a space where one stood between two words."""
    text = ""
    for start, end in pieces(layout, part):
        piece = layout.text[start:end]
        text += piece if not text or text[-1].isspace() or piece[0].isspace() else f" {piece}"
    return text


def words(layout: TokenLayout, part: Part = "answer") -> tuple[Span, ...]:
    """All words and punctuation marks of a part, in order, each with its tokens and its number among equal ones.

    Equal are those that differ in letter case at most. :func:`find` counts in the same way.
    """
    places: dict[str, list[tuple[int, int]]] = {}
    found = []
    for start, end in pieces(layout, part):
        for low, high in word_spans(layout.text[start:end]):
            span, tokens = (start + low, start + high), tokens_between(layout, start + low, start + high)
            if tokens:
                found.append((span, tokens))
                places.setdefault(folded(layout.text[slice(*span)]).text, []).append(span)
    for key in places:
        if is_unspaced(key[0]) or is_unspaced(key[-1]):
            places[key] = _matches(layout, key, part)
    result = []
    for span, tokens in found:
        equal = places[folded(layout.text[slice(*span)]).text]
        result.append(Span(layout.text[slice(*span)], part, span, tokens, equal.index(span) + 1, len(equal)))
    return tuple(result)


def tokens_between(layout: TokenLayout, start: int, end: int) -> tuple[int, ...]:
    """Positions of the tokens that cover any character of [start, end)."""
    first, last = layout.char_span[:, 0], layout.char_span[:, 1]
    return tuple(int(p) for p in np.flatnonzero((first >= 0) & (first < end) & (last > start)))


def find(layout: TokenLayout, text: str, *, part: Part | None = None, occurrence: int | None = None) -> Span:
    """The span of a word or phrase.

    Letter case does not count. A match begins and ends where words do: ``cup`` is found in ``cup's`` only where it
    does not stand alone, and never in ``cupboard``. Scripts written without spaces are searched anywhere. Without
    ``part`` the answer is searched first, then the question; without ``occurrence`` the first match is taken, and the
    span says of how many.

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
    matches = _matches(layout, text, part)
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
    return Span(part_text(layout, part), part, (start, end), tokens)


def _matches(layout: TokenLayout, text: str, part: Part) -> list[tuple[int, int]]:
    wanted = r"\s+".join(re.escape(piece) for piece in folded(" ".join(text.split())).text.split())
    found: list[tuple[int, int]] = []
    whole_words: list[tuple[int, int]] = []
    for start, end in pieces(layout, part):
        inner = layout.text[start:end]
        spans = word_spans(inner)
        heads, tails = {a for a, _ in spans}, {b for _, b in spans}
        for low, high in _found_in(inner, wanted):
            if tokens_between(layout, start + low, start + high):
                found.append((start + low, start + high))
                if _apart(inner, low, low in heads) and _apart(inner, high, high in tails):
                    whole_words.append(found[-1])
    return whole_words or found


def _found_in(text: str, pattern: str) -> list[tuple[int, int]]:
    """[start, end) of a folded pattern in a text, whole clusters and not inside a word."""
    one, wanted = folded(text), re.compile(pattern)
    found: list[tuple[int, int]] = []
    match = wanted.search(one.text)
    while match is not None:
        span = one.span(*match.span())
        fits = span is not None and breaks_at(text, span[0]) and breaks_at(text, span[1])
        if span is not None and fits:
            found.append(span)
        match = wanted.search(one.text, match.end() if fits else match.start() + 1)
    return found


def _apart(text: str, place: int, at_word: bool) -> bool:
    # Inside a run of an unspaced script every place is as good as the edge of a word.
    return at_word or any(is_unspaced(c) for c in text[max(place - 1, 0) : place + 1])
