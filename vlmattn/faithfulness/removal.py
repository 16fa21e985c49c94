"""What a picture looks like without a part of it.

No way of taking something out is neutral: a black or grey patch is itself something to see, and a blur keeps shapes.
Numbers of different ways are not to be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmattn.core.errors import MapError, SpecError

if TYPE_CHECKING:
    from vlmattn.faithfulness.cells import Cells

Baseline = Literal["mean", "black", "blur", "inpaint", "imputed"]
BASELINES: tuple[str, ...] = get_args(Baseline)
"""``mean`` colour of the picture; ``black``; Gaussian ``blur`` (a 25th of the longer side); ``inpaint`` (Telea, 2004,
by OpenCV); ``imputed``: every pixel the noisy weighted mean of its neighbours (ROAD, Rong et al., ICML 2022)."""
_BLUR = 25
_MOST_IMPUTED = 256
_NOISE = 0.01
_NEIGHBOURS = ((0, 1, 1 / 6), (1, 0, 1 / 6), (1, 1, 1 / 12), (1, -1, 1 / 12))


def without(
    image: Image.Image,
    mask: NDArray[np.bool_],
    baseline: Baseline = "inpaint",
    *,
    rng: np.random.Generator | None = None,
) -> Image.Image:
    """The picture with the pixels of a mask taken out; itself, bit for bit, where the mask is empty.

    Args:
        image: upright original. mask: (H, W), True what goes. baseline: one of :data:`BASELINES`. rng: of the noise of
            ``imputed``; default: seed 0. Where all pixels go, ``inpaint`` and ``imputed`` have nothing to start from
            and give the picture's mean colour.

    Raises:
        SpecError: no such baseline. MapError: a mask of another size.

    Example:
        >>> image = Image.fromarray(np.full((2, 2, 3), 9, dtype=np.uint8))
        >>> np.asarray(without(image, np.array([[True, False]] * 2), "black"))[..., 0].tolist()
        [[0, 9], [0, 9]]
    """
    if baseline not in BASELINES:
        raise SpecError(f"baseline must be one of {', '.join(BASELINES)}; got {baseline!r}")
    width, height = image.size
    if mask.shape != (height, width):
        raise MapError(f"the mask must be (H, W) = {(height, width)}, got {mask.shape}")
    if not mask.any():
        return image
    colours = np.asarray(image.convert("RGB"))
    return Image.fromarray(np.where(mask[..., None], _other(image, colours, mask, baseline, rng), colours))


class Changed(Sequence[Image.Image]):
    """A picture without each of some sets of regions, made when it is looked at: thousands need no room at once.

    Args:
        image: upright original. cells: its regions. gone: numbers of the regions that each picture lacks. baseline: one
            of :data:`BASELINES`. seed: of the noise of ``imputed``, other in every picture, the same every time.
    """

    def __init__(
        self,
        image: Image.Image,
        cells: Cells,
        gone: Sequence[NDArray[np.integer]],
        baseline: Baseline,
        seed: int = 0,
    ) -> None:
        self._image, self._cells, self._gone, self._baseline, self._seed = image, cells, gone, baseline, seed

    def __len__(self) -> int:
        return len(self._gone)

    @overload
    def __getitem__(self, at: int) -> Image.Image: ...
    @overload
    def __getitem__(self, at: slice) -> list[Image.Image]: ...
    def __getitem__(self, at: int | slice) -> Image.Image | list[Image.Image]:
        if isinstance(at, slice):
            return [self[k] for k in range(*at.indices(len(self)))]
        number = range(len(self))[at]
        rng = np.random.default_rng((self._seed, number))
        return without(self._image, self._cells.mask(self._gone[number]), self._baseline, rng=rng)


def _other(
    image: Image.Image,
    colours: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    baseline: str,
    rng: np.random.Generator | None,
) -> NDArray[np.uint8]:
    if baseline == "black":
        return np.zeros_like(colours)
    if baseline == "blur":
        from PIL import ImageFilter

        return np.asarray(image.convert("RGB").filter(ImageFilter.GaussianBlur(max(image.size) / _BLUR)))
    if baseline == "mean" or mask.all():
        return np.broadcast_to(colours.reshape(-1, 3).mean(axis=0).round().astype(np.uint8), colours.shape)
    if baseline == "inpaint":
        from vlmattn.core.optional import cv2

        library = cv2()
        holes = mask.astype(np.uint8)
        return np.asarray(library.inpaint(np.ascontiguousarray(colours), holes, 3, library.INPAINT_TELEA))
    return _imputed(colours, mask, rng if rng is not None else np.random.default_rng(0))


def _imputed(colours: NDArray[np.uint8], mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Noisy linear imputation; large pictures are imputed at :data:`_MOST_IMPUTED` pixels and enlarged."""
    height, width = mask.shape
    shrink = max(height, width) / _MOST_IMPUTED
    if shrink > 1:
        size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
        small = np.asarray(Image.fromarray(colours).resize(size, Image.Resampling.BOX))
        holes = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)) > 0
        filled = Image.fromarray(_solved(small, holes, rng)).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(filled)
    return _solved(colours, mask, rng)


def _solved(colours: NDArray[np.uint8], mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.uint8]:
    if mask.all():
        return np.broadcast_to(colours.reshape(-1, 3).mean(axis=0).round().astype(np.uint8), colours.shape).copy()
    filled = linear_imputation(colours.astype(np.float64) / 255, mask)
    filled[mask] += rng.normal(0.0, _NOISE, filled[mask].shape)
    return np.clip(np.rint(filled * 255), 0, 255).astype(np.uint8)


def linear_imputation(values: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(H, W, C) with every masked pixel the weighted mean of its eight neighbours, 1/6 beside and 1/12 across, weights
    beyond the border left out (Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods",
    ICML 2022, before the noise).

    Raises:
        MapError: a mask of everything.
    """
    from scipy.sparse import coo_matrix, csr_matrix
    from scipy.sparse.linalg import spsolve

    if not mask.any():
        return values.copy()
    if mask.all():
        raise MapError("every pixel is to be imputed, so there is none to start from")
    height, width = mask.shape
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(mask.sum())
    count = int(mask.sum())
    weight, known = np.zeros(count), np.zeros((count, values.shape[2]))
    lines, others, parts = [], [], []
    ys, xs = np.nonzero(mask)
    for dy, dx, share in [(s * y, s * x, w) for y, x, w in _NEIGHBOURS for s in (1, -1)]:
        ny, nx = ys + dy, xs + dx
        inside = (ny >= 0) & (ny < height) & (nx >= 0) & (nx < width)
        weight += share * inside
        at, beside = np.flatnonzero(inside), (ny[inside], nx[inside])
        holes = mask[beside]
        known[at[~holes]] += share * values[beside][~holes]
        lines.append(at[holes])
        others.append(number[beside][holes])
        parts.append(np.full(int(holes.sum()), -share))
    lines.append(np.arange(count))
    others.append(np.arange(count))
    parts.append(weight)
    matrix = csr_matrix(coo_matrix((np.concatenate(parts), (np.concatenate(lines), np.concatenate(others)))))
    out = values.copy()
    out[mask] = np.asarray(spsolve(matrix, known)).reshape(count, -1)
    return out
