"""Prompts of second runs: without the picture, with noise on it, or with words before the question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters import Encoded
from vlmattn.core.errors import SpecError
from vlmattn.core.layout import TokenKind, TokenLayout

_OF_PICTURES = (TokenKind.IMAGE, TokenKind.SEPARATOR, TokenKind.LATENT)
_PIXELS = ("pixel_values", "image_patches")

Line = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Ids of a line, and the position in the old line of the token that each one stands for, or stands behind."""


def check_text_alone(name: str, layouts: Sequence[TokenLayout]) -> None:
    """Refuse prompts whose pictures cannot be taken out.

    Raises:
        SpecError: pictures beside the prompt or through a resampler, or none at all.
    """
    for layout in layouts:
        if layout.memory or len(layout.latent_positions):
            raise SpecError(
                f"{name} runs the text without its image tokens; this model sees pictures beside its prompt, or "
                "through a resampler"
            )
        if not len(layout.image_positions):
            raise SpecError(f"{name} contrasts with the text alone, and a prompt has no image token")


def text_alone(encoded: Encoded) -> dict[str, Any]:
    """Model inputs of the same text without image tokens; positions are counted anew."""
    lines: list[Line] = []
    for layout in encoded.layouts:
        left = np.flatnonzero(~np.isin(layout.kinds, _OF_PICTURES))
        lines.append((layout.input_ids[left], left))
    return retokened(encoded, lines, pictures=False)


def retokened(encoded: Encoded, lines: Sequence[Line], *, pictures: bool) -> dict[str, Any]:
    """Model inputs with other tokens, padded on the left.

    Args:
        lines: of each prompt. pictures: whether what is not told token by token (pixels, grids) stays.
    """
    import torch

    old = encoded.inputs["input_ids"]
    longest = max(len(ids) for ids, _ in lines)
    out: dict[str, Any] = {}
    for name, value in encoded.inputs.items():
        if not _is_per_token(value, old):
            out |= {name: value} if pictures else {}
            continue
        if name == "position_ids":
            continue
        filled = value.new_zeros((len(lines), longest, *value.shape[2:]))
        for line, ((ids, source), pad, layout) in enumerate(zip(lines, encoded.pad_left, encoded.layouts, strict=True)):
            at = torch.as_tensor(source - layout.memory + pad, device=value.device)
            told = torch.as_tensor(ids, device=value.device) if name == "input_ids" else value[line, at]
            filled[line, longest - len(ids) :] = told
            if name == "input_ids" and pad == 0 and longest > len(ids):
                filled[line, : longest - len(ids)] = _pad_of(encoded)
        out[name] = filled
    return out


def _pad_of(encoded: Encoded) -> int:
    padded = [line[0] for line, pad in zip(encoded.inputs["input_ids"], encoded.pad_left, strict=True) if pad]
    return int(padded[0]) if padded else 0


def _is_per_token(value: Any, ids: Any) -> bool:
    return hasattr(value, "shape") and tuple(value.shape[:2]) == tuple(ids.shape) and not value.is_floating_point()


def pixel_inputs(encoded: Encoded) -> list[str]:
    """Names of the inputs that hold pixels.

    Raises:
        SpecError: there are none.
    """
    names = [n for n in encoded.inputs if n.startswith(_PIXELS) and encoded.inputs[n].is_floating_point()]
    if not names:
        raise SpecError(f"the model gets no pixels to change; its inputs are {', '.join(encoded.inputs)}")
    return names


def inserted(layout: TokenLayout, words: NDArray[np.int64]) -> Line:
    """A line with ``words`` before the first token of the question."""
    asked = np.flatnonzero((layout.kinds == TokenKind.QUESTION) & (layout.char_span[:, 0] >= layout.question_span[0]))
    if not len(asked):
        raise SpecError("the prompt has no question before which words could be put")
    source = np.arange(layout.memory, len(layout))
    at = int(asked[0]) - layout.memory
    behind = np.full(len(words), source[at])
    ids = layout.input_ids[layout.memory :]
    return np.concatenate([ids[:at], words, ids[at:]]), np.concatenate([source[:at], behind, source[at:]])
