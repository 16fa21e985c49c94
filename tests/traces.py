"""Small traces with known numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from vlmattn.core.layout import ImageLayout, Tile, TokenKind, TokenLayout
from vlmattn.trace import Trace

QUESTION = "Is the red cup red?"
ANSWER = "red, not Red"


def layout() -> TokenLayout:
    """One picture of two tiles (2 × 2 base, then 1 × 2) with a separator between them; one token per word or mark.

    0 bos, 1 system, 2-5 base, 6 separator, 7-8 tiles, 9-14 question, 15 template, 16-19 answer.
    """
    base, tiles = Tile("base", (2, 2), (0, 0, 40, 20)), Tile("tiles", (1, 2), (0, 0, 40, 20))
    text = f"USER: <image> {QUESTION} ASSISTANT: {ANSWER}"
    at = text.index(QUESTION)
    words = [("Is", 0), ("the", 3), ("red", 7), ("cup", 11), ("red", 15), ("?", 18)]
    begin = text.index(ANSWER)
    said = [("red", 0), (",", 3), ("not", 5), ("Red", 9)]
    spans = [(-1, -1), (0, 5), *[(-1, -1)] * 7]
    spans += [(at + s, at + s + len(w)) for w, s in words] + [(begin - 11, begin - 1)]
    spans += [(begin + s, begin + s + len(w)) for w, s in said]
    kinds = [TokenKind.BOS, TokenKind.SYSTEM, *[TokenKind.IMAGE] * 4, TokenKind.SEPARATOR, *[TokenKind.IMAGE] * 2]
    kinds += [TokenKind.QUESTION] * 6 + [TokenKind.SYSTEM] + [TokenKind.ANSWER] * 4
    none = np.full(20, -1, dtype=np.int32)
    image, tile, row, col = none.copy(), none.copy(), none.copy(), none.copy()
    image[2:9] = 0
    # The base tile is stored column by column, so that nobody may assume the order of rows.
    tile[2:6], row[2:6], col[2:6] = 0, [0, 1, 0, 1], [0, 0, 1, 1]
    tile[7:9], row[7:9], col[7:9] = 1, 0, [0, 1]
    return TokenLayout(
        text=text,
        input_ids=np.arange(20),
        kinds=np.array(kinds, dtype=np.int8),
        image=image,
        tile=tile,
        row=row,
        col=col,
        char_span=np.array(spans, dtype=np.int32),
        question_span=(at, at + len(QUESTION)),
        answer_start=16,
        images=(ImageLayout((40, 20), (base, tiles)),),
    )


def trace(**changes: Any) -> Trace:
    """2 layers × 2 heads; the row at position p gives column k of layer l and head h the value
    (1 + l) · (1 + 2 h) · (p + 1) · (k + 1) / 10000, with k = 0 … 5 over the six image tokens."""
    tokens = layout()
    positions = np.arange(8, 20)
    columns = tokens.image_positions
    layer, head = np.array([1.0, 2.0])[:, None, None, None], np.array([1.0, 3.0])[None, :, None, None]
    values = layer * head * (positions + 1)[None, None, :, None] * np.arange(1, 7)[None, None, None, :] / 10000
    masses = np.zeros((2, 2, 12, len(tokens.segments())), dtype=np.float32)
    masses[..., 2] = values.sum(-1)
    masses[..., 0] = 1 - values.sum(-1)
    given: dict[str, Any] = {
        "layout": tokens,
        "layers": (0, 1),
        "heads": ((0, 1), (0, 1)),
        "positions": positions,
        "columns": columns,
        "attn_lhqk": values.astype(np.float32),
        "segments": tokens.segments(),
        "mass_lhqs": masses,
    }
    return Trace(**(given | changes))
