"""One pass of the vision tower alone: where its patches look, before the language model runs.

Every layer is computed by the model's own kernel; rows are then computed again in parts, exactly, and reduced at once.
A layer may come in several calls (views, windows, pictures); they are put together by the order of its tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch

from vlmattn.adapters.paint import merged_embeddings, takes_pictures
from vlmattn.capture import door
from vlmattn.capture.cost import free_memory
from vlmattn.capture.door import AttentionCall
from vlmattn.capture.flow import Flow
from vlmattn.capture.rows import apply_mask, row_mask, row_probabilities, row_scores, rows_per_chunk
from vlmattn.capture.sites import model_sites, stack_of
from vlmattn.capture.spec import bytes_said
from vlmattn.core.errors import BudgetExceeded, CaptureError, SpecError
from vlmattn.core.tower_cells import TowerView

FlowKind = Literal["rollout", "last"]
_LENGTHS = ("cu_seq_lens_q", "cu_seqlens_q", "cu_seqlens")


@dataclass(frozen=True)
class KeptTower:
    """What one pass of the tower kept. T tokens of all views of all pictures, in the order of the attention layers.

    Attributes:
        layers: (L,) numbers of the layers with attention. depth: layers of the tower.
        received_lht: (L, H, T) mean over all queries of its view of what each token receives.
        special_lhst: (L, H, S, T) rows of the view's special tokens (classes, then registers), S of them in each view.
        norm_lt: (depth, T) norm of the residual stream after each layer.
        flows: per view (n, n), row i: where token i's output comes from; none unless asked for.
    """

    layers: tuple[int, ...]
    depth: int
    received_lht: torch.Tensor
    special_lhst: torch.Tensor
    norm_lt: torch.Tensor
    flows: tuple[torch.Tensor, ...] = ()


class TowerPass:
    """Looks at the layers of the vision tower while :meth:`run` runs it.

    Args:
        model: a transformers model. views: what the tower gets of all pictures of the batch, in order.
        flow: also keep where each token's output comes from: ``rollout`` (Abnar & Zuidema 2020: the product over
            layers of the mean over heads, half of it the residual), or ``last`` (the mean over heads of the last layer
            that is read). One n x n matrix per view is held, and one of the layer at work.
        read: of the tower's depth, how many layers reach the language model; ``flow`` ends there.
        budget: bytes, or a fraction of free memory, that ``flow`` may take.

    Raises:
        SpecError: no attention of the tower can be seen. BudgetExceeded: ``flow`` would take more than ``budget``.
        CaptureError: the tower holds other tokens than ``views`` say.
    """

    edits = False
    resting = False

    def __init__(
        self,
        model: Any,
        views: Sequence[TowerView],
        *,
        flow: FlowKind | None = None,
        read: Callable[[int], int] = lambda depth: depth,
        budget: int | float = 0.25,
    ) -> None:
        self.model, self.views = model, tuple(views)
        self.sites = {id(site.module): site for site in model_sites(model).tower}
        if not self.sites:
            name = type(model).__name__
            raise SpecError(f"{name} has no vision tower whose attention can be seen: use the text-side maps (run.map)")
        self.starts = [0]
        for view in self.views:
            self.starts.append(self.starts[-1] + len(view))
        self.kind, self._read = flow, read
        self._check_budget(budget)
        self._stack = ""
        self._depth = 0
        self._flow = Flow(self.starts)
        self._offset: dict[int, int] = {}
        self._received: dict[int, torch.Tensor] = {}
        self._special: dict[int, torch.Tensor] = {}
        self._norms: dict[int, list[torch.Tensor]] = {}
        self._padded: tuple[int, int] | None = None

    @torch.no_grad()
    def run(self, inputs: Mapping[str, Any]) -> KeptTower:
        """Run the tower on a batch's inputs; the language model does not run."""
        modules = [site.module for site in self.sites.values()]
        handles: list[Any] = []
        door.subscribe(self, modules)
        try:
            for stack in {stack_of(site)[0] for site in self.sites.values()}:
                blocks = self.model.get_submodule(stack)
                for number, block in enumerate(blocks):
                    handles.append(block.register_forward_hook(self._leaving(stack, number)))
            merged_embeddings(self.model, inputs, lambda given: None if takes_pictures(given) else True)
        finally:
            door.unsubscribe(self, modules)
            for handle in handles:
                handle.remove()
        return self._kept()

    # -- at the door ---------------------------------------------------------------------------------------------------

    def visit(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        """See :class:`~vlmattn.capture.door.Visitor`."""
        stack, number = stack_of(self.sites[id(call.module)])
        if not self._stack:  # the first stack to run is the tower; what follows are its connectors
            self._stack, self._depth = stack, len(self.model.get_submodule(stack))
            self._check_layers()
        if stack == self._stack:
            for part in self._without_padding(call) or _unpacked(call):
                self._look(number, part)
        return output

    def _check_layers(self) -> None:
        seen = {stack_of(site)[1] for site in self.sites.values() if stack_of(site)[0] == self._stack}
        hidden = sorted(set(range(self._read(self._depth))) - seen)
        if self.kind == "rollout" and hidden:
            raise SpecError(
                f"rollout needs the attention of every layer, and layers {hidden} of the vision tower of "
                f"{type(self.model).__name__} mix patches without any: use 'received'"
            )

    def _look(self, number: int, call: AttentionCall) -> None:
        heads, tokens = call.query.shape[1], self.starts[-1]
        if number not in self._received:
            self._received[number] = torch.zeros(heads, tokens)
            self._special[number] = torch.zeros(heads, len(self._specials(0)), tokens)
        pieces = self._pieces(number, call)
        follow = self.kind is not None and number < self._read(self._depth)
        follow = follow and (self.kind == "rollout" or number == self._read(self._depth) - 1)
        flows = [torch.zeros(p.count, p.count, device=call.query.device) if follow else None for p in pieces]
        size = rows_per_chunk(call)
        for first in range(0, call.query.shape[2], size):
            rows = slice(first, min(first + size, call.query.shape[2]))
            scores = row_scores(call, rows)
            probs = row_probabilities(call, apply_mask(scores, row_mask(call, rows)), rows)
            for piece, matrix in zip(pieces, flows, strict=True):
                self._add(number, piece, probs, first, matrix)
        for piece, matrix in zip(pieces, flows, strict=True):
            if matrix is not None:
                self._flow.step(piece.token, matrix, residual=self.kind == "rollout")

    def _add(self, number: int, piece: _Piece, probs: torch.Tensor, first: int, matrix: torch.Tensor | None) -> None:
        low, high = max(piece.row, first), min(piece.row + piece.count, first + probs.shape[2])
        if low >= high:
            return
        columns = slice(piece.row, piece.row + piece.count)
        part = probs[piece.item, :, low - first : high - first, columns]
        where = slice(piece.token, piece.token + piece.count)
        self._received[number][:, where] += part.sum(1).cpu()
        if matrix is not None:
            matrix[low - piece.row : high - piece.row] = part.mean(0)
        for slot, token in enumerate(self._specials(piece.view)):
            row = token - piece.token + piece.row
            if low <= row < high:
                self._special[number][:, slot, where] = part[:, row - low].cpu()

    def _specials(self, view: int) -> list[int]:
        return [self.starts[view] + place for place in (*self.views[view].classes, *self.views[view].registers)]

    def _pieces(self, number: int, call: AttentionCall) -> list[_Piece]:
        """The parts of a call, each inside one view: tokens come in order, padded views from their own start."""
        batch, count = call.query.shape[0], call.query.shape[2]
        start = self._offset.get(number, 0)
        if batch * count > self.starts[-1] - start:
            found = self._padded_pieces(start, batch, count)
            self._padded = (batch, count)
        else:
            found = [p for item in range(batch) for p in self._cut(item, start + item * count, count)]
        self._offset[number] = start + sum(p.count for p in found)
        return found

    def _cut(self, item: int, start: int, count: int) -> list[_Piece]:
        parts = []
        for view, (low, high) in enumerate(zip(self.starts[:-1], self.starts[1:], strict=True)):
            first, last = max(low, start), min(high, start + count)
            if first < last:
                parts.append(_Piece(item, view, first - start, first, last - first))
        return parts

    def _held(self, shape: Sequence[int]) -> list[torch.Tensor]:
        """Places of each view's tokens in a (views, tokens) where grids are padded to the largest; none elsewhere."""
        grids = [view.grid_hw for view in self.views if view.grid_hw is not None]
        if not grids or len(grids) < len(self.views):
            return []
        most = max(rows for rows, _ in grids), max(cols for _, cols in grids)
        if tuple(shape[:2]) != (len(grids), most[0] * most[1]):
            raise self._mismatch(int(shape[0] * shape[1]))
        return [torch.from_numpy(view.within(most)) for view in self.views]

    def _without_padding(self, call: AttentionCall) -> list[AttentionCall]:
        """A call over padded grids view by view: no token sees padding, so without it nothing is masked."""
        held = self._held((call.query.shape[0], call.query.shape[2]))
        parts = []
        for item, at in enumerate(held):
            where = at.to(call.query.device)
            query, key, value = (t[item : item + 1, :, where] for t in (call.query, call.key, call.value))
            options = call.options | {"is_causal": False}
            parts.append(replace(call, query=query, key=key, value=value, mask=None, options=options))
        return parts

    def _padded_pieces(self, start: int, batch: int, count: int) -> list[_Piece]:
        first = self.starts.index(start) if start in self.starts else len(self.views)
        views = range(first, first + batch)
        if views.stop > len(self.views) or any(len(self.views[v]) > count for v in views):
            raise self._mismatch(start + batch * count)
        return [_Piece(item, v, 0, self.starts[v], len(self.views[v])) for item, v in enumerate(views)]

    def _leaving(self, stack: str, number: int) -> Callable[..., None]:
        def look(_module: Any, _args: Any, output: Any) -> None:
            states = output[0] if isinstance(output, tuple) else output
            if stack == self._stack and isinstance(states, torch.Tensor):
                norms = states.float().norm(dim=-1).cpu()
                held = self._held(norms.shape)
                parts = [norms[item, at] for item, at in enumerate(held)] or [norms]
                self._norms.setdefault(number, []).extend(parts)

        return look

    # -- afterwards ----------------------------------------------------------------------------------------------------

    def _kept(self) -> KeptTower:
        total = self.starts[-1]
        if not self._offset:
            raise CaptureError(f"no layer of the vision tower of {type(self.model).__name__} ran: give it a picture")
        for seen in self._offset.values():
            if seen != total:
                raise self._mismatch(seen)
        layers = tuple(sorted(self._received))
        lengths = torch.cat([torch.full((len(v),), float(len(v))) for v in self.views])
        return KeptTower(
            layers=layers,
            depth=self._depth,
            received_lht=torch.stack([self._received[n] for n in layers]) / lengths,
            special_lhst=torch.stack([self._special[n] for n in layers]),
            norm_lt=torch.stack([self._line(self._norms[n]) for n in sorted(self._norms)]),
            flows=tuple(m.cpu() for m in self._flow.matrices()) if self.kind is not None else (),
        )

    def _line(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """(T,) of one layer's outputs, padding left out."""
        if self._padded is None:
            line = torch.cat([p.reshape(-1) for p in parts])
        else:
            views = [v for part in parts for v in part.reshape(-1, self._padded[1])]
            line = torch.cat([v[: len(view)] for v, view in zip(views, self.views, strict=True)])
        if len(line) != self.starts[-1]:
            raise self._mismatch(len(line))
        return line

    def _mismatch(self, seen: int) -> CaptureError:
        return CaptureError(
            f"the vision tower holds {seen} tokens or more, but the adapter's tower_cells say {self.starts[-1]} in "
            f"{len(self.views)} views: which cell is which token is not known for this model"
        )

    def _check_budget(self, budget: int | float) -> None:
        if self.kind is None or not self.views:
            return
        largest = max(len(v) for v in self.views)
        needed = 4 * (sum(len(v) ** 2 for v in self.views) + largest**2)
        device = next(self.model.parameters()).device
        allowed = int(budget) if isinstance(budget, int) or budget > 1 else int(budget * free_memory(device))
        if needed > allowed:
            raise BudgetExceeded(
                f"the {self.kind} of {len(self.views)} views of up to {largest} tokens takes {bytes_said(needed)}, "
                f"over the budget of {bytes_said(allowed)}: shrink the picture, or use 'received', which keeps none"
            )


@dataclass(frozen=True)
class _Piece:
    """Part of a call inside one view: item of the batch, first row in the call, first token of T, and how many."""

    item: int
    view: int
    row: int
    token: int
    count: int


def _unpacked(call: AttentionCall) -> list[AttentionCall]:
    """The sequences of a call that packs several into one, as flash kernels take them."""
    lengths = next((call.options[n] for n in _LENGTHS if call.options.get(n) is not None), None)
    if lengths is None or "flash" not in call.kernel:
        return [call]
    options = {k: v for k, v in call.options.items() if "seq" not in k}
    edges = [int(n) for n in lengths]
    return [
        replace(
            call,
            query=call.query[:, :, a:b],
            key=call.key[:, :, a:b],
            value=call.value[:, :, a:b],
            mask=None,
            options=options,
        )
        for a, b in pairwise(edges)
    ]
