"""Scores of one sample: from the rows of its run, and from the further passes that some need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.api import head_passes as passes
from vlmattn.capture import model_sites
from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.layout import Box, TokenLayout
from vlmattn.core.words import occurrences
from vlmattn.grid import PatchMap, cell_coverage
from vlmattn.heads import (
    HeadSample,
    copy_hits,
    gradient_importance,
    head_divergence,
    image_mass,
    pointing_hits,
    spatial_entropy,
    token_divergence,
    visual_head_score,
    without_outliers,
)
from vlmattn.heads.localization import Variant, bottom_row
from vlmattn.trace import Trace

if TYPE_CHECKING:
    from vlmattn.api.run import Run
    from vlmattn.api.vlm import Vlm

Scores = dict[str, NDArray[np.float64]]
"""(L, H) values by name, L lines in the order of the model's attention layers."""


def lined(vlm: Vlm, by_layer: dict[int, NDArray[Any]]) -> NDArray[np.float64]:
    """(L, H) of values (H,) by layer number; NaN where there is none."""
    sites = model_sites(vlm.model).attention
    width = max([1, *(site.heads for site in sites), *(len(values) for values in by_layer.values())])
    out = np.full((len(sites), width), np.nan)
    for line, site in enumerate(sites):
        if site.layer_idx in by_layer:
            values = by_layer[site.layer_idx]
            out[line, : len(values)] = values
    return out


# -- from the rows of a run --------------------------------------------------------------------------------------------


def row_scores(run: Run, sample: HeadSample, variant: Variant) -> Scores:
    """Scores of the answer's predicting rows on the first picture: ``visual``, ``mass``, ``entropy``, ``bottom``, and
    where the sample has boxes or words ``pointing`` and ``copy``.

    Raises:
        MapError: the rows cannot see the picture.
    """
    trace, layout = run.trace, run.trace.layout
    tokens = [int(t) for t in layout.memory + 1 + passes.answer_rows(layout)]
    attn = picture_rows(trace, tokens)
    first = picture_rows(trace, [layout.answer_start])[:, :, 0]
    grids, known = _Grids(layout), np.isfinite(first[..., 0])
    entropy = np.full(first.shape[:2], np.nan)
    for place in np.argwhere(np.isfinite(first).all(axis=-1)):
        entropy[tuple(place)] = spatial_entropy(grids.of(first[tuple(place)]), variant=variant)
    found = {
        "visual": visual_head_score(attn).mean(axis=-1),
        "mass": image_mass(first),
        "entropy": entropy,
        "bottom": _over_last(first, lambda row: bottom_row(grids.of(row))),
    }
    if sample.boxes:
        found["pointing"] = np.where(known, pointing_hits(first, touched(layout, sample.boxes)), np.nan)
    copied = _copied(layout, sample)
    if copied:
        rows = picture_rows(trace, [token for token, _ in copied])
        hits = copy_hits(rows, np.stack([holds for _, holds in copied])).mean(axis=-1)
        found["copy"] = np.where(known, hits, np.nan)
    return {name: lined(run.vlm, dict(zip(trace.layers, values, strict=True))) for name, values in found.items()}


def picture_rows(trace: Trace, tokens: Sequence[int]) -> NDArray[np.float64]:
    """(L, H, T, K) attention of the rows that predict tokens, on the first picture; NaN in layers that see none."""
    rows = trace.rows_of(tokens, "predicting")
    attn = trace.attn_lhqk[:, :, rows][..., trace.image_columns(0)].astype(np.float64)
    blind = [line for line, layer in enumerate(trace.layers) if layer in trace.blind]
    attn[blind] = np.nan
    if not np.isfinite(attn).any():
        raise MapError("no layer of this model looks at the picture from these rows")
    return attn


def touched(layout: TokenLayout, boxes: Sequence[Box]) -> NDArray[np.bool_]:
    """(K,) the patches of the first picture, in the order of its tokens, that any of the boxes touches."""
    place = _places(layout)
    covered = [cell_coverage(layout.images[0], box) for box in boxes]
    return np.array([any(one[tile][row, col] > 0 for one in covered) for tile, row, col in place])


def _places(layout: TokenLayout) -> list[tuple[int, int, int]]:
    at = layout.image_positions
    at = at[layout.image[at] == 0]
    return [(int(layout.tile[p]), int(layout.row[p]), int(layout.col[p])) for p in at]


class _Grids:
    """From a vector over the first picture's tokens to one grid per tile; cells without a token are 0."""

    def __init__(self, layout: TokenLayout) -> None:
        at = layout.image_positions
        numbers = np.where(layout.image[at] == 0, np.cumsum(layout.image[at] == 0) - 1, -1)
        self.index = [np.asarray(g) for g in PatchMap.from_vector(numbers + 1.0, layout, picture=0).values]

    def of(self, vector: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """One (rows, cols) per tile."""
        longer = np.concatenate([[0.0], vector])
        return [longer[np.nan_to_num(index).astype(np.int64)] for index in self.index]


def _over_last(values: NDArray[np.float64], what: Callable[[NDArray[np.float64]], float]) -> NDArray[np.float64]:
    return np.array([[what(row) for row in line] for line in values])


def _copied(layout: TokenLayout, sample: HeadSample) -> list[tuple[int, NDArray[np.bool_]]]:
    found = []
    for text, box in sample.words:
        holds = touched(layout, [box])
        spans = occurrences(layout, text, "answer")
        found += [(token, holds) for span in spans[:1] for token in span.tokens]
    return found


# -- from further passes -----------------------------------------------------------------------------------------------


def output_scores(vlm: Vlm, run: Run, names: Sequence[str]) -> Scores:
    """``vhd`` and ``gradient`` of a run's question and answer, those of ``names``; one or two passes.

    Raises:
        UnsupportedModel, CaptureError: the model cannot run without its picture, or gradients do not reach its heads.
    """
    encoded = passes.answered(vlm, run.pictures, run.request.items[0][1], written(run))
    layout = encoded.layouts[0]
    if "vhd" in names:
        passes.check_text_only(vlm, layout)
    whole = passes.passed(vlm, encoded, slopes="gradient" in names)
    found: Scores = {}
    if whole.slopes is not None:
        slopes = whole.slopes
        found["gradient"] = lined(vlm, {n: gradient_importance(o, slopes[n]) for n, o in whole.outputs.items()})
    if "vhd" in names:
        tokens = token_divergences(vlm, layout, whole.outputs)
        found["vhd"] = np.mean(tokens, axis=0)
    return found


def token_divergences(vlm: Vlm, layout: TokenLayout, outputs: passes.Arrays) -> NDArray[np.float64]:
    """(T, L, H) VHD of every answer token with text, outliers set to 0; one pass without the picture.

    Raises:
        UnsupportedModel: the model cannot run without its picture.
    """
    without = passes.text_only(vlm, layout)
    rows = passes.answer_rows(layout)
    beside = passes.rows_without(layout, rows)
    tokens = []
    for row, same in zip(rows, beside, strict=True):
        far = lined(vlm, {n: head_divergence(o[row], without[n][same]) for n, o in outputs.items()})
        energy = lined(vlm, {n: (without[n][same].astype(np.float64) ** 2).sum(axis=-1) for n in outputs})
        tokens.append(without_outliers(far, energy))
    return np.stack(tokens)


def word_divergences(run: Run, k: int) -> dict[str, float]:
    """T-VHD of every word of the answer by its label, mean over its tokens.

    Raises:
        UnsupportedModel: as :func:`token_divergences`. SpecError: k below 1.
    """
    encoded = passes.answered(run.vlm, run.pictures, run.request.items[0][1], written(run))
    layout = encoded.layouts[0]
    passes.check_text_only(run.vlm, layout)
    outputs = passes.passed(run.vlm, encoded, slopes=False).outputs
    values = [token_divergence(one, k=k) for one in token_divergences(run.vlm, layout, outputs)]
    by_token = dict(zip((passes.answer_rows(layout) + 1 + layout.memory).tolist(), values, strict=True))
    words = [word for word in run.words() if any(c.isalnum() for c in word.text)]
    return {word.label: float(np.mean([by_token[t] for t in word.tokens])) for word in words}


def written(run: Run) -> list[int]:
    """Ids of the answer's tokens.

    Raises:
        SpecError: the model wrote nothing.
    """
    ids: list[int] = run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist()
    if not ids:
        raise SpecError("the model wrote no answer token: give answers")
    return ids


def ablation_scores(vlm: Vlm, run: Run, names: Sequence[str], means: passes.Arrays | None) -> Scores:
    """``ablation`` and ``ablation_mean``: the drop, in nats, of the answer's log-probability without each head."""
    question, ids = run.request.items[0][1], written(run)
    whole = passes.answered(vlm, run.pictures, question, ids)
    full = passes.passed(vlm, whole, slopes=False).log_probability
    found: Scores = {}
    if "ablation" in names:
        found["ablation"] = full - passes.ablated(vlm, run.pictures, question, ids)
    if "ablation_mean" in names and means is not None:
        found["ablation_mean"] = full - passes.ablated(vlm, run.pictures, question, ids, means)
    return found
