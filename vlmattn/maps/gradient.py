"""Gradient maps of a decoder: what the first answer token rests on, by the slope of its log-probability.

Zhang et al., "MLLMs Know Where to Look", ICLR 2025 (arXiv 2502.17422). With s the log-probability of the token that the
prompt predicts: ``grad-att`` is ``mean_h A ⊙ ReLU(∂s/∂A)`` of the last prompt row, A its attention; ``pure-grad`` is
``‖∂s/∂pixels‖`` over colours, over the same under a general prompt, on busy pixels only.

One forward and one backward pass, under the model's own kernel and in its own mode (never train mode); rows and their
gradients follow from what the layers' kernels got, see :mod:`vlmattn.capture.whole`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.layout import ImageLayout, Tile, TokenLayout
from vlmattn.core.provenance import Provenance
from vlmattn.grid import PatchMap, pool_pixels

if TYPE_CHECKING:
    import torch

    from vlmattn.adapters import Encoded
    from vlmattn.capture.sites import AttentionSite


def gradient_attention(
    model: Any, encoded: Encoded, *, layers: Sequence[int], image: int = 0, heads: Sequence[int] | None = None
) -> PatchMap:
    """Attention of the last prompt row times its positive gradient, mean over heads, then over layers; 0 or more.

    Args:
        model: a transformers model. encoded: one prompt, on its device. layers: their numbers. heads: None for all.

    Raises:
        SpecError: more than one prompt, or a layer or head that does not exist. MapError: pictures are seen through a
            resampler's queries, or the model's weights leave no gradient (quantised or off-loaded ones).

    Example:
        >>> import vlmattn as va
        >>> vlm, scene = va.load("scene"), va.scene.make_scene(0)
        >>> encoded = vlm.encode([[va.load_image(scene.image)]], ["How many objects are there?"])
        >>> gradient_attention(vlm.model, encoded, layers=[1]).values[0].shape
        (8, 8)
    """
    from vlmattn.capture.whole import WholePass
    from vlmattn.maps.relevancy import gradient_rows

    layout = _one(encoded)
    _check_image(layout, image)
    if len(layout.latent_positions):
        raise MapError("the picture is seen through a resampler's queries: take the raw or relative map instead")
    passed = WholePass(model, layers).run(encoded.inputs, [len(layout) - layout.memory - 1], None, "log_probability")
    passed.differentiate()
    weighted = []
    for layer, held in passed.layers.items():
        row = gradient_rows(passed, [len(layout) - layout.memory - 1], layers=[layer], heads=heads)[0]
        weighted.append(row[image_columns(held.site, layout, len(row))])
    values = np.mean(weighted, axis=0)
    return _map(values, layout, image, f"attention x positive gradient, layers {list(passed.layers)}", "gradient")


def pixel_gradient(model: Any, encoded: Encoded, *, image: int = 0) -> PatchMap:
    """Norm over colours of the gradient of the prepared pixels, on busy pixels, mean over each patch; 0 or more.

    Busy pixels (the paper's high-pass): the picture less its 3 x 3 Gaussian blur, norm over colours, 7 x 7 median;
    those above their median. On the pixels as the model got them.

    Raises:
        SpecError: more than one prompt. MapError: the model's pixels are not one square view per tile in order, or
            gradients do not reach them: take :func:`gradient_attention`.
    """
    slopes, layout = pixel_slopes(model, encoded, image=image), encoded.layouts[0]
    busy, tiles = _busy_views(encoded, image), layout.images[image].tiles
    grids = [_pooled(slope * keep, tile) for slope, keep, tile in zip(slopes, busy, tiles, strict=True)]
    told = "norm of the pixels' gradient on busy pixels"
    return _map(_vector(grids, layout, image), layout, image, told, "pure_gradient")


def pixel_gradient_ratio(
    model: Any,
    encoded: Encoded,
    general: Encoded,
    *,
    image: int = 0,
    floor: float = 1e-6,
    floor_of: Literal["absolute", "mean"] = "mean",
) -> PatchMap:
    """ViCrop's pure-grad: the pixels' gradient over that under a general prompt, pixel by pixel, on busy pixels, mean
    over each patch; 0 or more, no unit.

    Args:
        encoded, general: the same pictures with the question and with the general prompt. floor, floor_of: lowest
            divisor, as a number (``absolute``) or times the mean of the general gradient on busy pixels; the paper has
            none.

    Raises:
        SpecError, MapError: as :func:`pixel_gradient`; also for other pictures, and where nothing can be divided by.
    """
    if _one(encoded).images != _one(general).images:
        raise MapError("the two prompts belong to different pictures or grids")
    below = pixel_slopes(model, general, image=image)
    return pixel_gradient_over(model, encoded, below, image=image, floor=floor, floor_of=floor_of)


def pixel_gradient_over(
    model: Any,
    encoded: Encoded,
    below: Sequence[NDArray[np.float32]],
    *,
    image: int = 0,
    floor: float = 1e-6,
    floor_of: Literal["absolute", "mean"] = "mean",
) -> PatchMap:
    """As :func:`pixel_gradient_ratio`, over slopes that :func:`pixel_slopes` gave for the same pictures."""
    tops, layout = pixel_slopes(model, encoded, image=image), encoded.layouts[0]
    busy, tiles = _busy_views(encoded, image), layout.images[image].tiles
    least = floor * _mean_where(below, busy) if floor_of == "mean" else floor
    if any((np.maximum(divisor, least)[keep] <= 0).any() for divisor, keep in zip(below, busy, strict=True)):
        raise MapError("some pixels do not matter to the general prompt at all: give a floor above 0")
    ratios = [_over(top, np.maximum(g, least), keep) for top, g, keep in zip(tops, below, busy, strict=True)]
    vector = _vector([_pooled(ratio, tile) for ratio, tile in zip(ratios, tiles, strict=True)], layout, image)
    told = f"pixels' gradient over that of the general prompt, least {least:.3g}, on busy pixels"
    return _map(vector, layout, image, told, "pure_gradient")


# -- scores -----------------------------------------------------------------------------------------------------------


def image_columns(site: AttentionSite, layout: TokenLayout, keys: int) -> NDArray[np.int64]:
    """Which of a layer's keys are the image tokens.

    Raises:
        SpecError: it looks at no picture.
    """
    at, memory = layout.image_positions, layout.memory
    if site.kind == "cross":
        return at
    if site.kind == "merged":  # the tokens first, then what stands beside them
        return np.where(at < memory, at + keys - memory, at - memory)
    if (at < memory).any():
        raise SpecError(f"layer {site.layer_idx} looks at no picture: choose layers with cross attention")
    return at - memory


def _log_probability(model: Any, inputs: Any) -> torch.Tensor:
    import torch

    logits = model(**inputs, use_cache=False).logits[0, -1].float()
    return torch.log_softmax(logits, dim=-1)[logits.detach().argmax()]


def _slope(score: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    import torch

    if not score.requires_grad:
        raise MapError("gradients do not reach so far down in this model: take the raw or relative map")
    (slope,) = torch.autograd.grad(score, of, retain_graph=True, allow_unused=True)
    if slope is None:
        raise MapError("the answer does not depend on these values by gradients: take the raw or relative map")
    return slope


def _one(encoded: Encoded) -> TokenLayout:
    if encoded.batch_size != 1:
        raise SpecError(f"gradient maps are of one prompt at a time, got {encoded.batch_size}")
    return encoded.layouts[0]


def _check_image(layout: TokenLayout, image: int) -> None:
    if not 0 <= image < len(layout.images):
        raise SpecError(f"picture {image} does not exist; the prompt has {len(layout.images)}")


# -- pixels ------------------------------------------------------------------------------------------------------------


def _views(encoded: Encoded, layout: TokenLayout, tiles: Sequence[Tile]) -> Any:
    """(…, 3, H, W) pixels, one view per tile of all pictures, in order."""
    pixels: Any = encoded.inputs.get("pixel_values")
    count = sum(len(one.tiles) for one in layout.images)
    if pixels is None or pixels.ndim < 4 or pixels.shape[-3] != 3 or pixels.shape[:-3].numel() != count:
        raise MapError(
            "this model's pixels are not one view per tile, so their gradient has no known place: take 'gradient'"
        )
    if any(tile.row_spans is not None or tile.col_spans is not None for tile in tiles):
        raise MapError("this picture's tiles are stitched from several views: take 'gradient'")
    return pixels


def pixel_slopes(model: Any, encoded: Encoded, *, image: int = 0) -> list[NDArray[np.float32]]:
    """(H, W) norm over colours of the gradient of each view of a picture.

    Raises:
        SpecError, MapError: as :func:`pixel_gradient`.
    """
    import torch

    layout = _one(encoded)
    _check_image(layout, image)
    given = _views(encoded, layout, layout.images[image].tiles).detach().clone().requires_grad_(True)
    with torch.enable_grad():
        score = _log_probability(model, {**encoded.inputs, "pixel_values": given})
    slopes = _slope(score, given).float().flatten(0, -4).norm(dim=1).cpu().numpy()
    return [slopes[n] for n in _numbers(layout, image)]


def _busy_views(encoded: Encoded, image: int) -> list[NDArray[np.bool_]]:
    shown = encoded.inputs["pixel_values"].float().flatten(0, -4).cpu().numpy()
    return [_busy(shown[n]) for n in _numbers(encoded.layouts[0], image)]


def _numbers(layout: TokenLayout, image: int) -> range:
    """Which of all views are those of a picture."""
    first = sum(len(one.tiles) for one in layout.images[:image])
    return range(first, first + len(layout.images[image].tiles))


def _mean_where(values: Sequence[NDArray[np.float32]], where: Sequence[NDArray[np.bool_]]) -> float:
    kept = np.concatenate([one[keep] for one, keep in zip(values, where, strict=True)])
    return float(kept.mean(dtype=np.float64)) if len(kept) else 0.0


def _over(top: NDArray[np.float32], below: NDArray[np.floating], keep: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.where(keep, top.astype(np.float64) / np.where(keep, below, 1.0), 0.0)


def _busy(view: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(H, W) where a view (3, H, W) has more fine structure than in half of its pixels."""
    from scipy import ndimage

    from vlmattn.core.optional import cv2

    colours = np.ascontiguousarray(view.transpose(1, 2, 0))
    fine = np.linalg.norm(colours - cv2().GaussianBlur(colours, (3, 3), 0), axis=-1)
    smooth = ndimage.median_filter(fine, size=7, mode="reflect")
    return np.asarray(smooth > np.median(smooth))


def pixel_views(encoded: Encoded, image: int) -> Any:
    """(…, 3, H, W) the prepared pixels, one view per tile of all pictures, in order.

    Raises:
        MapError: this model's are not.
    """
    layout = _one(encoded)
    return _views(encoded, layout, layout.images[image].tiles)


def sums_over_views(views: NDArray[np.floating], layout: TokenLayout, image: int) -> NDArray[np.float64]:
    """(K,) sums of (T, H, W) values of all views over each patch of one picture, in the order of its tokens."""
    tiles, count = layout.images[image].tiles, views.shape[-2] * views.shape[-1]
    grids = [_pooled(views[n], t) * (count / t.cells) for n, t in zip(_numbers(layout, image), tiles, strict=True)]
    at = layout.image_positions
    return _vector(grids, layout, image)[layout.image[at] == image]


def _pooled(values: NDArray[np.floating], tile: Tile) -> NDArray[np.floating]:
    height, width = values.shape
    whole = ImageLayout((width, height), (Tile("base", tile.grid_hw, (0.0, 0.0, float(width), float(height))),))
    return pool_pixels(whole, values).values[0]


def _vector(grids: Sequence[NDArray[np.floating]], layout: TokenLayout, image: int) -> NDArray[np.float64]:
    at = layout.image_positions
    vector = np.zeros(len(at))
    for index, grid in enumerate(grids):
        here = (layout.image[at] == image) & (layout.tile[at] == index)
        vector[here] = grid[layout.row[at][here], layout.col[at][here]]
    return vector


def _map(values: NDArray[np.float64], layout: TokenLayout, image: int, told: str, method: str) -> PatchMap:
    if not np.isfinite(values).all():
        raise MapError(f"{told}: values that are not finite")
    provenance = Provenance(
        prompt=layout.text, method=method, steps=(f"{told}, of the token that the prompt predicts",)
    )
    return PatchMap.from_vector(values, layout, picture=image, provenance=provenance, label="first answer token")
