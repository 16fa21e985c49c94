"""Edits of attention the plain way: an eager model, one line, no cache, whole matrices edited as they are made."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from tests.capture.decoders import decoder, eager_twin, layouts_of, padded_batch
from vlmattn.capture import Session

IMAGE = range(2, 10)
DECODERS = ("llama_gqa", "mistral_window", "gemma2_softcap", "gpt_oss_sinks", "cohere2_window")
"""Grouped heads in all; windows of 9 tokens in all but the first, soft caps, learned sinks."""


@dataclass
class Matrices:
    """What a plain method sees of one layer: scores before the mask (H, N, N), what rows see (N, N), the prompt."""

    layer: int
    seen: torch.Tensor
    prompt: int
    scores: torch.Tensor | None = None
    rows: torch.Tensor | None = None


class Plain:
    """A method that leaves everything as it is."""

    def turned(self, query: torch.Tensor, keys: torch.Tensor, at: Matrices) -> torch.Tensor:
        """(H, N, N) products of queries and keys (H, N, D)."""
        return query @ keys.transpose(1, 2)

    def scores(self, scores: torch.Tensor, at: Matrices) -> torch.Tensor:
        return scores

    def rows(self, rows: torch.Tensor, at: Matrices) -> torch.Tensor:
        return rows

    def heads(self, outputs: torch.Tensor, at: Matrices) -> torch.Tensor:
        """(H, N, D)"""
        return outputs


@contextmanager
def plainly(model: Any, plain: Plain, layers: list[int], prompt: int, patch: Any) -> Iterator[None]:
    def attend(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: Any = None, **rest: Any) -> Any:
        assert query.shape[0] == 1
        groups = query.shape[1] // key.shape[1]
        keys, values = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        scores = (query @ keys.transpose(2, 3)).double()[0] * scaling
        if module.layer_idx in layers:
            scores = (
                plain.turned(query[0].double(), keys[0].double(), Matrices(module.layer_idx, scores, prompt)) * scaling
            )
        cap = rest.get("softcap")
        scores = torch.tanh(scores / cap) * cap if cap else scores
        count = query.shape[2]
        seen = torch.tril(torch.ones(count, count, dtype=torch.bool))
        window = rest.get("sliding_window") or getattr(module, "sliding_window", None)
        if window:
            seen &= ~torch.tril(torch.ones(count, count, dtype=torch.bool), -window)
        at = Matrices(module.layer_idx, seen, prompt)
        acts = module.layer_idx in layers
        scores = plain.scores(scores, at) if acts else scores
        at.scores = scores
        weights = scores.masked_fill(~seen, -torch.inf).exp()
        total = weights.sum(-1, keepdim=True)
        sinks = rest.get("s_aux")
        sinks = getattr(module, "sinks", None) if sinks is None else sinks
        if sinks is not None:
            total = total + sinks.double().exp()[:, None, None]
        rows = weights / total
        rows = plain.rows(rows, at) if acts else rows
        at.rows = rows
        out = rows @ values[0].double()
        out = plain.heads(out, at) if acts else out
        return out.to(query.dtype).transpose(0, 1)[None].contiguous(), rows[None]

    homes = {type(m).__module__ for m in model.modules() if hasattr(m, "layer_idx") and hasattr(m, "q_proj")}
    with patch.context() as inside:
        for home in homes:
            inside.setattr(sys.modules[home], "eager_attention_forward", attend)
        yield


def check_same(
    name: str, steering: Any, plain: Plain, layers: list[int], patch: Any, *, effect: float = 1e-3, steps: int = 4
) -> None:
    """Every step of a padded batch equals the plain computation on whole lines."""
    model = decoder(name)
    inputs, pads = padded_batch((23, 17))
    how = {"max_new_tokens": steps, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    with Session(model, layouts_of(inputs, pads), None, [steering], pad_left=pads), torch.no_grad():
        out = model.generate(**inputs, **how)
    before = model.generate(**inputs, **how)
    assert (out.logits[0] - before.logits[0]).abs().max() > effect, "nothing was changed"
    twin = eager_twin(model)
    for item, (length, pad) in enumerate(zip((23, 17), pads, strict=True)):
        ids = out.sequences[item : item + 1, pad:]
        with plainly(twin, plain, layers, length, patch), torch.no_grad():
            want = twin(input_ids=ids, use_cache=False).logits[0]
        for step in range(steps):
            error = (out.logits[step][item] - want[length - 1 + step]).abs().max()
            assert error < 1e-5 * max(1, float(want.abs().max())), (item, step, float(error))


def check_neutral(name: str, steering: Any) -> None:
    """The same logits, bit for bit."""
    model = decoder(name)
    inputs, pads = padded_batch((23, 17))
    how = {"max_new_tokens": 3, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    plain = model.generate(**inputs, **how)
    with Session(model, layouts_of(inputs, pads), None, [steering], pad_left=pads):
        out = model.generate(**inputs, **how)
    assert all(torch.equal(a, b) for a, b in zip(out.logits, plain.logits, strict=True))
