"""One forward pass of which every attention row, and its gradient, can be computed afterwards, some rows at a time.

What a layer's kernel got (queries, keys, values: a few numbers per token) is held, not its attention (tokens × tokens
per head). With y a score of the output and O = A V the heads' outputs, ∂y/∂A_ij = ∂y/∂O_i · v_j, so the gradient of an
attention matrix follows from that of the layer's output: one backward pass under the model's own kernel, and rows of A
and ∂y/∂A from what is held. The model stays in its mode, and no gradient is left on its weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from vlmattn.capture import door
from vlmattn.capture.door import AttentionCall
from vlmattn.capture.rows import attention_rows, check_all_rows, check_call, rows_per_chunk
from vlmattn.capture.sites import AttentionSite, model_sites, unwrap
from vlmattn.core.errors import CaptureError, MapError, SpecError

Score = Literal["logit", "log_probability"]


@dataclass
class HeldLayer:
    """What one layer's kernel got and gave, of one sequence.

    Attributes:
        site: the layer. call: query (1, H, N, D), key (1, H_kv, K, D), value (1, H_kv, K, D_v) and mask.
        output: (1, N, H, D_v), in the graph of gradients if there is one.
        slope: (N, H, D_v) gradient of a score by ``output``; None before :meth:`WholePass.differentiate`.
    """

    site: AttentionSite
    call: AttentionCall
    output: torch.Tensor
    slope: torch.Tensor | None = None

    @torch.no_grad()
    def attention(self, rows: slice) -> torch.Tensor:
        """(H, R, K) float32 attention of some rows."""
        return attention_rows(self.call, rows)[0]

    @torch.no_grad()
    def attention_slope(self, rows: slice) -> torch.Tensor:
        """(H, R, K) float32 gradient of the score by the attention of some rows."""
        if self.slope is None:
            raise CaptureError("no score was differentiated: call differentiate() first")
        value = self.call.value[0].float()
        slope = self.slope[rows].float().transpose(0, 1)
        heads, count, dim = slope.shape
        grouped = slope.reshape(value.shape[0], -1, dim)
        return torch.matmul(grouped, value.transpose(1, 2)).view(heads, count, -1)

    def chunks(self, first: int, last: int) -> list[slice]:
        """Rows [first, last) in parts whose attention takes little memory."""
        size = rows_per_chunk(self.call)
        return [slice(at, min(at + size, last)) for at in range(first, last, size)]

    def fold(self, weights: torch.Tensor, matrix: Callable[[HeldLayer, slice], torch.Tensor]) -> torch.Tensor:
        """(W, K) ``weights`` (W, N) times a matrix (N, K) that is never held whole.

        Args:
            matrix: gives (R, K) of some rows.
        """
        used = weights.abs().sum(0).nonzero()
        out = weights.new_zeros((weights.shape[0], self.call.key.shape[2]))
        if not len(used):
            return out
        for rows in self.chunks(int(used.min()), int(used.max()) + 1):
            out += weights[:, rows] @ matrix(self, rows).to(weights)
        return out


class WholePass:
    """Runs one sequence through a model and holds what every row follows from.

    Args:
        model: a transformers model. inputs: of one sequence, on its device. layers: numbers of the layers to hold; None
            for all.

    Raises:
        SpecError: several sequences, or a layer that does not exist. UnsupportedAttention: a layer's attention cannot
            be seen.
    """

    edits = True
    resting = False

    def __init__(self, model: Any, layers: Sequence[int] | None = None) -> None:
        self.model = unwrap(model)
        sites = model_sites(self.model)
        if layers is None:
            sites.check_all_seen()
        self.depth = sites.depth
        by_index = {site.layer_idx: site for site in sites.attention}
        wanted = sorted({n + self.depth if n < 0 else int(n) for n in layers} if layers is not None else by_index)
        missing = [n for n in wanted if n not in by_index]
        if missing or not wanted:
            raise SpecError(f"no attention in layer {missing or '(none given)'}; layers are {sorted(by_index)}")
        self._sites = {id(by_index[n].module): by_index[n] for n in wanted}
        self._graph = False
        self.layers: dict[int, HeldLayer] = {}
        self.scores: torch.Tensor | None = None

    def run(
        self, inputs: Any, rows: Sequence[int] = (), ids: Sequence[int] | None = None, of: Score | None = None
    ) -> WholePass:
        """Run; with ``of`` also score each token ``ids`` in the output of its row, in a graph of gradients that begins
        at the lowest held layer.

        Args:
            inputs: of one sequence. rows: counted among the tokens that run. ids: None for the likeliest of each row.
            of: ``logit`` or ``log_probability``.
        """
        self._graph = of is not None
        modules = [site.module for site in self._sites.values()]
        door.subscribe(self, modules)
        try:
            with torch.inference_mode(False), torch.no_grad():
                logits = _logits(self.model, inputs, rows)
                if of is not None:
                    self.scores = _scores(logits, ids, of)
        finally:
            door.unsubscribe(self, modules)
        if len(self.layers) < len(self._sites):
            raise CaptureError("a chosen layer did not run through the engine: choose other layers")
        self.layers = dict(sorted(self.layers.items()))
        return self

    def visit(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        """See :class:`~vlmattn.capture.door.Visitor`."""
        check_call(call)
        site = self._sites[id(call.module)]
        if output.shape[0] != 1:
            raise SpecError(f"all rows are computed of one sequence at a time, got {output.shape[0]}")
        check_all_rows(call, output.shape[1])
        if self._graph and not torch.is_grad_enabled():
            # What comes after this layer is differentiable; what came before it needs no memory.
            torch.set_grad_enabled(True)
            output = output.detach().requires_grad_(True)
        held = (call.query.detach(), call.key.detach(), call.value.detach())
        self.layers[site.layer_idx] = HeldLayer(
            site, AttentionCall(call.kernel, call.module, *held, call.mask, call.options), output
        )
        return output

    def differentiate(self, weights: Sequence[float] | None = None, *, again: bool = False) -> WholePass:
        """Give every held layer the gradient of the weighted sum of scores (default: their plain sum) by its output.

        Args:
            again: whether the graph is needed once more.

        Raises:
            MapError: the model's weights leave no gradient (quantised or off-loaded ones), or it is not finite.
        """
        if self.scores is None:
            raise CaptureError("the pass has no scores: run(..., of='logit')")
        with torch.inference_mode(False), torch.enable_grad():
            told = torch.ones_like(self.scores) if weights is None else self.scores.new_tensor(list(weights))
            total = (self.scores * told.detach()).sum()
        if not total.requires_grad:
            raise MapError("gradients do not reach so far down in this model: take the raw or relative map")
        outputs = [held.output for held in self.layers.values()]
        try:
            slopes = torch.autograd.grad(total, outputs, retain_graph=again, allow_unused=True)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, NotImplementedError) as error:
            raise MapError(f"this model leaves no gradient ({error}): take the raw or relative map") from error
        for held, slope in zip(self.layers.values(), slopes, strict=True):
            if slope is None:
                raise MapError("the answer does not depend on these values by gradients: take the raw or relative map")
            if not bool(torch.isfinite(slope).all()):
                raise MapError(
                    f"the gradient of layer {held.site.layer_idx} is NaN or infinite: load the model with "
                    "dtype='float32', or take the raw or relative map"
                )
            held.slope = slope[0]
        return self


def _logits(model: Any, inputs: Any, rows: Sequence[int]) -> torch.Tensor:
    """(R, V) float32 logits of some rows; where the model can, of no others."""
    settings: dict[str, Any] = {"use_cache": False}
    count = len(rows)
    if "logits_to_keep" in inspect.signature(type(model).forward).parameters:
        # A model whose weights are off-loaded has no device of its own to speak of.
        where = next((given.device for given in inputs.values() if isinstance(given, torch.Tensor)), None)
        settings["logits_to_keep"] = torch.as_tensor(list(rows) or [-1], device=where)
    logits = model(**inputs, **settings).logits[0]
    if len(logits) != max(count, 1):
        logits = logits[list(rows)]
    return logits[:count].float()


def _scores(logits: torch.Tensor, ids: Sequence[int] | None, of: Score) -> torch.Tensor:
    chosen = logits.detach().argmax(-1) if ids is None else torch.as_tensor(list(ids), device=logits.device)
    values = logits if of == "logit" else torch.log_softmax(logits, dim=-1)
    return values.gather(1, chosen[:, None])[:, 0]
