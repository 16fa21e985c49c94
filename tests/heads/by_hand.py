"""A plain computation of attention, whole matrices at once, that can hide cells of them and keep what it made."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface

import vlmattn as va
from tests.capture.asked import picture
from tests.tiny_models import FAMILIES, tiny

__all__ = ["FAMILIES", "answered", "by_hand", "loaded", "picture", "run_of"]
ANSWER = list(range(70, 94))
_now: dict[str, Any] = {"hide": None, "kept": {}}


def _attend(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any) -> Any:
    groups = query.shape[1] // key.shape[1]
    keys, values = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    count = query.shape[2]
    scores = (query @ keys.transpose(2, 3)) * scaling
    seen = torch.tril(torch.ones(count, count, dtype=torch.bool))
    if _now["hide"] is not None:
        seen = seen & ~_now["hide"](module.layer_idx, count)
    rows = torch.softmax(scores.masked_fill(~seen, -torch.inf), -1).nan_to_num(0.0)
    _now["kept"][module.layer_idx] = {"rows": rows[0], "query": query[0], "key": key[0], "value": values[0]}
    return (rows @ values).transpose(1, 2).contiguous(), rows


AttentionInterface.register("by_hand", _attend)


@cache
def loaded(family: str) -> va.Vlm:
    return va.load(*tiny(family))


@cache
def run_of(family: str, question: str = "What is it?") -> va.Run:
    return loaded(family).ask(picture(), question, answer=ANSWER)


@contextmanager
def by_hand(
    run: va.Run, hide: Callable[[int, int], torch.Tensor] | None = None
) -> Iterator[tuple[Any, dict[int, Any]]]:
    """(logits (N, V) of the whole sequence, what each layer made) of a copy of the model."""
    vlm = run.vlm
    twin = copy.deepcopy(vlm.model)
    twin.model.language_model.config._attn_implementation = "by_hand"
    encoded = vlm.encode([run.pictures], [run.question])
    inputs = dict(encoded.inputs)
    ids = torch.as_tensor(np.asarray(run.trace.layout.input_ids))[None]
    inputs["input_ids"] = ids
    inputs["attention_mask"] = torch.ones_like(ids)
    for name in ("token_type_ids", "mm_token_type_ids"):
        inputs.pop(name, None)
    _now.update(hide=hide, kept={})
    with torch.no_grad():
        logits = twin(**inputs, use_cache=False).logits[0]
    yield logits, _now["kept"]
    _now.update(hide=None, kept={})


def answered(run: va.Run, logits: torch.Tensor) -> float:
    """Log-probability of the answer."""
    start = run.trace.layout.answer_start
    logp = torch.log_softmax(logits[start - 1 : -1].double(), -1)
    ids = torch.as_tensor(np.asarray(run.trace.layout.input_ids[start:]))
    return float(logp.gather(1, ids[:, None]).sum())
