"""What heads make of a token by itself: queries, keys and values of embeddings, one layer at a time.

Every token is run as a sequence of its own, at position 0, where a rotary embedding turns nothing, and every block gets
the embedding itself as its input. So queries, keys and values come out as the model computes them, with the layer's own
input norm, biases, fused or quantised projections and query norms, and nothing has to be known about how a family
names its weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from vlmattn.capture.door import AttentionCall
from vlmattn.capture.sites import AttentionSite, model_sites, stack_of
from vlmattn.capture.watching import watching
from vlmattn.core.errors import UnsupportedAttention


@torch.no_grad()
def token_parts(
    model: Any, sites: Sequence[AttentionSite], ids: torch.Tensor, *, chunk: int = 1024
) -> Iterator[dict[int, AttentionCall]]:
    """Calls of the layers by number, some tokens at a time: query (n, H, 1, D), key and value (n, H_kv, 1, D).

    Args:
        model: a transformers model. sites: the layers, of self-attention. ids: (n,) token ids. chunk: tokens at once.

    Raises:
        UnsupportedAttention: a decoder whose blocks are not in one list, or have no residual stream of their own.
    """
    found = model_sites(model)
    first = _first_block(found.decoder, sites[0])
    blocks = dict(found.blocks)
    missing = [site.layer_idx for site in sites if site.layer_idx not in blocks]
    if missing:
        raise UnsupportedAttention(f"the residual blocks of layers {missing} are not found: leave these layers out")
    for at in range(0, len(ids), chunk):
        yield _one_pass(found.decoder, first, [(s, blocks[s.layer_idx]) for s in sites], ids[at : at + chunk])


def _first_block(decoder: Any, site: AttentionSite) -> Any:
    name, number = stack_of(site)
    if number < 0:
        raise UnsupportedAttention(
            f"the layers of {type(decoder).__name__} are not in one list, so none can be run alone"
        )
    return decoder.get_submodule(name)[0]


def _one_pass(decoder: Any, first: Any, placed: list[tuple[AttentionSite, Any]], ids: torch.Tensor) -> dict[int, Any]:
    calls: dict[int, AttentionCall] = {}
    held: list[torch.Tensor] = []

    def enter(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        held[:] = [(args[0] if args else kwargs["hidden_states"]).detach()]

    def replace(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (held[0].to(args[0].device), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": held[0].to(kwargs["hidden_states"].device)}

    def look(site: AttentionSite, call: AttentionCall, _output: torch.Tensor) -> None:
        calls[site.layer_idx] = call

    with ExitStack() as stack:
        stack.callback(first.register_forward_pre_hook(enter, with_kwargs=True).remove)
        for _, block in placed:
            stack.callback(block.register_forward_pre_hook(replace, with_kwargs=True).remove)
        stack.enter_context(watching([site for site, _ in placed], look))
        decoder(input_ids=ids[:, None], use_cache=False)
    if held[0].ndim != 3 or len(calls) < len(placed):
        raise UnsupportedAttention(
            f"{type(decoder).__name__} keeps its residual stream in another form than (batch, tokens, width), or "
            "leaves layers out: its circuits cannot be read from embeddings"
        )
    return calls
