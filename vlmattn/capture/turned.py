"""Queries and keys that steering put in the place of the model's own, for some rows of one attention call."""

from __future__ import annotations

from dataclasses import replace

import torch

from vlmattn.capture.door import AttentionCall
from vlmattn.capture.steering import Steering, Where
from vlmattn.core.errors import CaptureError


def turned_call(
    steering: Steering, call: AttentionCall, rows: slice, where: Where
) -> tuple[AttentionCall, torch.Tensor] | None:
    """The call with new queries in ``rows`` and new keys, and (B, H, R) which of them differ; None for no change.

    Raises:
        CaptureError: what came back has another shape than what was given.
    """
    query = call.query[:, :, rows]
    edited = steering.edit_queries_keys(query, call.key, where)
    if edited is None:
        return None
    new_query, new_key = edited
    heads = call.query.shape[1]
    _check_shapes(steering, query, call.key, new_query, new_key)
    differs = (new_query != query).any(dim=3)
    old_key = call.key
    if new_key.shape[1] != old_key.shape[1]:
        old_key = old_key.repeat_interleave(new_key.shape[1] // old_key.shape[1], dim=1)
    keys = (new_key != old_key).flatten(2).any(dim=2).repeat_interleave(heads // new_key.shape[1], dim=1)
    differs = differs | keys[:, :, None]
    if not bool(differs.any()):
        return None
    whole = call.query.to(new_query.dtype, copy=True)
    whole[:, :, rows] = new_query
    return replace(call, query=whole, key=new_key), differs


def _check_shapes(
    steering: Steering, query: torch.Tensor, key: torch.Tensor, new_query: torch.Tensor, new_key: torch.Tensor
) -> None:
    wide = (key.shape[0], query.shape[1], *key.shape[2:])
    if new_query.shape != query.shape or new_key.shape not in (key.shape, torch.Size(wide)):
        raise CaptureError(
            f"{steering.describe()} returned queries and keys of shape {tuple(new_query.shape)} and "
            f"{tuple(new_key.shape)}; expected {tuple(query.shape)}, and {tuple(key.shape)} or {wide}"
        )
