"""More than one picture: several in a prompt, and batches of prompts that differ in length and pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters.paint import grey_picture, paintable, unmixed

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlmattn.adapters.adapter import Adapter
    from vlmattn.core.layout import TokenLayout

SIZES = ((150, 90), (70, 130), (100, 100))
_QUESTIONS = ("What?", "What is there to be seen in these pictures, and where?")


def allowed(adapter: Adapter, wanted: int) -> int:
    """How many pictures of ``wanted`` one prompt may have."""
    return wanted if adapter.max_images is None else min(wanted, adapter.max_images)


def batch_faults(adapter: Adapter, rng: np.random.Generator) -> list[str]:
    """A batch of two prompts, one with more pictures than the other, must be each prompt alone behind its padding.

    Token ids and masks must be equal, and so must what the language model gets of each token.
    """
    groups = [[_noise(size, rng) for size in SIZES[: allowed(adapter, 2)]], [_noise(SIZES[2], rng)]]
    both = adapter.encode(groups, list(_QUESTIONS))
    merged = merged_states(adapter, both)
    faults = []
    for index, (group, question) in enumerate(zip(groups, _QUESTIONS, strict=True)):
        alone, pad = adapter.encode(group, question), both.pad_left[index]
        name = "input_ids" if "input_ids" in both.inputs else "decoder_input_ids"
        ids, one, own = both.inputs[name][index].tolist(), alone.inputs[name][0].tolist(), alone.layouts[0]
        after = len(ids) - len(one) if adapter.answers_apart else 0
        mask = both.inputs.get("attention_mask") if name == "input_ids" else None
        masked = mask is None or mask[index].tolist() == [0] * pad + [1] * len(one) + [0] * after
        if ids[pad:][: len(one)] != one or not masked:
            faults.append(f"prompt {index} of the batch is not the prompt alone after {pad} padding tokens")
            continue
        other = both.layouts[index]
        if own.input_ids[own.memory :].tolist() != other.input_ids[other.memory :].tolist():
            faults.append(f"prompt {index} of the batch has another layout than alone")
        # Keys beside the prompt are as many as the longest has; families that run one by one have their reason.
        if own.memory or adapter.answers_apart or not adapter.spec.batches:
            continue
        apart = np.abs(merged[index][pad:] - merged_states(adapter, alone)[0]).max()
        if not apart <= 10 * slack_of(adapter) * np.abs(merged[index][pad:]).max():
            faults.append(f"prompt {index} of the batch gets other image tokens than alone, by {apart:.2g}")
    return faults


def several_faults(adapter: Adapter, number: int, rng: np.random.Generator) -> list[str]:
    """Paint a random cell of picture ``number`` of several, then its last: the token that changes most must be that
    cell's, of that picture, and no other picture's tokens may change."""
    sizes = SIZES[: allowed(adapter, 3)]
    plain = [grey_picture(size, own_scale=adapter.own_scale) for size in sizes]
    encoded = adapter.encode(plain, _QUESTIONS[0])
    layout = encoded.layouts[0]
    if len(layout.images) != len(sizes):
        return [f"{len(sizes)} pictures have {len(layout.images)} layouts"]
    picture = layout.images[number]
    rows, cols = picture.tiles[0].grid_hw
    cells = {(0, int(rng.integers(rows)), int(rng.integers(cols))), (0, rows - 1, cols - 1)}
    faults: list[str] = []
    with unmixed(adapter.model):
        before = merged_states(adapter, encoded)[0]
        for cell in sorted(cells):
            spot = paintable(picture, *cell) if cell[1:] not in picture.tiles[0].lost else None
            if spot is None:
                continue
            pictures = [*plain]
            pictures[number] = grey_picture(sizes[number], [spot], own_scale=adapter.own_scale)
            change = np.linalg.norm(merged_states(adapter, adapter.encode(pictures, _QUESTIONS[0]))[0] - before, axis=1)
            faults += _misplaced(adapter, layout, change, number, cell)
    return faults


def _misplaced(
    adapter: Adapter, layout: TokenLayout, change: NDArray[np.floating], number: int, cell: tuple[int, int, int]
) -> list[str]:
    others = change[layout.image != number].max(initial=0.0)
    if others > slack_of(adapter) * change.max():
        return [
            f"painting picture {number} of {len(layout.images)} changed tokens that are not its own, by {others:.2g}"
        ]
    mine = np.flatnonzero((layout.image == number) & (layout.tile == 0))
    top = mine[int(change[mine].argmax())]
    found = (0, int(layout.row[top]), int(layout.col[top]))
    return [] if found == cell else [f"painting cell {cell} of picture {number} changed its cell {found} most"]


def slack_of(adapter: Adapter) -> float:
    """What rounding explains, of the largest value: 1e-4 in float32, where other batches are other kernels."""
    import torch

    return 1e-4 if adapter.model.dtype == torch.float32 else 2**-7


def _noise(size: tuple[int, int], rng: np.random.Generator) -> Image:
    from PIL import Image

    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def merged_states(adapter: Adapter, encoded: Any) -> Any:
    """(B, N, d) what stands behind every token of an encoded batch, as a float32 array."""
    model = adapter.model
    inputs = encoded.to(next(model.parameters()).device, model.dtype).inputs
    return adapter.states_seen(inputs).float().cpu().numpy()
