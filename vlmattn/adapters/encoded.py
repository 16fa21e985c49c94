"""Model inputs together with what each of their tokens is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import LayoutError
from vlmattn.core.layout import TokenLayout

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlmattn.core.videos import Video

TYPE_KEYS = ("token_type_ids", "mm_token_type_ids", "moe_mm_token_type_ids")
"""Inputs with one number per token that say what kind of token it is."""


@dataclass(frozen=True)
class Encoded:
    """A batch of B prompts with their pictures, ready for ``model(**inputs)`` and ``model.generate(**inputs)``.

    Attributes:
        inputs: tensors by name; ``input_ids`` and ``attention_mask`` are (B, P + N), padded on the left.
        layouts: one per prompt; positions count from the first real token.
        pad_left: number of padding tokens before each prompt.
        images: the pictures, upright, and videos of each prompt.
    """

    inputs: dict[str, Any]
    layouts: tuple[TokenLayout, ...]
    pad_left: tuple[int, ...]
    images: tuple[tuple[Image | Video, ...], ...] = field(repr=False)

    def __post_init__(self) -> None:
        if not len(self.layouts) == len(self.pad_left) == len(self.images):
            raise LayoutError(
                f"layouts, pad_left and images must have one entry per prompt, got {len(self.layouts)},"
                f" {len(self.pad_left)} and {len(self.images)}"
            )

    @property
    def batch_size(self) -> int:
        """Number of prompts."""
        return len(self.layouts)

    def to(self, device: Any = None, dtype: Any = None) -> Encoded:
        """A copy with all tensors on ``device``, and those with fractions in ``dtype``."""
        return replace(self, inputs={name: _moved(value, device, dtype) for name, value in self.inputs.items()})


def _moved(value: Any, device: Any, dtype: Any) -> Any:
    if not hasattr(value, "is_floating_point"):
        return value
    return value.to(device=device, dtype=dtype if dtype is not None and value.is_floating_point() else value.dtype)


def pad_id_of(tokenizer: Any) -> int:
    """What stands in place of tokens beside a short prompt of a batch; some models count tokens by it."""
    told = (getattr(tokenizer, name, None) for name in ("pad_token_id", "eos_token_id"))
    return int(next((one for one in told if one is not None), 0))


def right_padded(rows: Sequence[NDArray[np.int64]], fill: int) -> Any:
    """(B, N) int64 rows of different lengths, padded on the right."""
    import torch

    longest = max(len(row) for row in rows)
    return torch.from_numpy(np.stack([np.pad(row, (0, longest - len(row)), constant_values=fill) for row in rows]))


def repeated_rows(told: Any, pads: Sequence[int], new_pads: Sequence[int], lengths: Sequence[int]) -> Any:
    """(B, N, …) what is told of each token, for longer sequences: the last token's row is that of those after it.

    Args:
        told: of sequences with ``pads`` tokens of padding on the left. new_pads, lengths: of the longer ones, without
            padding, which is told 0.
    """
    longer = told.new_zeros(
        (told.shape[0], max(p + n for p, n in zip(new_pads, lengths, strict=True)), *told.shape[2:])
    )
    for line, (pad, new, count) in enumerate(zip(pads, new_pads, lengths, strict=True)):
        held = told[line, pad:][:count]
        longer[line, new : new + len(held)] = held
        longer[line, new + len(held) : new + count] = held[-1]
    return longer


def left_padded(
    rows: list[NDArray[np.int64]], extra: Mapping[str, list[NDArray[np.int64]]], pad_id: int
) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Token rows of different lengths as tensors, padded on the left: (inputs, pads).

    ``extra`` holds further per-token arrays by name (such as token_type_ids); they are padded with 0.
    """
    import torch

    longest = max(len(r) for r in rows)
    pads = tuple(longest - len(r) for r in rows)

    def stacked(parts: list[NDArray[np.int64]], fill: int) -> Any:
        padded = [np.concatenate([np.full(p, fill, dtype=np.int64), r]) for p, r in zip(pads, parts, strict=True)]
        return torch.from_numpy(np.stack(padded))

    inputs = {"input_ids": stacked(rows, pad_id), "attention_mask": stacked([np.ones_like(r) for r in rows], 0)}
    return inputs | {name: stacked(parts, 0) for name, parts in extra.items()}, pads
