"""The text of an answer, and the characters that each of its tokens wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def decoded(tokenizer: Any, token_ids: Sequence[int]) -> tuple[str, NDArray[np.int32]]:
    """The answer's text without surrounding white space, and (M, 2) spans of M tokens in it.

    Special tokens and tokens of nothing but surrounding white space get (-1, -1). A character written by several
    tokens (an emoji in bytes) belongs to each of them.
    """
    ids = [int(i) for i in token_ids]
    full = _text(tokenizer, ids)
    ends = [_common(_text(tokenizer, ids[: k + 1]), full) for k in range(len(ids))]
    special = set(tokenizer.all_special_ids)
    spans = _shared(ends, [i in special for i in ids])
    lead = len(full) - len(full.lstrip())
    text = full.strip()
    spans = np.where(spans >= 0, np.clip(spans - lead, 0, len(text)), -1)
    empty = spans[:, 1] <= spans[:, 0]
    return text, np.where(empty[:, None], -1, spans).astype(np.int32)


def _text(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _common(part: str, full: str) -> int:
    """Length of the longest common beginning. A half-written character shows as U+FFFD and is not common."""
    if full.startswith(part):
        return len(part)
    return next((i for i, (a, b) in enumerate(zip(part, full, strict=False)) if a != b), min(len(part), len(full)))


def _shared(ends: list[int], special: list[bool]) -> NDArray[np.int32]:
    """Spans from running text lengths; tokens that finish nothing share the span of the next one that does."""
    spans = np.full((len(ends), 2), -1, dtype=np.int32)
    done, waiting = 0, []
    for k, (end, skip) in enumerate(zip(ends, special, strict=True)):
        if skip:
            continue
        waiting.append(k)
        if end > done:
            spans[waiting] = (done, end)
            done, waiting = end, []
    return spans
