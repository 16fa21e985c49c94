"""How likely given tokens are under teacher forcing, per sequence of a batch, with gradients or without."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from vlmattn.capture.readout import head_of
from vlmattn.capture.sites import model_sites, unwrap
from vlmattn.core.errors import UnsupportedModel

if TYPE_CHECKING:
    from vlmattn.adapters import Encoded

Target = Literal["log_probability", "logit"]


def answer_score(
    model: Any,
    inputs: Mapping[str, Any],
    rows: Sequence[int],
    ids: Sequence[int],
    *,
    of: Target = "log_probability",
    embeds: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """(B,) float32: the sum, over tokens, of their log-probabilities (or logits) at the rows that predict them.

    Logits are made for these rows only, where the model hands out its unembedding.

    Args:
        inputs: of ``model(**inputs)``; answers stand in them. rows: positions in them, padding counted, one per token.
        ids: the tokens. embeds: called with the (B, N, d) embeddings that enter the decoder; its result enters.
    """
    model = unwrap(model)
    with ExitStack() as held:
        if embeds is not None:
            held.callback(_at_decoder(model, embeds).remove)
        head = _head(model)
        if head is not None:
            held.callback(head.register_forward_pre_hook(lambda _, args: (args[0][:, list(rows)], *args[1:])).remove)
        logits = model(**inputs, use_cache=False).logits
    kept = logits if logits.shape[1] == len(rows) else logits[:, list(rows)]
    scores = torch.log_softmax(kept.float(), dim=-1) if of == "log_probability" else kept.float()
    chosen = torch.as_tensor(list(ids), device=scores.device).expand(len(scores), -1)
    return scores.gather(-1, chosen[..., None]).sum(dim=(1, 2))


def decoder_embeddings(model: Any, encoded: Encoded) -> torch.Tensor:
    """(B, N, d) what enters the decoder: embeddings of words, and of patches in their places."""
    kept: list[torch.Tensor] = []

    def see(states: torch.Tensor) -> torch.Tensor:
        kept.append(states.detach())
        return states

    with torch.no_grad():
        answer_score(model, encoded.inputs, [0], [0], embeds=see)
    return kept[-1]


def _head(model: Any) -> nn.Module | None:
    try:
        return head_of(model)
    except UnsupportedModel:
        return None


def _at_decoder(model: Any, embeds: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    decoder = model_sites(model).decoder

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        given = kwargs.get("inputs_embeds")
        if given is None:
            raise UnsupportedModel(
                f"{type(decoder).__name__} is not given embeddings, so those of patches cannot be changed: take "
                "of='pixels' or method='occlusion'"
            )
        return args, kwargs | {"inputs_embeds": embeds(given)}

    return decoder.register_forward_pre_hook(hook, with_kwargs=True)
