"""Residual-stream statistics while a model runs: per token and layer a few numbers instead of d of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from vlmattn.capture.kept import HiddenStats
from vlmattn.core.errors import UnsupportedModel

_Log = dict[int, list[torch.Tensor]]


@dataclass
class HiddenLog:
    """Collected during a run: per layer, a list of (B, q, …) tensors.

    Attributes:
        offload: hold them on the CPU. top: how many of the largest coordinates to keep, with the median |x|.
        width: coordinates of the residual stream, as soon as it was seen.
    """

    offload: bool = False
    top: int = 0
    width: int = 0
    rms: _Log = field(default_factory=dict)
    peak: _Log = field(default_factory=dict)
    peak_coord: _Log = field(default_factory=dict)
    coord: _Log = field(default_factory=dict)
    top_coord: _Log = field(default_factory=dict)
    top_value: _Log = field(default_factory=dict)
    median: _Log = field(default_factory=dict)

    def add(self, layer: int, hidden: torch.Tensor, coords: tuple[int, ...]) -> None:
        """Add (B, q, d) residual-stream states at the input of ``layer``."""
        states = hidden.detach().float()
        self.width = states.shape[-1]
        largest, size = _largest(states), self.width**0.5
        self._log(self.rms, layer, torch.linalg.vector_norm(states, dim=-1) / size)
        self._log(self.peak, layer, largest[0])
        self._log(self.peak_coord, layer, largest[1])
        self._log(self.coord, layer, states[..., list(coords)])
        if self.top:
            magnitude = states.abs()
            where = magnitude.topk(min(self.top, self.width), dim=-1).indices
            self._log(self.top_coord, layer, where)
            self._log(self.top_value, layer, states.gather(-1, where))
            self._log(self.median, layer, magnitude.median(dim=-1).values)

    def _log(self, log: _Log, layer: int, values: torch.Tensor) -> None:
        log.setdefault(layer, []).append(values.cpu() if self.offload else values)

    def stats(
        self, item: int, first: int, last: int, coords: tuple[int, ...], *, before: int = 0
    ) -> HiddenStats | None:
        """Statistics of tokens [first, last) of one sequence of the batch, after ``before`` places without any."""
        if not self.rms:
            return None
        layers = tuple(sorted(self.rms))

        def stack(log: _Log) -> torch.Tensor:
            told = torch.stack([torch.cat(log[i], dim=1)[item, first:last].cpu() for i in layers])
            empty = torch.nan if told.is_floating_point() else -1
            return torch.cat([told.new_full((len(layers), before, *told.shape[2:]), empty), told], dim=1)

        return HiddenStats(
            layers=layers,
            rms_ln=stack(self.rms),
            peak_ln=stack(self.peak),
            peak_coord_ln=stack(self.peak_coord),
            coords=coords,
            coord_lnc=stack(self.coord),
            width=self.width,
            top_coord_lnk=stack(self.top_coord) if self.top else None,
            top_value_lnk=stack(self.top_value) if self.top else None,
            median_ln=stack(self.median) if self.top else None,
        )


def check_stream(states: torch.Tensor, width: int | None) -> None:
    """Raises UnsupportedModel where the input of a layer is not one residual stream, (B, q, ``width``)."""
    if states.dim() != 3 or (width is not None and states.shape[-1] != width):
        raise UnsupportedModel(
            f"layers of this model read several residual streams at once, a tensor of shape {tuple(states.shape)}: "
            "what is kept or changed by the states of one (hidden=True, massive sinks, VAR) is not defined for it; "
            "sinks by received attention are: rule='received'"
        )


def _largest(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # Largest |x| and its coordinate, the first of equals. Reductions that tell the place are an order of magnitude
    # slower than those that do not, so the place is looked for in the best block only.
    magnitude = states.abs()
    block = math.gcd(states.shape[-1], 64)
    if block < 8:
        whole = magnitude.max(dim=-1)
        return whole.values, whole.indices
    parts = magnitude.reshape(*states.shape[:-1], -1, block)
    which = parts.amax(dim=-1).argmax(dim=-1)
    index = which[..., None, None].expand(*which.shape, 1, block)
    best = parts.gather(-2, index).squeeze(-2)
    return best.amax(dim=-1), which * block + best.argmax(dim=-1)
