"""Chosen rows of an attention matrix, exactly, from the same query, key and mask the kernel got.

Scores are computed in float32: ``S = softcap(q kᵀ · scaling) + bias``, masked as the model's kernel masks, with the
learned sink logits of models that have them in the denominator. Grouped-query attention needs no copy of the keys.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from vlmattn.capture.door import AttentionCall
from vlmattn.core.errors import CaptureError, UnsupportedAttention

RowIndex = slice | torch.Tensor
"""Rows of one call: a slice shared by the batch, (R,) indices shared by it, or (B, R) indices, one line per item."""

_HARMLESS = {
    "dropout", "scaling", "softcap", "sliding_window", "s_aux", "sinks", "position_bias", "is_causal", "position_ids",
    "cache_position", "use_cache", "output_attentions", "output_hidden_states", "return_dict", "deterministic",
    "layer_idx", "num_items_in_batch", "logits_to_keep", "token_type_ids", "mm_token_type_ids", "attention_mask",
    "position_embeddings", "past_key_values", "block_sequence_ids", "output_router_logits", "implementation",
}  # fmt: skip
_PACKED = ("cu_seq_lens_q", "cu_seq_lens_k", "cu_seqlens", "cu_seqlens_q", "cu_seqlens_k", "block_table", "cache")
_SPARSE = ("indices", "block_indices", "topk_indices")


def check_call(call: AttentionCall) -> None:
    """Refuse what cannot be reproduced row by row.

    Raises:
        UnsupportedAttention: packed or paged sequences, sparse selections, sinks of unknown shape, or an input that
            this engine does not know.
    """
    name = type(call.module).__name__
    if _is_packed(call):
        raise UnsupportedAttention(
            f"{name} got several sequences packed into one (position_ids start again): pass a padded batch instead"
        )
    if "paged" in call.kernel:
        raise UnsupportedAttention(f"{name} runs on a paged cache ({call.kernel}): turn continuous batching off")
    for key, value in call.options.items():
        if value is None or key in _HARMLESS:
            continue
        if key in _PACKED:
            raise UnsupportedAttention(f"{name} got packed or paged sequences ({key}): pass a padded batch instead")
        if key in _SPARSE and not _in_mask(call):
            raise UnsupportedAttention(f"{name} selects keys by {key}: sparse attention cannot be reproduced by rows")
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            raise UnsupportedAttention(f"{name} got an unknown attention input {key!r} of shape {tuple(value.shape)}")
    sinks = call.options.get("s_aux")
    if sinks is not None and sinks.numel() != call.query.shape[1]:
        raise UnsupportedAttention(
            f"{name} has attention sinks of shape {tuple(sinks.shape)}; expected one per head, ({call.query.shape[1]},)"
        )
    sinks, want = call.options.get("sinks"), (*call.query.shape[:3], 1)
    if sinks is not None and tuple(sinks.shape) != want:
        raise UnsupportedAttention(
            f"{name} has attention sinks of shape {tuple(sinks.shape)}; expected one per head and query, {want}"
        )


def _in_mask(call: AttentionCall) -> bool:
    # For these two kernels, which take no selection of keys, models write theirs into the mask.
    return call.kernel in ("eager", "sdpa") and isinstance(call.mask, torch.Tensor) and call.mask.ndim == 4


def check_all_rows(call: AttentionCall, count: int) -> None:
    """Refuse a layer that computes fewer rows than the ``count`` tokens of its pass.

    Raises:
        CaptureError: layers that share the keys of earlier ones may leave out all but the last row of a prompt.
    """
    if call.query.shape[2] != count:
        raise CaptureError(
            f"{type(call.module).__name__} computes only {call.query.shape[2]} of {count} rows, because generate() asks"
            " for one row of logits: pass logits_to_keep=torch.tensor([-1]) to generate(), which asks for the same row"
            " and leaves no layer out"
        )


def _is_packed(call: AttentionCall) -> bool:
    # Flash kernels take one sequence without padding for several where position_ids come back to their lowest value.
    ids = call.options.get("position_ids")
    if "flash" not in call.kernel or not isinstance(ids, torch.Tensor) or call.mask is not None:
        return False
    if call.query.shape[0] != 1 or call.query.shape[2] == 1 or ids.ndim != 2 or ids.shape[0] != 1:
        return False
    return bool((ids[:, 1:] <= ids[:, :1]).any())


def take_rows(tensor: torch.Tensor, rows: RowIndex, dim: int = 2) -> torch.Tensor:
    """Rows of a (B, X, Q, Y) tensor along ``dim``: a view for a slice, a copy otherwise."""
    if isinstance(rows, slice):
        return tensor[(slice(None),) * dim + (rows,)]
    rows = rows.to(tensor.device)  # layers may lie on other devices than the input
    if rows.ndim == 1:
        return tensor.index_select(dim, rows)
    shape = list(tensor.shape)
    shape[0], shape[dim] = rows.shape
    view = [1] * tensor.ndim
    view[0], view[dim] = rows.shape
    source = tensor.expand(rows.shape[0], *tensor.shape[1:])
    return source.gather(dim, rows.view(view).expand(shape))


def row_scores(call: AttentionCall, rows: RowIndex) -> torch.Tensor:
    """Scaled, soft-capped and biased scores before the mask: (B, H, R, K) float32."""
    query = take_rows(call.query, rows).float()
    batch, heads, count, dim = query.shape
    groups, keys = call.key.shape[1], call.key.shape[2]
    scaling = call.options.get("scaling")
    query = query * (scaling if scaling is not None else dim**-0.5)
    query = query.reshape(batch, groups, heads // groups * count, dim)
    scores = torch.matmul(query, call.key.float().transpose(2, 3)).view(batch, heads, count, keys)
    softcap = call.options.get("softcap")
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    bias = call.options.get("position_bias")
    if bias is not None:
        scores = scores + (bias if bias.shape[2] == 1 else take_rows(bias, rows))[..., :keys].float()
    return scores


def row_mask(call: AttentionCall, rows: RowIndex) -> torch.Tensor | None:
    """What the kernel's mask says about these rows: bool (True = visible) or additive, broadcastable to (B, H, R, K).

    None means every key is visible to every row.
    """
    mask, keys = call.mask, call.key.shape[2]
    if isinstance(mask, torch.Tensor) and mask.ndim == 4:
        if mask.shape[3] < keys:
            raise UnsupportedAttention(
                f"{type(call.module).__name__} passed a mask over {mask.shape[3]} of {keys} keys to {call.kernel}"
            )
        return (mask if mask.shape[2] == 1 else take_rows(mask, rows))[..., :keys]
    if mask is not None and hasattr(mask, "mask_mod"):
        return _block_mask(call, rows)
    if "flash" in call.kernel:
        return _flash_mask(call, rows)
    if isinstance(mask, torch.Tensor):
        raise UnsupportedAttention(
            f"{type(call.module).__name__} passed a mask of shape {tuple(mask.shape)} to {call.kernel}; "
            "expected (B, 1, Q, K)"
        )
    return _implied_mask(call, rows)


def apply_mask(scores: torch.Tensor, mask: torch.Tensor | None, *, own: bool = False) -> torch.Tensor:
    """Masked scores: (B, H, R, K). ``own``: nobody else needs ``scores``, which may be written over."""
    if mask is None:
        return scores
    if mask.dtype == torch.bool:
        least = torch.finfo(scores.dtype).min
        return scores.masked_fill_(~mask, least) if own else scores.masked_fill(~mask, least)
    return scores.add_(mask.float()) if own else scores + mask.float()


def row_probabilities(call: AttentionCall, scores: torch.Tensor, rows: RowIndex) -> torch.Tensor:
    """Softmax over the keys, (B, H, R, K) float32; learned sinks take their share, so such rows sum to less than 1."""
    column = _sink_column(call, scores, rows)
    if column is None:
        return torch.softmax(scores, dim=-1)
    return torch.softmax(torch.cat([scores, column], dim=-1), dim=-1)[..., :-1]


def attention_rows(call: AttentionCall, rows: RowIndex) -> torch.Tensor:
    """(B, H, R, K) float32 attention of these rows: scores, mask and softmax in one."""
    return row_probabilities(call, apply_mask(row_scores(call, rows), row_mask(call, rows), own=True), rows)


def _sink_column(call: AttentionCall, scores: torch.Tensor, rows: RowIndex) -> torch.Tensor | None:
    """The sinks' logits of these rows, (B, H, R, 1): one per head, or one per head and query."""
    per_head, per_query = call.options.get("s_aux"), call.options.get("sinks")
    if per_query is not None:
        return take_rows(per_query, rows).float()
    if per_head is None:
        return None
    batch, heads, count, _ = scores.shape
    return torch.as_tensor(per_head).float().reshape(1, heads, 1, 1).expand(batch, heads, count, 1)


def visible(mask: torch.Tensor | None, shape: tuple[int, int, int], device: torch.device) -> torch.Tensor:
    """(B, 1|H, R, K) bool: which keys the mask lets through. ``shape``: (B, R, K)."""
    batch, count, keys = shape
    if mask is None:
        return torch.ones((batch, 1, count, keys), dtype=torch.bool, device=device)
    seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    return seen.expand(batch, seen.shape[1], count, keys)


def visible_to(mask: torch.Tensor | None, scores: torch.Tensor) -> torch.Tensor:
    """(B, 1, R, K) bool: which keys of (B, H, R, K) ``scores`` any head can see."""
    batch, _, count, keys = scores.shape
    return visible(mask, (batch, count, keys), scores.device).any(1, keepdim=True)


def rows_per_chunk(call: AttentionCall, limit_bytes: int = 32 << 20) -> int:
    """How many rows fit into ``limit_bytes`` of float32 scores; at least 1."""
    per_row = call.query.shape[0] * call.query.shape[1] * call.key.shape[2] * 4
    return max(1, math.floor(limit_bytes / max(per_row, 1)))


def _positions(call: AttentionCall, rows: RowIndex) -> torch.Tensor:
    device, count = call.query.device, call.query.shape[2]
    if isinstance(rows, slice):
        return torch.arange(count, device=device)[rows].view(1, 1, -1, 1)
    rows = rows.to(device)
    return rows.view(1, 1, -1, 1) if rows.ndim == 1 else rows.view(rows.shape[0], 1, -1, 1)


def _implied_mask(call: AttentionCall, rows: RowIndex) -> torch.Tensor | None:
    # The scaled-dot-product kernel is causal on its own when it gets no mask and several queries, counted from the
    # upper left; eager attention without a mask sees everything.
    count, keys = call.query.shape[2], call.key.shape[2]
    causal = call.options.get("is_causal")
    causal = causal if causal is not None else getattr(call.module, "is_causal", True)
    if call.kernel == "eager" or not causal or count == 1:
        return None
    columns = torch.arange(keys, device=call.query.device).view(1, 1, 1, -1)
    return columns <= _positions(call, rows)


def _flash_mask(call: AttentionCall, rows: RowIndex) -> torch.Tensor | None:
    # Flash kernels: causal from the lower right, a window of the last keys, padding as (B, K).
    count, keys = call.query.shape[2], call.key.shape[2]
    causal = call.options.get("is_causal")
    causal = causal if causal is not None else getattr(call.module, "is_causal", True)
    columns = torch.arange(keys, device=call.query.device).view(1, 1, 1, -1)
    last = _positions(call, rows) + (keys - count)
    seen = columns <= last if causal else columns >= 0
    window = call.options.get("sliding_window")
    if window is not None and keys > window:
        seen = seen & (columns > last - window)
    if isinstance(call.mask, torch.Tensor) and call.mask.ndim == 2:
        seen = seen & call.mask[:, None, None, -keys:].bool()
    return seen


def _block_mask(call: AttentionCall, rows: RowIndex) -> torch.Tensor:
    mask: Any = call.mask
    device = call.query.device
    item = torch.arange(call.query.shape[0], device=device).view(-1, 1, 1, 1)
    head = torch.arange(call.query.shape[1], device=device).view(1, -1, 1, 1)
    columns = torch.arange(call.key.shape[2], device=device).view(1, 1, 1, -1)
    seen = mask.mask_mod(item, head, _positions(call, rows), columns)
    return torch.as_tensor(seen, device=device).bool()
