"""How spread out a look is, and how busy a picture is: the measures that CARVE relates to accuracy.

Ge et al., arXiv 2509.06461: attention entropy falls with depth and is lower where answers are right; texture and colour
complexity of a picture go with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.optional import cv2
from vlmattn.maps.choices import Heads, Layers, choose_heads, choose_layers
from vlmattn.maps.raw import attention_lines, heads_made_one
from vlmattn.trace import Trace

if TYPE_CHECKING:
    from PIL.Image import Image

HUE_BINS = 180
_CANNY = (100.0, 200.0)


def attention_entropy(
    trace: Trace,
    *,
    image: int = 0,
    step: int = -1,
    layers: Layers = None,
    heads: Heads = None,
    of: Literal["picture", "row"] = "picture",
) -> float:
    """Entropy in nats of an answer token's attention over a picture's patches, heads averaged, mean over layers.

    Args:
        step: number of the answer token; the paper takes the last. of: ``picture``: attention divided by its sum on the
            picture, so that an even look over N patches gives ln N, the most there is; ``row``: as the softmax gave it,
            the paper's, which mixes in how much went to the picture at all.

    Raises:
        SpecError: no such token, layer or head. MapError: the row was not kept, or has no attention on the picture.
    """
    if of not in ("picture", "row"):
        raise SpecError(f"of must be 'picture' or 'row', got {of!r}")
    span = trace.find(step)
    chosen, _ = choose_layers(trace, layers, heads)
    found, slots = choose_heads(trace, chosen, heads), trace.rows_of(span.tokens, "predicting")
    made = heads_made_one(attention_lines(trace, chosen, found, slots, image), found, "mean")
    rows = made.mean(axis=1, dtype=np.float64)
    totals = rows.sum(axis=1, keepdims=True)
    if not (totals > 0).all():
        raise MapError("a layer gives the picture no attention, so its entropy is not defined: choose other layers")
    return float(_entropy(rows / totals if of == "picture" else rows).mean())


def _entropy(values: NDArray[np.float64]) -> NDArray[np.float64]:
    logs = np.log(np.where(values > 0, values, 1.0))
    return np.asarray(-(values * logs).sum(axis=-1))


def texture_complexity(image: Image, *, thresholds: tuple[float, float] = _CANNY) -> float:
    """Share of pixels on an edge (Canny), 0 to 1; 0 for a picture of one colour.

    Args:
        thresholds: of Canny's hysteresis, on grey values 0 to 255; the paper does not tell its own.

    >>> from PIL import Image
    >>> texture_complexity(Image.new("RGB", (40, 30)))
    0.0
    """
    grey = np.asarray(image.convert("L"))
    return float((cv2().Canny(grey, *thresholds) > 0).mean())


def colour_complexity(image: Image) -> float:
    """Entropy of hues in 180 bins over its maximum, 0 to 1; 0 for a picture of one hue, and for greys.

    >>> from PIL import Image
    >>> colour_complexity(Image.new("RGB", (40, 30), (255, 0, 0)))
    0.0
    """
    hue = cv2().cvtColor(np.asarray(image.convert("RGB")), cv2().COLOR_RGB2HSV)[..., 0]
    shares = np.bincount(hue.ravel(), minlength=HUE_BINS).astype(np.float64) / hue.size
    return abs(float(_entropy(shares))) / float(np.log(HUE_BINS))
