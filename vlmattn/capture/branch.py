"""A second run beside the one that is written: another prompt, a cache of its own, the same tokens.

It stands inside a logits processor, where sessions rest, so that it is neither captured nor steered. The rows that a
processor gets say what the branch has to do: where they are those of the last step, each longer by one token, its cache
is put into their order (beams move) and reads that token; otherwise (a search that went back) it reads all anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from vlmattn.capture.sites import unwrap
from vlmattn.core.errors import CaptureError, UnsupportedModel

_REMEMBERED = ("rope_deltas",)
"""What models remember of the last prompt they read, beside the cache; a branch must leave that of the run."""


class Branch:
    """Next-token logits of a model on another prompt, followed by what the first run has written.

    Args:
        model: a transformers model that ``generate`` drives; no encoder-decoder.
        inputs: of the branch, by name: ``input_ids`` (or ``inputs_embeds``), ``attention_mask``, padded on the left.
        prompt: tokens per line of the first run's prompt, padding included.

    Attributes:
        passes: forward passes so far, prompts included.
    """

    def __init__(self, model: Any, inputs: Mapping[str, Any], prompt: int) -> None:
        self.model, self.inputs, self.prompt = unwrap(model), dict(inputs), prompt
        self.batch = int(self.inputs["attention_mask"].shape[0])
        self.passes = 0
        self._seen: torch.Tensor | None = None
        self._ids, self._kwargs = torch.empty(0), dict[str, Any]()
        self._memory: dict[int, dict[str, Any]] = {}

    @torch.no_grad()
    def logits(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(B', V) float32 logits of the token that follows each row.

        Args:
            input_ids: (B', N) prompt and written tokens of the first run; B' is B, times beams or samples.

        Raises:
            CaptureError: rows that do not divide over the prompts. UnsupportedModel: the branch's prompt does not run.
        """
        rows, width = int(input_ids.shape[0]), int(input_ids.shape[1])
        if rows % self.batch or width < self.prompt:
            raise CaptureError(f"{rows} rows of {width} tokens do not go on from {self.batch} prompts of {self.prompt}")
        parents = self._parents(input_ids)
        with own_memory(self.model, self._memory):
            if parents is None:
                out = self._begin(rows // self.batch)
                for step in range(self.prompt, width):
                    out = self._read(input_ids[:, step : step + 1])
            else:
                self._move(parents)
                out = self._read(input_ids[:, -1:])
        self._seen = input_ids.clone()
        return out

    def _parents(self, ids: torch.Tensor) -> torch.Tensor | None:
        # (B',) which row of the last step each row goes on from; None if there is none for some.
        seen = self._seen
        if seen is None or seen.shape[1] + 1 != ids.shape[1]:
            return None
        if seen.shape[0] == ids.shape[0] and torch.equal(seen, ids[:, :-1]):
            return torch.arange(len(ids), device=ids.device)
        same = (ids[:, None, :-1] == seen[None]).all(-1)
        items = [torch.arange(n, device=ids.device) // (n // self.batch) for n in (len(ids), len(seen))]
        same &= items[0][:, None] == items[1][None]
        return same.int().argmax(-1) if bool(same.any(-1).all()) else None

    def _move(self, parents: torch.Tensor) -> None:
        # Put the cache, and what is told of each row, into another order; rows may become more or fewer.
        rows = len(self._ids)
        if len(parents) == rows and torch.equal(parents, torch.arange(rows, device=parents.device)):
            return
        self._kwargs["cache"].reorder_cache(parents)
        at, widths = parents.to(self._ids.device), (self._ids.shape[1], self._ids.shape[1] + 1)
        for name, value in self._kwargs.items():
            if torch.is_tensor(value) and value.dim() == 3 and name == "position_ids":
                self._kwargs[name] = value[:, at]
            elif torch.is_tensor(value) and value.dim() > 1 and value.shape[0] == rows and value.shape[1] in widths:
                self._kwargs[name] = value[at]
        self._ids = self._ids[at]

    def _begin(self, copies: int) -> torch.Tensor:
        from transformers import DynamicCache

        model, given = self.model, dict(self.inputs)
        ids = given.pop("input_ids", None)
        if ids is None:
            ids = given["inputs_embeds"].new_zeros(given["inputs_embeds"].shape[:2], dtype=torch.long)
        if given.get("position_ids") is None:
            given["position_ids"] = model._prepare_position_ids_for_generation(ids, given)
        given |= {"cache": DynamicCache(config=model.config), "use_cache": True}
        if model._supports_logits_to_keep():
            given["logits_to_keep"] = 1
        self._ids, self._kwargs = ids, given
        try:
            out = self._pass(None, first=True)
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UnsupportedModel(
                f"{type(model).__name__} does not run on the contrast branch's prompt: {str(error)[:200]}"
            ) from error
        return self._copied(out, copies)

    def _copied(self, logits: torch.Tensor, copies: int) -> torch.Tensor:
        # Every prompt is read once, whatever the number of beams; pixels are not needed any more.
        left = {n: v for n, v in self._kwargs.items() if not (torch.is_tensor(v) and v.is_floating_point())}
        if copies > 1:
            lines = torch.arange(self.batch, device=logits.device).repeat_interleave(copies)
            left["cache"].reorder_cache(lines)
            self._ids, left = self.model._expand_inputs_for_generation(
                expand_size=copies, is_encoder_decoder=False, input_ids=self._ids, **left
            )
            logits = logits[lines]
        self._kwargs = left
        return logits

    def _read(self, tokens: torch.Tensor) -> torch.Tensor:
        self._ids = torch.cat([self._ids, tokens.to(self._ids.device)], dim=-1)
        return self._pass(1, first=False)

    def _pass(self, count: int | None, *, first: bool) -> torch.Tensor:
        inputs = self.model.prepare_inputs_for_generation(
            self._ids, next_sequence_length=count, is_first_iteration=first, **self._kwargs
        )
        output = self.model(**inputs, return_dict=True)
        self._kwargs = self.model._update_model_kwargs_for_generation(output, self._kwargs)
        self.passes += 1
        return torch.as_tensor(output.logits[:, -1]).float()


@contextmanager
def own_memory(model: Any, held: dict[int, dict[str, Any]] | None = None) -> Iterator[None]:
    """What the model remembers of the last prompt, beside the cache, is put aside, and put back afterwards.

    Args:
        held: what another run had remembered, by module; it is brought up to date.
    """
    mine = held if held is not None else {}
    holders = [m for m in model.modules() if any(name in m.__dict__ for name in _REMEMBERED)]
    theirs = {id(m): {n: m.__dict__[n] for n in _REMEMBERED if n in m.__dict__} for m in holders}
    for module in holders:
        module.__dict__.update(mine.get(id(module), {}))
    try:
        yield
    finally:
        for module in holders:
            mine[id(module)] = {n: module.__dict__[n] for n in theirs[id(module)]}
            module.__dict__.update(theirs[id(module)])
