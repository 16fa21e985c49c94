"""Attribution of one number to parts of the input: integrated gradients and occlusion, computed by captum.

Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017 (arXiv 1703.01365): (x − x′) times the mean of
∂f/∂x on the straight way from a baseline x′ to x. All of them sum to f(x) − f(x′) (*completeness*), but for an error of
the sum over steps, the *convergence delta*. Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks",
ECCV 2014 (arXiv 1311.2901): how far f falls when a part is covered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError
from vlmattn.core.layout import ImageLayout
from vlmattn.core.optional import require
from vlmattn.grid.overlap import cell_spans

if TYPE_CHECKING:
    import torch

IntBox = tuple[int, int, int, int]
_LARGE_DELTA = 0.05


@dataclass(frozen=True, eq=False)
class Integrated:
    """Integrated gradients of one input.

    Attributes:
        values: of the input's shape; ``(x − x′) · mean gradient``. difference: f(x) − f(x′). delta: sum of the values
            less that difference.
    """

    values: torch.Tensor
    difference: float
    delta: float

    @property
    def is_coarse(self) -> bool:
        """Whether the delta is over a twentieth of the difference."""
        return abs(self.delta) > _LARGE_DELTA * abs(self.difference)

    @property
    def told(self) -> str:
        """Difference and delta in words, with what to do where the delta is large."""
        said = f"target changes by {self.difference:.4g} from the baseline, convergence delta {self.delta:.3g}"
        return said + (", which is large: raise n_steps" if self.is_coarse else "")


def integrated_gradients(
    score: Callable[[torch.Tensor], torch.Tensor],
    given: torch.Tensor,
    baseline: torch.Tensor,
    *,
    n_steps: int,
    progress: Callable[[int, int], None] | None = None,
) -> Integrated:
    """Integrated gradients (Gauss-Legendre) of a number with respect to one tensor of any shape.

    Args:
        score: from a tensor like ``given`` to a scalar; called ``n_steps`` times with gradients, twice without.
        progress: called with steps done and steps in all.

    Raises:
        DependencyMissing: no captum. MapError: gradients do not reach ``given``, or are NaN.
    """
    import torch

    captum = require("captum.attr", extra="attribution")
    done = [0]

    def each(batch: torch.Tensor) -> torch.Tensor:
        scores = []
        for one in batch:
            scores.append(score(one))
            done[0] += 1
            if progress is not None:
                progress(min(done[0], n_steps), n_steps)
        found = torch.stack(scores)
        if torch.is_grad_enabled() and not found.requires_grad:
            raise MapError(
                "gradients do not reach the picture in this model (quantised or off-loaded weights, or a tower that "
                "runs without them): take method='occlusion'"
            )
        return found

    held = given.detach()[None].clone().requires_grad_(True)
    try:
        with torch.enable_grad():
            values = captum.IntegratedGradients(each).attribute(
                held, baselines=baseline.detach()[None], n_steps=n_steps, internal_batch_size=1
            )
    except RuntimeError as error:
        if "does not require grad" in str(error) or "not have been used in the graph" in str(error):
            raise MapError("gradients do not reach the picture in this model: take method='occlusion'") from error
        raise
    with torch.no_grad():
        difference = float(score(given.detach())) - float(score(baseline.detach()))
    found = values[0].detach().double()
    if not (torch.isfinite(found).all() and np.isfinite(difference)):
        raise MapError("integrated gradients are NaN or infinite: load with dtype='float32', or take 'occlusion'")
    return Integrated(found, difference, float(found.sum()) - difference)


def occlusion(
    score: Callable[[NDArray[np.bool_]], torch.Tensor],
    parts: int,
    *,
    batch: int,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """(F,) how far a number falls when each of F parts is covered; negative where it rises.

    Args:
        score: from (B, F) bool, False where a part is covered, to (B,) numbers. batch: the most of them at once.
        progress: called with parts done and parts in all.

    Raises:
        DependencyMissing: no captum. MapError: a score is NaN.
    """
    import torch

    captum = require("captum.attr", extra="attribution")
    done = [-1]

    def shown(kept: torch.Tensor) -> torch.Tensor:
        found = score(kept.numpy() > 0.5).double().cpu()
        if not torch.isfinite(found).all():
            raise MapError("the target is NaN or infinite: the weights are damaged, or load with dtype='float32'")
        done[0] += len(kept)
        if progress is not None:
            progress(min(max(done[0], 0), parts), parts)
        return found

    with torch.no_grad():
        found = captum.FeatureAblation(shown).attribute(
            torch.ones(1, parts, dtype=torch.float64), baselines=0.0, perturbations_per_eval=batch
        )
    return np.asarray(found[0].numpy(), dtype=np.float64)


@dataclass(frozen=True)
class Blocks:
    """A picture in blocks of k × k cells of its largest view.

    Attributes:
        tile: the view. number: (rows, cols) which block each cell is in. boxes: of each block, in whole pixels of the
            original: those whose centres lie in its cells. Blocks without a pixel have number -1 and no box.
    """

    tile: int
    number: NDArray[np.int64]
    boxes: tuple[IntBox, ...]


def blocks_of(layout: ImageLayout, cells: int) -> Blocks:
    """The blocks of ``cells`` × ``cells`` cells (fewer at the lower and right edge).

    >>> from vlmattn.core.layout import ImageLayout, Tile
    >>> layout = ImageLayout((4, 2), (Tile("base", (1, 2), (0.0, 0.0, 4.0, 2.0)),))
    >>> blocks_of(layout, 1).boxes
    ((0, 0, 2, 2), (2, 0, 4, 2))
    """
    areas = [(t.source_box_xyxy[2] - t.source_box_xyxy[0]) * (t.source_box_xyxy[3] - t.source_box_xyxy[1])
             for t in layout.tiles]  # fmt: skip
    whole = [index for index, tile in enumerate(layout.tiles) if tile.kind in ("base", "thumbnail")]
    tile = whole[0] if whole else int(np.argmax(areas))
    in_x, in_y = cell_spans(layout.tiles[tile])
    width, height = layout.image_wh
    number = np.full(layout.tiles[tile].grid_hw, -1, dtype=np.int64)
    boxes: list[IntBox] = []
    for row in range(0, len(in_y), cells):
        y0, y1 = _pixels(in_y[row : row + cells], height)
        for col in range(0, len(in_x), cells):
            x0, x1 = _pixels(in_x[col : col + cells], width)
            if x1 > x0 and y1 > y0:
                number[row : row + cells, col : col + cells] = len(boxes)
                boxes.append((x0, y0, x1, y1))
    return Blocks(tile, number, tuple(boxes))


def _pixels(spans: NDArray[np.float64], size: int) -> tuple[int, int]:
    low, high = (int(np.ceil(float(edge) - 0.5)) for edge in (spans[0, 0], spans[-1, 1]))
    return min(max(low, 0), size), min(max(high, 0), size)
