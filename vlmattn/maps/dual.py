"""Maps of open_clip models: which patches go with a text.

Three methods, on one picture and one text:

* ``similarity``: cosine of the text with what the model's head makes of each patch token alone (the dense use of CLIP,
  Zhou et al., 2022, MaskCLIP). In models that were trained on whole pictures it is often higher off the named thing
  than on it (Li et al., 2023, CLIP Surgery); look at the others too.
* ``attention``: the row that makes the picture's embedding, in the last layer or the pooling module, mean over heads.
  It is the same for every text.
* ``gradient``: that layer's attention times its gradient of the cosine, negative parts cut off, mean over heads
  (Chefer, Gur and Wolf, 2021, eq. 5), summed over the queries that the embedding reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.provenance import Provenance
from vlmattn.grid import PatchMap

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from vlmattn.adapters.dual import DualEncoder

DUAL_METHODS = ("gradient", "attention", "similarity")
"""Ways to map a text onto a picture with an open_clip model."""


def dual_map(
    encoder: DualEncoder, image: Image, text: str, method: str = "gradient", *, heads: Sequence[int] | None = None
) -> PatchMap:
    """Which patches of a picture go with a text.

    Args:
        method: one of :data:`DUAL_METHODS`. heads: of the last layer or pooling module; None for all.

    Returns:
        ``similarity``: cosines, -1 to 1. ``attention``: shares of the row, 0 to 1; what it gives to leading tokens is
        left out, so they add up to 1 or less. ``gradient``: 0 or more, no unit.

    Raises:
        SpecError: no such method or head. PromptError, ImageError: no text, or not an RGB picture.
        MapError: values that are not finite.

    Example:
        >>> from vlmattn.api import load_clip
        >>> from vlmattn.scene import make_scene
        >>> dual_map(load_clip().encoder, make_scene(0).image, "a red circle").values[0].shape
        (8, 8)
    """
    if method not in DUAL_METHODS:
        raise SpecError(f"method must be one of {', '.join(DUAL_METHODS)}, got {method!r}")
    if method == "similarity" and heads is not None:
        raise SpecError("method='similarity' has no heads: leave heads= out")
    layout = encoder.layout(image.size)
    values = _METHODS[method](encoder, image, text, heads)
    if not np.isfinite(values).all():
        raise MapError(f"method {method!r} of {encoder.name} gave values that are not finite")
    weight = next(encoder.model.parameters())
    said = "all heads" if heads is None else f"heads {', '.join(map(str, heads))}"
    return PatchMap(
        (values.reshape(encoder.trunk.grid_hw),),
        layout,
        provenance=Provenance(
            model=encoder.name,
            family="open_clip",
            dtype=str(weight.dtype).removeprefix("torch."),
            prompt=text,
            question=text,
            method=f"pair_{method}",
            layers="" if method == "similarity" else "pooling module" if encoder.trunk.pooler else "last layer",
            heads="" if method == "similarity" else said,
            steps=(f"{method} of {text!r}",),
        ),
        label=text,
    )


def _similarity(encoder: DualEncoder, image: Image, text: str, _heads: Any) -> np.ndarray:
    import torch

    kept: list[torch.Tensor] = []
    handle = encoder.trunk.blocks[-1].register_forward_hook(lambda _m, _i, out: kept.append(out))
    try:
        with torch.no_grad():
            encoder.images(encoder.pixels([image]))
            alone = encoder.each_alone(kept[0][:, encoder.trunk.prefix :])
            return _plain(alone[0] @ encoder.texts([text])[0])
    finally:
        handle.remove()


def _attention(encoder: DualEncoder, image: Image, text: str, heads: Sequence[int] | None) -> np.ndarray:
    import torch

    with torch.no_grad():
        encoder.texts([text])
        found, _ = _probabilities(encoder, image)
    rows = _of_heads(found[0], heads).mean(dim=0)
    return _plain((_read(encoder, rows.shape[0]).to(rows) @ rows)[-encoder.layout(image.size).cells :])


def _gradient(encoder: DualEncoder, image: Image, text: str, heads: Sequence[int] | None) -> np.ndarray:
    import torch

    with torch.no_grad():
        said = encoder.texts([text])[0]
    with torch.enable_grad():
        found, embedded = _probabilities(encoder, image, gradients=True)
        (slope,) = torch.autograd.grad((embedded[0] * said).sum(), found)
    weighted = (found.detach() * slope)[0].clamp(min=0)
    return _plain(_of_heads(weighted, heads).mean(dim=0).sum(dim=0)[-encoder.layout(image.size).cells :])


_METHODS = {"similarity": _similarity, "attention": _attention, "gradient": _gradient}


def _probabilities(encoder: DualEncoder, image: Image, *, gradients: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, H, Q, N) of the layer that the embedding is read from, and the embedding (1, D)."""
    from vlmattn.capture.functional import attention_in_the_open

    visual = encoder.model.visual
    with attention_in_the_open(visual) as seen:
        embedded = encoder.images(encoder.pixels([image]).requires_grad_(gradients))
    return seen[encoder.trunk.pooler or _last_attention(encoder, seen)], embedded


def _last_attention(encoder: DualEncoder, seen: dict[str, torch.Tensor]) -> str:
    inside = {id(module) for module in encoder.trunk.blocks[-1].modules()}
    names = [name for name, module in encoder.model.visual.named_modules() if id(module) in inside and name in seen]
    if len(names) != 1:
        raise MapError(f"the last layer of {encoder.name} has {len(names)} attention modules, expected one")
    return names[0]


def _read(encoder: DualEncoder, queries: int) -> torch.Tensor:
    """(Q,) how much of each query goes into the embedding."""
    import torch

    weights = torch.zeros(queries)
    trunk = encoder.trunk
    if trunk.pool == "tok" or (trunk.pool == "attention" and trunk.queries == "first"):
        weights[0] = 1
    else:
        first = trunk.prefix if trunk.pool == "avg" else int(trunk.queries == "rest")
        weights[first:] = 1 / (queries - first)
    return weights


def _of_heads(found: torch.Tensor, heads: Sequence[int] | None) -> torch.Tensor:
    if heads is None:
        return found
    count = found.shape[0]
    if not heads or any(not 0 <= h < count for h in heads):
        raise SpecError(f"heads must be among 0 to {count - 1}, got {list(heads)}")
    return found[list(heads)]


def _plain(values: torch.Tensor) -> np.ndarray:
    return np.asarray(values.float().cpu().numpy())
