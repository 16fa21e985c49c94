"""Attention probabilities of modules that call torch's own functions: those of open_clip and timm.

While the record is open, fused attention is computed in the open, so that its probabilities exist and lie in the graph
of gradients. What the modules give differs from the fused kernel's by rounding only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from vlmattn.core.errors import CaptureError, UnsupportedAttention

_WORDS = ("attention", "attn")


class _Open(TorchFunctionMode):
    """Computes attention in the open and notes what the softmax gave, under the name of the module that asked."""

    def __init__(self, running: list[str], seen: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.running, self.seen = running, seen

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if not self.running:
            return func(*args, **given)
        if func is F.scaled_dot_product_attention:
            output, found = _attention(*args, **given)
            return self._noted(found, output)
        if func is F.multi_head_attention_forward:
            output, found = _multi_head(*args, **given)
            return self._noted(found, (output, None))
        output = func(*args, **given)
        if func in (torch.Tensor.softmax, torch.softmax, F.softmax) and output.ndim == 4:
            return self._noted(output, output)
        return output

    def _noted(self, found: torch.Tensor, output: Any) -> Any:
        self.seen[self.running[-1]] = found
        return output


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    # torch.nn.functional.scaled_dot_product_attention as its documentation defines it, with the probabilities.
    if is_causal or enable_gqa or dropout_p:
        raise UnsupportedAttention("causal, grouped or dropped-out attention in a vision tower is not known here")
    scores = query @ key.transpose(-2, -1) * (scale if scale is not None else 1 / math.sqrt(query.shape[-1]))
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    found = scores.softmax(dim=-1)
    return found @ value, found


def _multi_head(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _width: int,
    heads: int,
    in_weight: torch.Tensor | None,
    in_bias: torch.Tensor | None,
    bias_k: torch.Tensor | None,
    bias_v: torch.Tensor | None,
    add_zero_attn: bool,
    _dropout: float,
    out_weight: torch.Tensor,
    out_bias: torch.Tensor | None,
    **rest: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    # torch.nn.functional.multi_head_attention_forward on (Q, B, D) and (K, B, D), with the probabilities.
    told = ("key_padding_mask", "attn_mask", "static_k", "static_v")
    if bias_k is not None or bias_v is not None or add_zero_attn or any(rest.get(n) is not None for n in told):
        raise UnsupportedAttention("masked attention, or with added keys, in a vision tower is not known here")
    apart = tuple(rest.get(f"{part}_proj_weight") for part in "qkv")
    weights: Any = apart if in_weight is None else in_weight.chunk(3)
    biases = in_bias.chunk(3) if in_bias is not None else (None, None, None)
    q, k, v = (
        F.linear(x, w, b).unflatten(-1, (heads, -1)).permute(1, 2, 0, 3)
        for x, w, b in zip((query, key, value), weights, biases, strict=True)
    )
    output, found = _attention(q, k, v)
    return F.linear(output.permute(2, 0, 1, 3).flatten(2), out_weight, out_bias), found


@contextmanager
def attention_in_the_open(module: torch.nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Probabilities (B, H, Q, K) of every attention module below ``module``, by its name, from runs inside.

    Differentiable where gradients are on. A module that runs twice leaves its last probabilities.

    Raises:
        CaptureError: on leaving, if no attention was seen.
    """
    running: list[str] = []
    seen: dict[str, torch.Tensor] = {}
    handles = []
    for name, part in module.named_modules():
        if name and any(word in type(part).__name__.lower() for word in _WORDS):
            handles.append(part.register_forward_pre_hook(lambda *_, name=name: running.append(name)))
            handles.append(part.register_forward_hook(lambda *_: running.pop() and None, always_call=True))
    try:
        with _Open(running, seen):
            yield seen
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise CaptureError(f"no attention of {type(module).__name__} was seen: it computes it in a way unknown here")
