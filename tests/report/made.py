"""Traces of any text and any tiles, with random attention: one token per word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from vlmattn.core.images import Picture
from vlmattn.core.layout import ImageLayout, Tile, TokenKind, TokenLayout
from vlmattn.core.provenance import Provenance
from vlmattn.trace import Trace


def layout_of(question: str, answer: str, images: Sequence[ImageLayout]) -> TokenLayout:
    """bos, one token per cell, then the tokens of question, template and answer."""
    text, at = f"USER: {question} ASSISTANT: {answer}", len("USER: ")
    start = at + len(question) + len(" ASSISTANT: ")
    kinds, places, spans = [TokenKind.BOS], [(-1, -1, -1, -1)], [(-1, -1)]
    for number, picture in enumerate(images):
        for index, tile in enumerate(picture.tiles):
            held = [(r, c) for r in range(tile.grid_hw[0]) for c in range(tile.grid_hw[1]) if (r, c) not in tile.lost]
            kinds += [TokenKind.IMAGE] * len(held)
            places += [(number, index, r, c) for r, c in held]
            spans += [(-1, -1)] * len(held)
    for kind, base, said in ((TokenKind.QUESTION, at, question), (TokenKind.ANSWER, start, answer)):
        if kind == TokenKind.ANSWER:
            kinds, places, spans = [*kinds, TokenKind.SYSTEM], [*places, (-1,) * 4], [*spans, (start - 1, start)]
            first = len(kinds)
        for found in re.finditer(r"\S+\s*", said):
            kinds, places = [*kinds, kind], [*places, (-1,) * 4]
            spans = [*spans, (base + found.start(), base + found.end())]
    columns = np.array(places, dtype=np.int32)
    return TokenLayout(
        text=text, input_ids=np.arange(len(kinds)), kinds=np.array(kinds, dtype=np.int8), image=columns[:, 0],
        tile=columns[:, 1], row=columns[:, 2], col=columns[:, 3], char_span=np.array(spans, dtype=np.int32),
        question_span=(at, at + len(question)), answer_start=first, images=tuple(images),
    )  # fmt: skip


def trace_of(
    question: str = "What is it?",
    answer: str = "a red cup",
    images: Sequence[ImageLayout] | None = None,
    *,
    layers: int = 3,
    heads: int = 2,
    seed: int = 0,
    peaked: float = 3.0,
    **changes: Any,
) -> Trace:
    """Random attention, all rows from the question on kept; ``peaked`` makes few cells high."""
    shown = images or (ImageLayout((60, 40), (Tile("base", (4, 6), (0, 0, 60, 40)),)),)
    tokens = layout_of(question, answer, shown)
    rng = np.random.default_rng(seed)
    columns = tokens.image_positions
    positions = np.arange(len(tokens) - (tokens.kinds >= TokenKind.QUESTION).sum() - 1, len(tokens))
    values = rng.random((layers, heads, len(positions), len(columns)), dtype=np.float32) ** peaked
    values *= rng.uniform(0.2, 0.9, (layers, heads, len(positions), 1)) / values.sum(-1, keepdims=True)
    masses = np.zeros((layers, heads, len(positions), len(tokens.segments())), dtype=np.float32)
    for number in range(len(shown)):
        masses[..., 2 + number] = values[..., tokens.image[columns] == number].sum(-1)
    masses[..., 0] = 1 - values.sum(-1)
    given: dict[str, Any] = {
        "layout": tokens, "layers": tuple(range(layers)), "heads": (tuple(range(heads)),) * layers,
        "positions": positions, "columns": columns, "attn_lhqk": values.astype(np.float32),
        "segments": tokens.segments(), "mass_lhqs": masses,
        "provenance": Provenance(model="made", question=question, answer=answer),
    }  # fmt: skip
    return Trace(**(given | changes))


def picture_of(wh: tuple[int, int] = (60, 40), name: str = "made.png") -> Picture:
    """A picture of one grey."""
    return Picture(Image.new("RGB", wh, (128, 128, 128)), name)
