"""Two hops made one: attention to a resampler's queries, times what those queries looked at.

A resampler (Q-Former, perceiver) turns the patches of a view into a few learned queries, and the language model sees
only these. Attention to a patch is then composed as in attention rollout (Abnar and Zuidema, ACL 2020), without the
residual stream: sum over queries of attention to the query times the query's own attention to the patch, the latter as
the mean over the resampler's cross-attention layers and heads. What queries tell each other in between is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vlmattn.adapters.own_attention import own_attention
from vlmattn.capture.door import AttentionCall
from vlmattn.capture.rows import attention_rows, rows_per_chunk
from vlmattn.capture.spec import CaptureSpec
from vlmattn.capture.tower import views_of, views_run
from vlmattn.core.errors import CaptureError, SpecError
from vlmattn.core.layout import TokenKind, TokenLayout


class KeptBlock(NamedTuple):
    """Kept rows of one sequence on some columns.

    ``columns``: (K,) positions. ``attn_lhqk``: (L, H, Q, K). ``seen_lqk``: (L, Q, K) bool, or None if all is seen.
    ``told``: how they were composed; empty if they were not.
    """

    columns: NDArray[np.int64]
    attn_lhqk: torch.Tensor
    seen_lqk: torch.Tensor | None
    told: str = ""

    @classmethod
    def cut(cls, columns: NDArray[np.int64], attn: torch.Tensor, seen: torch.Tensor | None) -> KeptBlock:
        """The part of the buffers that belongs to a sequence of ``columns``; others of its batch may have more."""
        count = len(columns)
        return cls(columns, attn[..., :count], None if seen is None else seen[..., :count])


def hop_shape(layouts: Sequence[TokenLayout]) -> tuple[int, int] | None:
    """Queries and keys of one view in the resampler, or None if the pictures are not seen through one.

    Raises:
        CaptureError: they do not divide evenly over the views.
    """
    shapes = set()
    for layout in layouts:
        queries, keys, views, run = len(layout.latent_positions), layout.resampled, views_of(layout), views_run(layout)
        if not queries:
            continue
        if not views or not run or queries % views or keys % run:
            raise CaptureError(f"{queries} queries and {keys} keys are not spread over {views} views evenly")
        shapes.add((queries // views, keys // run))
    if len(shapes) > 1:
        raise CaptureError(f"the sequences of a batch differ in queries and keys of a view: {sorted(shapes)}")
    return shapes.pop() if shapes else None


def check_hops(spec: CaptureSpec) -> None:
    """Refuse what two hops cannot give.

    Raises:
        SpecError: value norms, which belong to queries, or the largest of all heads, which is not linear.
    """
    if spec.value_norms is not None:
        raise SpecError("value norms belong to the resampler's queries, and patches have none: leave value_norms out")
    if spec.reduce == "max":
        raise SpecError("reduce='max' takes the largest head before the second hop: say reduce='mean', or None")


@torch.no_grad()
def hop_rows(call: AttentionCall) -> torch.Tensor:
    """What each query of a resampler's layer looked at, mean over heads: (views, queries, keys) float32, on the CPU."""
    count, size = call.query.shape[2], rows_per_chunk(call)
    return torch.cat([_mean_rows(call, slice(n, min(n + size, count))) for n in range(0, count, size)], dim=1)


@torch.no_grad()
def own_call(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> AttentionCall:
    """A call of a resampler that computes attention itself, as if it had come through the door."""
    query, key, scale = own_attention(module, args, kwargs)
    return AttentionCall("eager", module, query, key, key, None, {"scaling": scale})


def _mean_rows(call: AttentionCall, rows: slice) -> torch.Tensor:
    probs = attention_rows(call, rows)
    return probs.mean(1).cpu()


def composed(block: KeptBlock, layout: TokenLayout, hops: torch.Tensor | None) -> KeptBlock:
    """Rows on patches instead of queries; columns that are no queries stay.

    Args:
        block: rows on the LATENT tokens of ``layout``, and perhaps on all its tokens and the keys beside them.
        hops: (L_r, views, queries, keys) what the queries looked at.

    Raises:
        CaptureError: the resampler was not seen.
    """
    if hops is None:
        raise CaptureError(
            "the resampler did not run inside the capture, so what its queries look at is not known: run the picture "
            "inside it too"
        )
    hop = hops.mean(0).to(block.attn_lhqk.device)
    views, queries, keys = hop.shape
    slots = torch.as_tensor(np.searchsorted(block.columns, layout.latent_positions), device=hop.device)
    first = block.attn_lhqk.index_select(-1, slots).float()
    patches = torch.einsum("lhqvn,vnk->lhqvk", first.unflatten(-1, (views, queries)), hop).flatten(-2)
    whole, count = len(block.columns) > len(slots), layout.resampled
    patches = torch.nn.functional.pad(patches, (0, count - patches.shape[-1]))  # views that only pad the batch
    placed = np.arange(count) if whole else np.flatnonzero(layout.kinds[:count] == TokenKind.IMAGE)
    attn = patches[..., torch.as_tensor(placed, device=hop.device)].to(block.attn_lhqk.dtype)
    seen = None
    if block.seen_lqk is not None:
        queried = block.seen_lqk.index_select(-1, slots.to(block.seen_lqk.device))
        by_view = queried.unflatten(-1, (views, queries)).any(-1)
        by_key = by_view.repeat_interleave(keys, dim=-1)
        by_key = torch.nn.functional.pad(by_key, (0, count - by_key.shape[-1]))
        seen = by_key[..., torch.as_tensor(placed, device=by_key.device)]
    told = (
        f"composed of two hops: attention to {queries} queries per view, times the queries' own attention to its "
        f"patches (mean over {len(hops)} layers and all heads of the resampler)"
    )
    if not whole:
        return KeptBlock(placed, attn, seen, told)
    columns = np.concatenate([placed, block.columns])
    both = None if seen is None or block.seen_lqk is None else torch.cat([seen, block.seen_lqk], dim=-1)
    return KeptBlock(columns, torch.cat([attn, block.attn_lhqk], dim=-1), both, told)
