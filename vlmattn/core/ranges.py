"""Whole numbers as people write them: ``3``, ``4-8``, ``1,3,-1``."""

from __future__ import annotations

import re

from vlmattn.core.errors import SpecError

_NUMBERS = re.compile(r"(-?[0-9]+)(?:-(-?[0-9]+))?")
_MOST = 9999


def numbers(text: str, what: str) -> list[int]:
    """``'1,4-6,-1'`` as [1, 4, 5, 6, -1].

    Args:
        what: is named in errors.

    Raises:
        SpecError: not numbers, a range that runs backwards, or numbers larger than any model has.

    Example:
        >>> numbers("1,4-6,-1", "layers")
        [1, 4, 5, 6, -1]
    """
    result: list[int] = []
    for part in text.replace(" ", "").split(","):
        found = _NUMBERS.fullmatch(part)
        if found is None:
            raise SpecError(f"{what} must be numbers such as '3', '4-8' or '1,3,-1'; got {text!r}")
        first, last = int(found[1]), int(found[2] if found[2] is not None else found[1])
        if max(abs(first), abs(last)) > _MOST:
            raise SpecError(f"{what} {part}: no model has so many")
        if last < first:
            raise SpecError(f"{what} {part} runs backwards: write {last}-{first}")
        result += range(first, last + 1)
    return result
