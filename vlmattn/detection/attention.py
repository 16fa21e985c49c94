"""How much of a word's rows goes to the picture, and how it lies there. All of the rows that predict the word's tokens.

Every function takes a :class:`~vlmattn.trace.Trace` and T positions of answer tokens, and reads layers that look at
pictures only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.maps.presets import PRESETS
from vlmattn.trace import Trace

if TYPE_CHECKING:
    from vlmattn.sinks import Sinks

Context = Literal["image", "prompt"]
_ADS_SHARE, _ADS_LEAST = 0.1, 2


def visual_attention_ratio(trace: Trace, tokens: Sequence[int]) -> NDArray[np.float64]:
    """(L, H, T) attention on all pictures together, 0 to 1; NaN for heads that are not there.

    VAR of Jiang et al., "Devils in Middle Layers of Large Vision-Language Models", CVPR 2025, arXiv 2411.16724.

    Raises:
        MapError: rows that were not kept. SpecError: no kept layer looks at pictures.
    """
    return np.stack([_block(trace, tokens)[..., at] for at in _segments(trace, "image:")]).sum(axis=0)


def svar(trace: Trace, tokens: Sequence[int], layers: Sequence[int] | None = None) -> NDArray[np.float64]:
    """(T,) SVAR: the visual attention ratio, mean over heads, summed over ``layers``; lower for words made up.

    Args:
        layers: default those of the paper, 5 to 18 of LLaVA-1.5-7B's 32, moved in proportion (preset ``hgai``); those
            of them that look at pictures.

    Raises:
        SpecError: layers that were not kept or look at no picture.
    """
    seeing = trace.seeing
    wanted = [n for n in PRESETS["hgai"].at_depth(trace.depth) if n in seeing] if layers is None else list(layers)
    wrong = [n for n in wanted if n not in seeing]
    if wrong or not wanted:
        raise SpecError(f"layers {wrong or '(none)'} were not kept or look at no picture; those that do: {seeing}")
    ratio = visual_attention_ratio(trace, tokens)[[seeing.index(n) for n in wanted]]
    return np.asarray(np.nanmean(ratio, axis=1).sum(axis=0))


def lookback_ratio(trace: Trace, tokens: Sequence[int], *, context: Context = "image") -> NDArray[np.float64]:
    """(L, H, T) A(context) / (A(context) + A(written)), A the mean attention per token; NaN for the first token of the
    answer, before which nothing is written.

    Chuang et al., "Lookback Lens", EMNLP 2024, arXiv 2407.07071; there the context is a text.

    Args:
        context: ``image``: all patches; ``prompt``: all prompt tokens but the first.

    Raises:
        MapError: no token has anything written before it, as in one-token answers.
    """
    if context not in ("image", "prompt"):
        raise SpecError(f"context must be 'image' or 'prompt', got {context!r}")
    start = trace.layout.answer_start
    written = np.array([t - start for t in tokens], dtype=np.float64)
    if not (written > 0).any():
        raise MapError(
            "a lookback ratio compares the picture with what is written before a word, and nothing is: it is not "
            "defined for the first token or a one-token answer"
        )
    names = ["image:"] if context == "image" else ["image:", "system", "separator", "question"]
    block = _block(trace, tokens)
    inside = block[..., [at for name in names for at in _segments(trace, name)]].sum(axis=-1)
    mean_in = inside / _count(trace, names)
    mean_new = block[..., _segments(trace, "answer")[0]] / np.where(written > 0, written, np.nan)
    with np.errstate(invalid="ignore"):
        return np.asarray(mean_in / (mean_in + mean_new))


def attention_entropy(trace: Trace, tokens: Sequence[int]) -> NDArray[np.float64]:
    """(T,) entropy of each head's attention within the pictures over its most, ln K: 0 for one patch, 1 for all alike;
    mean over layers and heads that look there at all."""
    shares = _shares(trace, tokens)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(shares > 0, -shares * np.log(shares), np.where(np.isnan(shares), np.nan, 0.0))
    return np.asarray(np.nanmean(terms.sum(axis=-1), axis=(0, 1)) / np.log(max(shares.shape[-1], 2)))


def attention_spread(trace: Trace, tokens: Sequence[int], image: int = 0) -> NDArray[np.float64]:
    """(T,) root mean square distance of the attention on a picture from its centre of mass, over half of the picture's
    diagonal: 0 for one patch; of the mean over layers and heads."""
    weights = picture_shares(trace, tokens, image)
    places = _centres(trace, image)
    middle = weights @ places
    second = weights @ (places**2).sum(axis=1) - (middle**2).sum(axis=1)
    xy = np.array([tile.source_box_xyxy for tile in trace.layout.images[image].tiles], dtype=np.float64)
    half = np.hypot(xy[:, 2].max() - xy[:, 0].min(), xy[:, 3].max() - xy[:, 1].min()) / 2
    return np.asarray(np.sqrt(np.maximum(second, 0)) / half)


def attention_dispersion(trace: Trace, tokens: Sequence[int], image: int = 0) -> NDArray[np.float64]:
    """(T,) (1 - m) times the normalised entropy of the rest, m the attention in connected blobs of the highest tenth of
    patches; 0 to 1, higher is more scattered. Of the mean over layers and heads.

    After ADS of "Beyond Global Scores", CVPR 2026, arXiv 2604.04863; blobs of one patch are dropped, which is our
    number.
    """
    weights = picture_shares(trace, tokens, image)
    return np.array([_dispersed(one, _blobs(trace, one, image)) for one in weights])


def sink_share(found: Sinks, trace: Trace, tokens: Sequence[int]) -> NDArray[np.float64]:
    """(T,) share of the attention on pictures that visual sinks take, 0 to 1; mean over layers.

    Sinks as in Kang et al., "See What You Are Told", ICLR 2025, arXiv 2503.03321.

    Raises:
        MapError: the sinks were not looked for at these rows, or their columns were not kept.
    """
    at = {int(p): slot for slot, p in enumerate(found.positions)}
    rows = [t - 1 for t in tokens]
    missing = [r for r in rows if r not in at]
    if missing:
        raise MapError(f"the sinks of rows {missing[:8]} are not known: look for them with the answer's rows kept")
    slots = [at[r] for r in rows]
    seeing = [line for line, layer in enumerate(found.layers) if layer in trace.seeing]
    taken = found.visual_share_lq[seeing][:, slots].astype(np.float64)
    whole = found.image_share_lq[seeing][:, slots].astype(np.float64)
    if not np.isfinite(taken).all():
        raise MapError("what visual sinks take was not kept: capture image columns with the answer's rows")
    return np.asarray(np.divide(taken, whole, out=np.zeros_like(taken), where=whole > 0).mean(axis=0))


def layer_maps(trace: Trace, tokens: Sequence[int], image: int = 0) -> NDArray[np.float64]:
    """(L, T, K) attention on the patches of a picture, mean over heads, one line for each layer that looks there."""
    rows, slots = trace.rows_of(tokens, "predicting"), trace.layer_slots(trace.seeing)
    block = trace.attn_lhqk[slots][:, :, rows][..., trace.image_columns(image)].astype(np.float64)
    return np.nanmean(block, axis=1)


def picture_shares(trace: Trace, tokens: Sequence[int], image: int = 0) -> NDArray[np.float64]:
    """(T, K) attention on a picture, mean over layers and heads, each line over its sum.

    Raises:
        MapError: a row that gives the picture nothing.
    """
    mean = layer_maps(trace, tokens, image).mean(axis=0)
    total = mean.sum(axis=1, keepdims=True)
    if not (total > 0).all():
        raise MapError("a word's rows give the picture no attention, so nothing lies anywhere on it")
    return np.asarray(mean / total)


# -- pieces ------------------------------------------------------------------------------------------------------------


def _block(trace: Trace, tokens: Sequence[int]) -> NDArray[np.float64]:
    # (L, H, T, S) masses in layers that look at pictures.
    rows = trace.rows_of(tokens, "predicting")
    return trace.mass_lhqs[trace.layer_slots(trace.seeing)][:, :, rows].astype(np.float64)


def _segments(trace: Trace, name: str) -> list[int]:
    return [at for at, one in enumerate(trace.segments) if one == name or (name[-1] == ":" and one.startswith(name))]


def _count(trace: Trace, names: Sequence[str]) -> int:
    ids, wanted = trace.layout.segment_ids(), [at for name in names for at in _segments(trace, name)]
    return max(int(np.isin(ids, wanted).sum()), 1)


def _shares(trace: Trace, tokens: Sequence[int]) -> NDArray[np.float64]:
    # (L, H, T, K) attention within all pictures; NaN for lines that give them nothing and for heads not there.
    rows, slots = trace.rows_of(tokens, "predicting"), trace.layer_slots(trace.seeing)
    columns = np.concatenate([trace.image_columns(n) for n in range(len(trace.layout.images))])
    block = trace.attn_lhqk[slots][:, :, rows][..., columns].astype(np.float64)
    total = block.sum(axis=-1, keepdims=True)
    return np.divide(block, total, out=np.full_like(block, np.nan), where=total > 0)


def _centres(trace: Trace, image: int) -> NDArray[np.float64]:
    # (K, 2) middles of patches, in original pixels.
    layout = trace.layout
    at = trace.columns[trace.image_columns(image)]
    boxes = [layout.images[image].tiles[layout.tile[p]].cell_box(int(layout.row[p]), int(layout.col[p])) for p in at]
    xy = np.asarray(boxes, dtype=np.float64)
    return np.column_stack([(xy[:, 0] + xy[:, 2]) / 2, (xy[:, 1] + xy[:, 3]) / 2])


def _blobs(trace: Trace, weights: NDArray[np.float64], image: int) -> NDArray[np.bool_]:
    # (K,) patches in 8-connected blobs of at least two among the highest tenth; blobs lie in one tile.
    from scipy.ndimage import label

    layout = trace.layout
    at = trace.columns[trace.image_columns(image)]
    high = np.zeros(len(weights), dtype=np.bool_)
    high[np.argsort(-weights, kind="stable")[: max(1, int(np.ceil(_ADS_SHARE * len(weights))))]] = True
    kept = np.zeros(len(weights), dtype=np.bool_)
    for number, tile in enumerate(layout.images[image].tiles):
        mine = np.flatnonzero(layout.tile[at] == number)
        grid = np.zeros(tile.grid_hw, dtype=np.bool_)
        place = (layout.row[at[mine]], layout.col[at[mine]])
        grid[place] = high[mine]
        blobs, count = label(grid, structure=np.ones((3, 3)))
        large = [n for n in range(1, count + 1) if (blobs == n).sum() >= _ADS_LEAST]
        kept[mine] = np.isin(blobs[place], large)
    return kept


def _dispersed(weights: NDArray[np.float64], kept: NDArray[np.bool_]) -> float:
    rest = weights[~kept]
    total = rest.sum()
    if total <= 0 or len(rest) < 2:
        return 0.0
    shares = rest[rest > 0] / total
    spread = float(-(shares * np.log(shares)).sum() / np.log(len(rest)))
    return float((1 - weights[kept].sum()) * spread)
