"""Deletion, insertion and what follows from taking the best or the rest of a map away.

All take :class:`~vlmattn.faithfulness.Cells` and a function that tells the model's probability (or any score) of the
same answer on changed pictures. Probabilities are of the whole answer that is asked about, under teacher forcing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmattn.core.errors import MapError, SpecError
from vlmattn.faithfulness.cells import Cells
from vlmattn.faithfulness.removal import Baseline, Changed

Predict = Callable[[Sequence[Image.Image]], NDArray[np.float64]]
"""(n,) scores of n pictures."""
BINS = (0.01, 0.05, 0.1, 0.2, 0.5)
"""Shares of regions in :func:`erasure` (ERASER's)."""


@dataclass(frozen=True)
class Curve:
    """Scores of a picture that loses, or gains, its regions in the map's order.

    Attributes:
        shares: (n,) share of regions changed so far, from 0 to 1. scores: (n,) of the answer.
    """

    shares: tuple[float, ...]
    scores: tuple[float, ...]

    @property
    def area(self) -> float:
        """Area under the curve over shares from 0 to 1, by trapezia."""
        return float(np.trapezoid(self.scores, self.shares))


def deletion(
    image: Image.Image, cells: Cells, predict: Predict, *, steps: int = 10, baseline: Baseline = "mean"
) -> Curve:
    """The score as the highest regions are taken out first; a lower area is better.

    Petsiuk et al., "RISE", BMVC 2018 (there black, pixel by pixel).

    Args:
        steps: pictures after the first one. baseline: see :data:`~vlmattn.faithfulness.BASELINES`.

    Raises:
        MapError: a flat map, which has no order. SpecError: fewer than one step.
    """
    counts = _counts(cells, steps)
    order = _order(cells)
    return _curve(counts, len(order), scored(predict, Changed(image, cells, [order[:k] for k in counts], baseline)))


def insertion(
    image: Image.Image, cells: Cells, predict: Predict, *, steps: int = 10, baseline: Baseline = "blur"
) -> Curve:
    """The score as the highest regions are put back first into a picture without any; a higher area is better.

    Petsiuk et al., "RISE", BMVC 2018 (there from a blurred picture).
    """
    counts = _counts(cells, steps)
    order = _order(cells)
    return _curve(counts, len(order), scored(predict, Changed(image, cells, [order[k:] for k in counts], baseline)))


@dataclass(frozen=True)
class Erasure:
    """What the highest regions do for the answer, mean over :data:`BINS`.

    Attributes:
        comprehensiveness: score lost without them; higher is better. sufficiency: score lost with nothing but them;
            lower is better. Both in units of the score, which may also rise.
    """

    comprehensiveness: float
    sufficiency: float


def erasure(
    image: Image.Image, cells: Cells, predict: Predict, *, baseline: Baseline = "mean", bins: Sequence[float] = BINS
) -> Erasure:
    """Comprehensiveness and sufficiency.

    DeYoung et al., "ERASER", ACL 2020.

    Args:
        bins: shares of regions, each above 0 and below 1; at least one region is taken.
    """
    if not len(bins) or any(not 0 < share < 1 for share in bins):
        raise SpecError(f"bins must be shares above 0 and below 1, got {tuple(bins)}")
    order = _order(cells)
    counts = [max(1, round(share * len(order))) for share in bins]
    gone = [order[:0], *(order[:k] for k in counts), *(order[k:] for k in counts)]
    scores = scored(predict, Changed(image, cells, gone, baseline))
    whole, n = scores[0], len(counts)
    return Erasure(float((whole - scores[1 : n + 1]).mean()), float((whole - scores[n + 1 :]).mean()))


def drop_and_rise(image: Image.Image, cells: Cells, predict: Predict) -> tuple[float, bool]:
    """Share of the score lost when every pixel is darkened to what the map leaves it, and whether the score rose.

    Chattopadhay et al., "Grad-CAM++", WACV 2018: their *average drop* is the mean of the first over pictures (0 to 1,
    lower is better), *increase in confidence* that of the second (higher is better). The map is scaled from 0 to 1.

    Raises:
        MapError: a flat map, or a score of 0 or less, of which no share can be lost.
    """
    _order(cells)
    heat = cells.pixels()
    low, high = float(cells.values.min()), float(cells.values.max())
    weight = np.where(cells.labels_hw >= 0, (heat - low) / (high - low), 0.0)
    colours = np.asarray(image.convert("RGB"), dtype=np.float64)
    shown = Image.fromarray(np.rint(colours * weight[..., None]).astype(np.uint8))
    whole, left = (float(v) for v in scored(predict, [image, shown]))
    if whole <= 0:
        raise MapError(f"the score of the whole picture is {whole:.3g}: no share of it can be lost")
    return max(0.0, whole - left) / whole, left > whole


def road(
    image: Image.Image,
    cells: Cells,
    predict: Predict,
    *,
    shares: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    rng: np.random.Generator | None = None,
) -> float:
    """Mean over shares of half the difference between taking the lowest and the highest regions out; higher is better.

    Rong et al., ICML 2022, with noisy linear imputation, most and least relevant first combined; 0 for an order that
    tells nothing.
    """
    if not len(shares) or any(not 0 < share < 1 for share in shares):
        raise SpecError(f"shares must be above 0 and below 1, got {tuple(shares)}")
    order = _order(cells)
    counts = [max(1, round(share * len(order))) for share in shares]
    gone = [*(order[:k] for k in counts), *(order[len(order) - k :] for k in counts)]
    seed = int((rng if rng is not None else np.random.default_rng(0)).integers(2**62))
    scores = scored(predict, Changed(image, cells, gone, "imputed", seed))
    return float((scores[len(counts) :] - scores[: len(counts)]).mean() / 2)


def _counts(cells: Cells, steps: int) -> list[int]:
    if steps < 1:
        raise SpecError(f"steps must be at least 1, got {steps}")
    return sorted({round(k / steps * len(cells.values)) for k in range(steps + 1)})


def _order(cells: Cells) -> NDArray[np.int64]:
    if cells.is_flat:
        raise MapError("the map is flat: it puts nothing first, so nothing can be taken out in its order")
    return cells.order()


def scored(predict: Predict, pictures: Sequence[Image.Image]) -> NDArray[np.float64]:
    """(n,) what ``predict`` says. Raises MapError where that is not one score per picture."""
    told = np.asarray(predict(pictures), dtype=np.float64)
    if told.shape != (len(pictures),):
        raise MapError(f"predict must give one score per picture, ({len(pictures)},), got {told.shape}")
    return told


def _curve(counts: Sequence[int], total: int, scores: NDArray[np.float64]) -> Curve:
    return Curve(tuple(k / total for k in counts), tuple(float(v) for v in scores))
