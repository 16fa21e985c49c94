"""Text as readers see it: a letter with its marks, a joined emoji or a flag is one character, a word a run of them.

The standard library's ``\\w`` knows letters and digits but no combining marks, so that ``हिन्दी`` or a decomposed
``état`` would fall apart; and ``str.lower`` does not make ``STRASSE`` and ``Straße`` equal.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

_JOINER = "\u200d"
_INSIDE = ("'", "\u2019", "-", "\u2010", "\u2011")
"""What may stand between two letters of one word: apostrophes and hyphens."""

_UNSPACED = (
    (0x0E00, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1100, 0x11FF), (0x1780, 0x17FF), (0x1950, 0x19DF),
    (0x1A20, 0x1AAF), (0x1B00, 0x1B7F), (0x3005, 0x3007), (0x3031, 0x3035), (0x303B, 0x303C), (0x3041, 0x31FF),
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA960, 0xA9DF), (0xA9E0, 0xA9FF), (0xAA60, 0xAADF), (0xAC00, 0xD7FF),
    (0xF900, 0xFAFF), (0xFF66, 0xFFDC), (0x16FE0, 0x16FFF), (0x17000, 0x18DFF), (0x1AFF0, 0x1B16F),
    (0x20000, 0x3FFFF),
)  # fmt: skip
"""Scripts written without spaces, or that attach particles to words: Thai, Lao, Tibetan, Burmese, Hangul, Khmer, Tai,
Balinese, Javanese, kana, bopomofo, Chinese characters."""


@dataclass(frozen=True)
class Folded:
    """A text for comparison: case folded and composed, with the way back.

    Attributes:
        text: the folded text. first, last: for each of its characters, [first, last) of the cluster it comes from.
    """

    text: str
    first: tuple[int, ...]
    last: tuple[int, ...]

    def span(self, start: int, end: int) -> tuple[int, int] | None:
        """[start, end) in the original for [start, end) here; None if that would cut a cluster."""
        inside_first = start > 0 and self.first[start - 1] == self.first[start]
        inside_last = end < len(self.first) and self.first[end] == self.first[end - 1]
        return None if inside_first or inside_last else (self.first[start], self.last[end - 1])


@lru_cache(maxsize=256)
def clusters(text: str) -> tuple[tuple[int, int], ...]:
    """[start, end) of every character as readers count them.

    >>> [len(text[a:b]) for text in ("e\\u0301t", "👩‍👧!", "🇫🇷🇩🇪") for a, b in clusters(text)]
    [2, 1, 3, 1, 2, 2]
    """
    found: list[tuple[int, int]] = []
    start = 0
    while start < len(text):
        end = start + 1
        if _is_flag_half(text[start]) and end < len(text) and _is_flag_half(text[end]):
            end += 1
        end = _extended(text, start, end)
        found.append((start, end))
        start = end
    return tuple(found)


def _extended(text: str, start: int, end: int) -> int:
    letter = _is_letter(text[start])
    while end < len(text):
        joined = text[end - 1] == _JOINER and not letter and not (_is_letter(text[end]) or text[end].isspace())
        if not (extends(text[end]) or joined):
            break
        end += 1
    return end


def extends(char: str) -> bool:
    """Whether a character belongs to the one before it: marks, joiners, variation selectors, skin tones, flag tags."""
    if char.isascii():
        return False
    code = ord(char)
    return (
        char in ("\u200c", _JOINER)
        or 0x1F3FB <= code <= 0x1F3FF
        or 0xE0020 <= code <= 0xE007F
        or unicodedata.category(char)[0] == "M"
    )


def _is_flag_half(char: str) -> bool:
    return 0x1F1E6 <= ord(char) <= 0x1F1FF


def _is_letter(char: str) -> bool:
    return char.isalnum() or char == "_"


@lru_cache(maxsize=256)
def word_spans(text: str) -> tuple[tuple[int, int], ...]:
    """[start, end) of every word and of every mark or symbol between words, in order.

    Letters, digits and ``_`` make a word, with an apostrophe or a hyphen between two of them. A word ends where a
    script with spaces meets one without.

    >>> [text[a:b] for text in ("It's a well-known état!",) for a, b in word_spans(text)]
    ["It's", 'a', 'well-known', 'état', '!']
    """
    units = clusters(text)
    found: list[tuple[int, int]] = []
    index = 0
    while index < len(units):
        start, end = units[index]
        index += 1
        if text[start].isspace():
            continue
        if _is_letter(text[start]):
            index = _word_end(text, units, index)
            end = units[index - 1][1]
        found.append((start, end))
    return tuple(found)


def _word_end(text: str, units: tuple[tuple[int, int], ...], index: int) -> int:
    kind = is_unspaced(text[units[index - 1][0]])

    def goes_on(at: int) -> bool:
        char = text[units[at][0]] if at < len(units) else " "
        return _is_letter(char) and is_unspaced(char) == kind

    while True:
        if goes_on(index):
            index += 1
        elif not kind and index < len(units) and text[slice(*units[index])] in _INSIDE and goes_on(index + 1):
            index += 2
        else:
            return index


@lru_cache(maxsize=256)
def folded(text: str) -> Folded:
    """The text for comparison without regard to letter case and to how marks are encoded.

    >>> folded("STRASSE").text == folded("Straße").text, folded("e\\u0301").text == folded("É").text
    (True, True)
    """
    parts, first, last = [], [], []
    for start, end in clusters(text):
        one = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text[start:end]).casefold())
        parts.append(one)
        first += [start] * len(one)
        last += [end] * len(one)
    return Folded("".join(parts), tuple(first), tuple(last))


def is_unspaced(char: str) -> bool:
    """Whether words in the script of this letter may follow one another without a space."""
    index = bisect_right(_UNSPACED, (ord(char), 0x110000)) - 1
    return index >= 0 and _UNSPACED[index][0] <= ord(char) <= _UNSPACED[index][1]


def breaks_at(text: str, place: int) -> bool:
    """Whether a match may begin or end at ``place``: not between two letters, unless one is of an unspaced script."""
    if not 0 < place < len(text):
        return True
    before, after = _base(text, place - 1), text[place]
    if not (_is_letter(before) and _is_letter(after)):
        return True
    return is_unspaced(before) or is_unspaced(after)


def _base(text: str, place: int) -> str:
    while place > 0 and extends(text[place]):
        place -= 1
    return text[place]
