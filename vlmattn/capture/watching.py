"""Looking on while a model runs: what kernels got, attention rows in parts, and what enters W_O.

Nothing is changed and nothing is held here; memory is that of one part of one layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from vlmattn.capture import door
from vlmattn.capture.door import AttentionCall
from vlmattn.capture.rows import attention_rows, check_call, rows_per_chunk
from vlmattn.capture.sites import AttentionSite, ModelSites, model_sites
from vlmattn.core.errors import SpecError, UnsupportedAttention

Look = Callable[[AttentionSite, AttentionCall, torch.Tensor], None]
"""Gets a layer, its call and its output (B, Q, H, D_v)."""


class _Watch:
    """A visitor that only looks."""

    edits = False
    resting = False

    def __init__(self, sites: Sequence[AttentionSite], look: Look) -> None:
        self.sites = {id(site.module): site for site in sites}
        self.look = look

    @torch.no_grad()
    def visit(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        """See :class:`~vlmattn.capture.door.Visitor`."""
        check_call(call)
        self.look(self.sites[id(call.module)], call, output)
        return output


def chosen_sites(model: Any, layers: Sequence[int] | None, *, own: bool = False) -> tuple[AttentionSite, ...]:
    """The attention of these layers (negative ones count from the end), ascending; None for all that have attention.

    Args:
        own: leave out layers whose keys stand beside the tokens (cross attention).

    Raises:
        SpecError: a layer that does not exist or has no (such) attention. UnsupportedAttention: all layers are wanted,
            and the attention of some cannot be seen.
    """
    sites = model_sites(model)
    if layers is None:
        sites.check_all_seen()
    by_layer = {site.layer_idx: site for site in sites.attention if not (own and site.sees_memory)}
    if not by_layer:
        raise SpecError(
            f"no layer of {type(sites.decoder).__name__} looks at its own tokens alone: its pictures or its prompt are "
            "keys beside the decoder, which this analysis cannot read"
        )
    return tuple(by_layer.values()) if layers is None else _named(by_layer, layers, sites)


def _named(by_layer: dict[int, AttentionSite], layers: Sequence[int], sites: ModelSites) -> tuple[AttentionSite, ...]:
    depth = max(sites.layers) + 1
    wanted = [layer + depth if layer < 0 else layer for layer in layers]
    missing = [layer for layer, index in zip(layers, wanted, strict=True) if index not in by_layer]
    if missing or not wanted:
        raise SpecError(f"no such attention in layer {missing or '(none given)'}; layers are {sorted(by_layer)}")
    return tuple(by_layer[layer] for layer in sorted(set(wanted)))


@contextmanager
def watching(sites: Sequence[AttentionSite], look: Look) -> Iterator[None]:
    """Show ``look`` every attention call of ``sites`` inside the context.

    Raises:
        CaptureError: a session that steers is open on the same model.
    """
    watch, modules = _Watch(sites, look), [site.module for site in sites]
    door.subscribe(watch, modules)
    try:
        yield
    finally:
        door.unsubscribe(watch, modules)


def rows_in_parts(call: AttentionCall, rows: slice) -> Iterator[tuple[slice, torch.Tensor]]:
    """Attention (B, H, R, K) float32 of queries ``rows`` of a call, some megabytes at a time, with their indices."""
    size = rows_per_chunk(call)
    for begin in range(rows.start, rows.stop, size):
        part = slice(begin, min(begin + size, rows.stop))
        yield part, attention_rows(call, part)


@contextmanager
def watching_mixed(
    sites: Sequence[AttentionSite], look: Callable[[AttentionSite, torch.Tensor], None]
) -> Iterator[None]:
    """Show ``look`` what enters each layer's output projection W_O, (B, Q, H, D_v): head outputs, gates included.

    Raises:
        UnsupportedAttention: a layer whose output projection is not found.
    """

    def hook(site: AttentionSite) -> Any:
        def seen(_module: Any, args: tuple[Any, ...]) -> None:
            states = args[0].detach()
            look(site, states.reshape(*states.shape[:2], site.heads, -1))

        return seen

    with ExitStack() as stack:
        for site in sites:
            if site.output_projection is None:
                raise UnsupportedAttention(
                    f"the output projection of {site.name} is not found, so its heads cannot be told apart after it"
                )
            stack.callback(site.output_projection.register_forward_pre_hook(hook(site)).remove)
        yield
