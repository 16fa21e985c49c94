"""Attention of the vision tower to its own patches, for those who ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from vlmattn.capture.door import AttentionCall
from vlmattn.capture.rows import apply_mask, row_mask, row_probabilities, row_scores, rows_per_chunk
from vlmattn.capture.sites import AttentionSite, ModelSites, stack_of
from vlmattn.core.errors import CaptureError, SpecError
from vlmattn.core.layout import TokenKind, TokenLayout

_CLASS_TOKENS = ("class_embedding", "cls_token", "class_token")


def way_out(*, apart: bool) -> str:
    """What to do where one array cannot hold the tower. ``apart``: whether ``run.tower()`` can look at it."""
    return "leave vision= out" + (", and look at the tower with run.tower(), which puts them together" if apart else "")


@torch.no_grad()
def tower_rows(call: AttentionCall, kind: str) -> torch.Tensor:
    """Attention over the N tokens of the tower: (views, H, N) float32, on the CPU.

    Args:
        call: one attention call of the tower.
        kind: ``cls`` for the row of token 0; ``received`` for the mean over all queries, computed in parts so that no
            N × N matrix is held.
    """
    if kind == "cls":
        return _rows(call, slice(0, 1))[:, :, 0].cpu()
    count = call.query.shape[2]
    size = rows_per_chunk(call)
    total = sum(_rows(call, slice(first, min(first + size, count))).sum(2) for first in range(0, count, size))
    return torch.as_tensor(total).cpu() / count


def look_at_tower(
    seen: dict[int, list[torch.Tensor]],
    site: AttentionSite,
    call: AttentionCall,
    kind: str,
    sites: ModelSites,
    instead: str,
) -> None:
    """Add a call of the tower to what was ``seen`` of it: per layer, the (views, H, N) of each of its calls.

    ``instead``: what errors advise, see :func:`way_out`.

    What follows the tower in another stack, and looks at it with queries of its own or at other tokens (a resampler, a
    pooling), is left out.

    Raises:
        CaptureError: views or layers of different sizes, which no one array holds.
    """
    if not seen:
        seen[site.layer_idx] = [tower_rows(call, kind)]
        return
    first, like = next(iter(seen.items()))
    shape = (int(call.query.shape[1]), int(call.key.shape[2]))
    same_stack = stack_of(sites.vision[first])[0] == stack_of(site)[0]
    if shape == tuple(like[0].shape[1:]) and (same_stack or call.query.shape[2] == shape[1]):
        seen.setdefault(site.layer_idx, []).append(tower_rows(call, kind))
    elif same_stack:
        raise CaptureError(
            f"vision={kind!r} keeps one array, and this tower looks at {like[0].shape[2]} tokens in one call and at "
            f"{shape[1]} in another (views or windows of different sizes): {instead}"
        )


def _rows(call: AttentionCall, rows: slice) -> torch.Tensor:
    scores = row_scores(call, rows)
    return row_probabilities(call, apply_mask(scores, row_mask(call, rows)), rows)


def check_tower(kind: str, model: Any, sites: ModelSites, instead: str) -> None:
    """Refuse what the vision tower does not have.

    Raises:
        SpecError: no attention outside the decoder, attention in windows, or no class token for ``cls``.
    """
    name = type(model).__name__
    if not sites.tower:
        raise SpecError(f"vision={kind!r} needs a vision tower, and {name} has none whose attention can be seen")
    if any(_in_windows(site) for site in sites.vision):
        raise SpecError(f"vision={kind!r} keeps one array, and the vision tower of {name} looks in windows: {instead}")
    if kind == "cls" and not any(n.rsplit(".", 1)[-1] in _CLASS_TOKENS for n, _ in _outside(model, sites)):
        raise SpecError(f"vision='cls' needs a class token, and the vision tower of {name} has none: use 'received'")


def _in_windows(site: AttentionSite) -> bool:
    config = getattr(site.module, "config", None)
    kinds = getattr(config, "layer_types", None) or ()
    held = getattr(site.module, "window_size", None) or getattr(config, "window_size", None)
    return bool(held) or any("window" in str(kind) for kind in kinds)


def tokens_per_view(model: Any, sites: ModelSites) -> int | None:
    """Tokens of one view in the tower, class token included; None for a tower of no fixed size."""
    inside = {id(module) for module in sites.words}
    counts = [getattr(m, "num_positions", None) for m in model.modules() if id(m) not in inside]
    return next((int(count) for count in counts if isinstance(count, int)), None)


def _outside(model: Any, sites: ModelSites) -> list[tuple[str, Any]]:
    inside = {id(weight) for module in sites.words for weight in module.parameters(recurse=False)}
    return [(name, weight) for name, weight in model.named_parameters() if id(weight) not in inside]


def views_of(layout: TokenLayout) -> int | None:
    """How many views the tower gets of the pictures of a sequence; None where the layout does not say."""
    total = 0
    for picture in layout.images:
        if picture.views is None and any(tile.kind == "tiles" for tile in picture.tiles):
            return None
        total += picture.views if picture.views is not None else len(picture.tiles)
    return total


def views_run(layout: TokenLayout) -> int | None:
    """How many views the tower gets for a sequence, those that pad it to the most pictures of its batch counted."""
    views, queries = views_of(layout), len(layout.latent_positions)
    if not views or not queries:
        return views
    beside = slice(layout.resampled, layout.memory)
    idle = (layout.kinds[beside] != TokenKind.LATENT) & (layout.input_ids[beside] < 0)  # no text stands behind them
    return views * (queries + int(idle.sum())) // queries


def check_views(layouts: Sequence[TokenLayout]) -> None:
    """Raises CaptureError if views of a batch could not be told apart afterwards."""
    if len(layouts) > 1 and any(views_of(layout) is None for layout in layouts):
        raise CaptureError(
            "how many views the vision tower gets of each picture is not known (ImageLayout.views), so they could not "
            "be told apart: run one sequence at a time, or leave vision= out"
        )


def split_views(
    seen: Mapping[int, Sequence[torch.Tensor]], layouts: Sequence[TokenLayout], copies: int, instead: str
) -> list[torch.Tensor | None]:
    """What the tower's last run saw, (L_v, views, H, N) for each line of the batch.

    Args:
        seen: per tower layer, the (views, H, N) of each of its calls. layouts: one per line, copies side by side.
        copies: lines per encoded sequence (beams, samples); the tower sees them all, or each sequence once.
        instead: what errors advise.

    Raises:
        CaptureError: the tower saw another number of views.
    """
    if not seen:
        return [None] * len(layouts)
    check_views(layouts)
    calls = [len(part) for part in seen[min(seen)]]
    known = [count if (count := views_run(layout)) is not None else sum(calls) for layout in layouts]
    each, once = sum(known), sum(known[::copies])
    used = _last_run(calls, (each, once), instead, single=copies > 1)
    blocks = [torch.cat(list(parts)[-used:]) for _, parts in sorted(seen.items())]
    if len({block.shape for block in blocks}) > 1:
        raise CaptureError(f"the layers of the vision tower saw different numbers of views: {instead}")
    step = 1 if blocks[0].shape[0] == each else copies
    parts = torch.stack(blocks).split(known[::step], dim=1)
    return [parts[line // step][:, : views_of(layout)] for line, layout in enumerate(layouts)]


def _last_run(calls: Sequence[int], wanted: tuple[int, int], instead: str, *, single: bool) -> int:
    # How many of the last calls make up one run of the tower.
    total = 0
    for used, views in enumerate(reversed(calls), start=1):
        total += views
        if total in wanted and (used == 1 or not single):
            return used
    raise CaptureError(
        f"the vision tower saw {sum(calls)} views, but the layouts say {wanted[0]}: run one batch at a time; if "
        f"that was one, {instead}"
    )
