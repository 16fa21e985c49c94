"""Resamplers that compute attention themselves: what their queries and keys are, for those who want to see it.

Most attention is seen where transformers asks for its kernel. What a resampler computes past that is found here, by
the name of its class: its queries, keys and scale, made again from its inputs by the module's own layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class OwnAttention(NamedTuple):
    """What one call of a resampler's attention compares. ``query``: (B, H, Q, D). ``key``: (B, H, K, D)."""

    query: Tensor
    key: Tensor
    scale: float


def _idefics(module: Any, context: Tensor, latents: Tensor) -> OwnAttention:
    """A perceiver whose latents look at the states of a view, then at each other."""
    import torch

    states, latents = module.context_layer_norm(context), module.latents_layer_norm(latents)
    query, key = module.q_proj(latents), module.k_proj(torch.cat([states, latents], dim=-2))
    query, key = (x.unflatten(-1, (module.n_heads, module.head_dim)).transpose(1, 2) for x in (query, key))
    if module.qk_layer_norms:
        query, key = module.q_layer_norm(query), module.k_layer_norm(key)
    return OwnAttention(query, key, float(module.qk_scale))


READERS: Mapping[str, Callable[..., OwnAttention]] = MappingProxyType({"IdeficsPerceiverAttention": _idefics})
"""How to read each class of such modules: called with the module and with its own inputs."""


def reads_past_dispatch(module: Any) -> bool:
    """Whether ``module`` is a resampler's attention that can be read here."""
    return type(module).__name__ in READERS


def own_attention(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> OwnAttention:
    """Queries, keys and scale of a call of ``module`` with ``args`` and ``kwargs``."""
    return READERS[type(module).__name__](module, *args, **kwargs)
