"""CARVE's contrast: attention under the question over attention under a general instruction, step by step.

Ge et al., "Focusing by Contrastive Attention", arXiv 2509.06461:
``S = Σ_t w_t Σ_ℓ A_q[t, ℓ] / (A_g[t, ℓ] + λ)``, over the steps t that both answers have and the chosen layers ℓ. It
enlarges every ratio to pixels and adds there; enlarging is linear, so here patches are added first. A layer whose
window does not reach a patch says nothing of it: such a patch has the mean of the layers and steps that see it, times
their number.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.grid import PatchMap
from vlmattn.maps.choices import Heads, Layers, choose_heads, choose_layers, visible_columns
from vlmattn.maps.raw import attention_lines, heads_made_one
from vlmattn.refine.recipes import check_number
from vlmattn.trace import Trace

_STEPS = ("first", "last", "every")


def contrast(
    task: Trace,
    general: Trace,
    *,
    image: int = 0,
    layers: Layers = None,
    heads: Heads = None,
    steps: Literal["first", "last", "every"] = "every",
    weights: Literal["even", "number"] = "number",
    floor: float = 0.05,
    floor_of: Literal["absolute", "mean"] = "mean",
    clip: float | None = 0.995,
) -> PatchMap:
    """Where the question looks more than a general instruction does; 0 or more, no unit.

    Args:
        task, general: traces of one picture with their answers' predicting rows; heads are averaged.
        steps: ``every`` answer token that both have, the ``first``, or the ``last`` of these.
        weights: of several steps: ``number`` (1, 2, …) or ``even``.
        floor, floor_of: λ is ``floor`` times the mean of each general map over the patches seen (``mean``), or itself
            (``absolute``; the released code has 1e-8).
        clip: quantile of each ratio map at which it is cut off; None for none, as in the paper.

    Raises:
        MapError: different pictures, no common step, rows that were not kept, or a division by zero.
        SpecError: options or a picture that do not exist.
    """
    _check(steps, weights, floor, floor_of, clip)
    task.image_columns(image)
    if task.layout.images[image : image + 1] != general.layout.images[image : image + 1]:
        raise MapError("the two passes belong to different pictures or grids")
    chosen, said = choose_layers(task, layers, heads)
    count = min(len(task.answer_tokens), len(general.answer_tokens))
    if not count:
        raise MapError("one of the two answers has no token, so there is no step to contrast")
    numbers = {"first": [0], "last": [count - 1], "every": list(range(count))}[steps]
    top, seen = _rows(task, chosen, heads, numbers, image)
    below, also = _rows(general, chosen, heads, numbers, image)
    both = seen & also
    if not both.any():
        raise MapError("no patch was seen in both passes: nothing can be contrasted")
    ratio = _ratio(top, below, both, floor if floor_of == "absolute" else floor * _mean(below, both), clip)
    factor = np.arange(1.0, len(numbers) + 1) if weights == "number" else np.ones(len(numbers))
    summed = _summed(ratio, both, factor)
    placed = np.asarray(both.any(axis=(0, 1)))
    return _placed(task, summed, placed, image, _told(said, len(numbers), steps, weights, floor, floor_of, clip))


def _check(steps: str, weights: str, floor: float, floor_of: str, clip: float | None) -> None:
    for name, value, known in (
        ("steps", steps, _STEPS),
        ("weights", weights, ("even", "number")),
        ("floor_of", floor_of, ("absolute", "mean")),
    ):
        if value not in known:
            raise SpecError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    check_number("floor", floor, 0.0, None)
    if clip is not None:
        check_number("clip", clip, 0.0, 1.0, open_low=True)


def _rows(
    trace: Trace, layers: tuple[int, ...], heads: Heads, numbers: list[int], image: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(L, Q, K) attention of the steps, heads averaged, and whether the row sees the patch in the layer."""
    slots = trace.rows_of([trace.answer_tokens[n] for n in numbers], "predicting")
    found = choose_heads(trace, layers, heads)
    made = heads_made_one(attention_lines(trace, layers, found, slots, image), found, "mean")
    seen = visible_columns(trace, slots, layers, image)
    # Heads that were chosen one by one count as one layer's.
    return made.astype(np.float64), seen if len(made) == len(seen) else np.asarray(seen.any(axis=0, keepdims=True))


def _mean(maps: NDArray[np.float64], seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(L, Q, 1) mean over the patches seen; 0 where none is."""
    count = seen.sum(axis=-1, keepdims=True)
    return np.asarray(np.where(seen, maps, 0.0).sum(axis=-1, keepdims=True) / np.maximum(count, 1))


def _ratio(
    top: NDArray[np.float64], below: NDArray[np.float64], seen: NDArray[np.bool_], floor: Any, clip: float | None
) -> NDArray[np.float64]:
    divisor = below + floor
    if not (divisor[seen] > 0).all():
        raise MapError("the general pass gives some patches no attention at all: give a floor above 0")
    ratio = np.where(seen, top / np.where(seen, divisor, 1.0), 0.0)
    if clip is None:
        return ratio
    for line, held in zip(ratio.reshape(-1, ratio.shape[-1]), seen.reshape(-1, ratio.shape[-1]), strict=True):
        if held.any():
            np.minimum(line, np.quantile(line[held], clip), out=line)
    return ratio


def _summed(ratio: NDArray[np.float64], seen: NDArray[np.bool_], factor: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K,) weighted sum over layers and steps; of patches that some layers cannot see, scaled up to as many."""
    summed = np.einsum("lqk,q->k", ratio, factor)
    weight = np.einsum("lqk,q->k", seen.astype(np.float64), factor)
    return np.asarray(summed * np.where(weight > 0, len(ratio) * factor.sum() / np.where(weight > 0, weight, 1.0), 0.0))


def _told(said: str, count: int, steps: str, weights: str, floor: float, floor_of: str, clip: float | None) -> str:
    least = f"λ {floor:g}" + (" of the general map's mean" if floor_of == "mean" else "")
    cut = "not clipped" if clip is None else f"clipped at quantile {clip:g}"
    return f"contrast with the general pass, {said}, steps {steps} ({count}, weights {weights}), {least}, {cut}"


def _placed(trace: Trace, values: NDArray[np.float64], seen: NDArray[np.bool_], image: int, told: str) -> PatchMap:
    layout = trace.layout
    mine = layout.image[layout.image_positions] == image
    full, visible = np.zeros(len(mine)), np.ones(len(mine), dtype=np.bool_)
    full[mine], visible[mine] = values, seen
    provenance = trace.provenance.then(told, method="contrast", convention="predicting", reduction="mean over heads")
    shown = None if seen.all() else visible
    return PatchMap.from_vector(full, layout, picture=image, provenance=provenance, label="contrast", visible=shown)
